"""Valid inputs of every kind, made by handclr itself: what is changed, and what lies beside it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np

from handclr_cli.contract.fields import KEYPOINTS_2D, encode_array
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.tar import END_OF_ARCHIVE, write_member

from .calls import call

TRAIN = "--arch resnet18 --head regress --size 32 --batch 4 --epochs 1 --device cpu --workers 0"
CSV = """video,frame,x0,y0,x1,y1,score,hand
film.mp4,0,40,30,100,90,0.9,left
film.mp4,1,42,30,100,90,0.8,r
film.mp4,3,42,33,101,92,1.0,1
"""
TOML = """run = "/proc/nowhere"
arch = "resnet18"
epochs = 2
lr = 0.01
freeze = true
validation = ["gone.tar"]
"""


def make(folder: Path) -> None:
    """Make the seeds in an empty folder; raises where one of the commands fails."""
    _labels(folder)
    _poses(folder)
    _models(folder)
    _footage(folder)
    _sets(folder)
    (folder / "options.toml").write_text(TOML)


def _run(folder: Path, line: str) -> None:
    words = line.format(s=folder).split()
    told = call(words)
    if told.finding or told.code not in (0, 3):
        raise RuntimeError(f"{line}: {told}")


def _labels(folder: Path) -> None:
    _run(folder, "synth labelled --count 6 --size 48 --workers 1 -o {s}/labelled.tar")
    _run(folder, "synth labelled --count 6 --size 48 --seed 1 --workers 1 -o {s}/shard-000000.tar")


def _poses(folder: Path) -> None:
    """Crops of three videos with keypoints, as extract and keypoints make them."""
    index, draw = ShardIndex([str(folder / "labelled.tar")]), np.random.default_rng(0)
    with open(folder / "hands.tar", "wb") as file:
        for row in range(6):
            sample = index[row]
            key = f"film{row // 2}_{row % 2:08d}_r"
            info = {**sample.info, "video": f"film{row // 2}.mp4", "frame": row % 2}
            points = sample.keypoints2d + draw.normal(0, 1, (21, 2))
            write_member(file, f"{key}.jpg", sample.members["jpg"])
            write_member(file, f"{key}.json", json.dumps(info).encode())
            write_member(file, f"{key}.{KEYPOINTS_2D.suffix}", encode_array(KEYPOINTS_2D, points))
        file.write(END_OF_ARCHIVE)
    _run(folder, "pca {s}/hands.tar --dim 4 -o {s}/pose.npz")
    _run(folder, "mine {s}/pose.npz --engine hnsw --index {s}/pool.hnsw -o {s}/pairs.npz")
    _run(folder, "mine {s}/pose.npz --top-k 2 -o {s}/pairs.npz")


def _models(folder: Path) -> None:
    _run(folder, f"finetune {{s}}/labelled.tar {TRAIN} --run {{s}}/run")
    (folder / "model.pt").write_bytes((folder / "run" / "model.pt").read_bytes())
    call(
        ["predict", str(folder / "hands.tar"), "--model", str(folder / "model.pt"), *_quiet(folder)]
    )
    _run(
        folder,
        "evaluate {s}/labelled.tar --model {s}/model.pt --device cpu --workers 0 "
        "-o {s}/predictions.npz",
    )


def _quiet(folder: Path) -> list[str]:
    return ["--device", "cpu", "--workers", "0", "-o", str(folder / "predicted.npz")]


def _footage(folder: Path) -> None:
    import cv2

    draw = np.random.default_rng(1)
    (folder / "film").mkdir()
    picture = draw.integers(0, 255, (120, 160, 3), np.uint8)
    cv2.imwrite(str(folder / "film.png"), picture)
    cv2.imwrite(str(folder / "film.jpg"), picture)
    cv2.imwrite(str(folder / "film.webp"), picture)
    cv2.imwrite(str(folder / "film.tif"), picture)
    _run(folder, "synth footage {s}/film --videos 1 --frames 4 --width 64 --height 64 --workers 1")
    (film,) = (folder / "film").glob("*.mp4")
    (folder / "film.mp4").write_bytes(film.read_bytes())
    (folder / "boxes.csv").write_text(CSV)
    pictures = [f"film.{kind},40,30,100,90,left" for kind in ("png", "jpg", "webp", "tif")]
    (folder / "pictures.csv").write_text("\n".join(["image,x0,y0,x1,y1,hand", *pictures]))
    names = CSV.splitlines()[0].split(",")
    rows = [dict(zip(names, line.split(","), strict=True)) for line in CSV.splitlines()[1:]]
    (folder / "boxes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "boxes.json").write_text(json.dumps(rows))
    (folder / "done").mkdir()
    _run(
        folder,
        "extract {s}/film.mp4 --detections {s}/boxes.csv --workers 0 --size 32 "
        "-o {s}/done/crops-%06d.tar",
    )
    with zipfile.ZipFile(folder / "hand.task", "w") as archive:
        archive.writestr("hand_detector.tflite", bytes(2000))
        archive.writestr("hand_landmarks_detector.tflite", bytes(3000))


def _sets(folder: Path) -> None:
    for name in ("freihand", "dexycb", "assemblyhands"):
        _run(folder, f"synth labelled --layout {name} --count 2 {{s}}/{name}")
    images, annotations = [], []
    for number in range(4):
        name = f"video/frame_{number:06d}.jpg"
        (folder / "frames" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "frames" / name).write_bytes((folder / "film.jpg").read_bytes())
        images.append({"id": number, "file_name": name, "width": 160, "height": 120})
        hand = {"image_id": number, "hand_id": number, "boxes": [40, 30, 100, 90]}
        hand |= {"left_right": "Right", "keypoint_25d": [0.5] * 63}
        annotations.append(hand | {"positive_sample": [(number + 2) % 4], "distance": [0.5]})
    found = {"images": images, "annotations": annotations}
    (folder / "annotations.json").write_text(json.dumps(found))
