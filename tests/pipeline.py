"""$ python tests/pipeline.py [--tree FOLDER] [--record]: checksums of a pipeline.

Two trees that behave alike print the same. `--record` writes pipeline.json, which test_pipeline.py
compares with; `--keep FOLDER` keeps what was made.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

RECORDED = Path(__file__).with_name("pipeline.json")
LIBRARIES = (
    *("numpy", "numba", "scikit-learn", "torch", "torchvision", "onnx"),
    *("mediapipe", "opencv-contrib-python", "av"),
)
TRAIN = "--arch resnet18 --size 32 --batch 4 --epochs 1 --device cpu --workers 0 --cache none"
STEPS = (
    "synth footage wild --videos 3 --frames 6 --fps 5 --width 320 --height 240 --workers 1",
    "synth labelled --count 12 --size 64 --seed 1 --workers 1 -o train.tar",
    "synth labelled --count 6 --size 64 --seed 2 --workers 1 -o test.tar",
    "synth labelled --layout freihand --count 2 freihand",
    "synth labelled --layout dexycb --count 2 dexycb",
    "synth labelled --layout assemblyhands --count 2 assemblyhands",
    (
        "import freihand freihand --check freihand.png --report freihand.json --workers 0 -o"
        " freihand.tar"
    ),
    "import dexycb dexycb --split all --shard-size 8 --workers 0 -o dexycb-%06d.tar",
    "import assemblyhands assemblyhands --size 96 --workers 0 > assemblyhands.tar",
    (
        "import hand100m annotations.json --root frames --pairs published.npz --size 64 --workers 0"
        " -o hand100m.tar"
    ),
    "extract wild --fps 5 --with-keypoints --workers 0 -o crops-%06d.tar --shard-size 10",
    "extract wild --detections boxes.csv --workers 0 > boxes.tar",
    "extract wild --every 3 --look once --no-tracks --workers 0 > plain.tar",
    "keypoints crops-000000.tar crops-000001.tar --workers 0 --keep-empty -o hands-%06d.tar",
    "keypoints boxes.tar --workers 0 > more.tar",
    "pca hands-000000.tar hands-000001.tar --plot variance.png -o pose.npz",
    "pca more.tar --basis pose.npz > new.npz",
    "pca --robust --normalize box --dim 6 hands-000000.tar hands-000001.tar -o robust.npz",
    (
        "mine pose.npz --shards hands-000000.tar --shards hands-000001.tar --sheet pairs.png --plot"
        " distances.png --truth wild/truth --near-duplicates report --exclude-by 'wild-0-([0-9]+)'"
        " --report pairs.json -o loose.npz"
    ),
    (
        "pca --keypoints both --min-side-score 0.6 hands-000000.tar hands-000001.tar --dim 8 -o"
        " both.npz"
    ),
    "mine pose.npz --top-k 2 -o pairs.npz",
    "mine new.npz --against pose.npz --engine hnsw --index pool.hnsw > against.npz",
    "mine pose.npz --part 1/2 --symmetric > part.npz",
    (
        f"pretrain hands-000000.tar hands-000001.tar --pairs pairs.npz --top-k 2 {TRAIN} --run"
        " pretrained"
    ),
    (
        f"pretrain hands-000000.tar hands-000001.tar --method peclr --probe test.tar {TRAIN} --run"
        " peclr"
    ),
    f"finetune train.tar --encoder pretrained/encoder.pt --hold-out 0.3 {TRAIN} --run tuned",
    f"finetune train.tar --head regress {TRAIN} --run scratch",
    "evaluate test.tar --model tuned/model.pt --plot pck.png -o tuned.npz > tuned.json",
    "evaluate test.tar --model scratch/model.pt --bone true --table -o scratch.npz > scratch.txt",
    "evaluate --compare tuned.npz scratch.npz > compared.json",
    "predict test.tar --model scratch/model.pt --onnx scratch.onnx -o predicted.npz",
    "predict boxes.tar --model scratch/model.pt --overlay films > films.npz",
    "evaluate test.tar --predictions predicted.npz > predicted.json",
    "predict wild --smooth --overlay drawn --page pages --workers 0 -o poses.csv",
    "predict hands-000000.tar hands-000001.tar --format jsonl > poses.jsonl",
    "evaluate test.tar --model mediapipe --workers 0 > baseline.json",
    "inspect crops-000000.tar hands-000001.tar pose.npz pairs.npz tuned --json > inspected.json",
    "inspect --sheet inspected.png hands-000000.tar > inspected.txt",
    "extract nothing.mp4",
    "mine pose.npz --against new.npz --symmetric",
    "pretrain hands-000000.tar --pairs pairs.npz --targets pose --weights linear",
)
# What a run takes: its clock is in these.
_CLOCKS = re.compile(rb'"images_per_s": [0-9.]+|[0-9.]+ frames a second')

Run = Callable[[list[str], Path], "subprocess.CompletedProcess[bytes]"]


def checksums(folder: Path, run: Run) -> dict[str, str]:
    """Run all steps in an empty folder; returns what each said and every file made, by name."""
    prepare(folder)
    found = {}
    for number, step in enumerate(STEPS):
        words, target = shlex.split(step.partition(" > ")[0]), step.partition(" > ")[2]
        done = run(words, folder)
        if target:
            (folder / target).write_bytes(done.stdout)
        said = done.stderr if target else done.stdout + b"\n" + done.stderr
        digest = _digest(_CLOCKS.sub(b"", said))
        found[f"said {number:02d} {words[0]}"] = f"{done.returncode} {digest}"
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = _digest_of(path)
    return found


def machine() -> dict[str, str]:
    """What the bytes depend on besides the code: the processor and the libraries."""
    found = {name: version(name) for name in LIBRARIES}
    if os.path.exists("/proc/cpuinfo"):
        match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
        found["processor"] = match[1] if match else platform.machine()
    return found


def in_tree(tree: Path) -> Run:
    """A runner of the package in a folder."""

    def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[bytes]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(tree),
            "OMP_NUM_THREADS": "1",
            "NO_COLOR": "1",
            "COLUMNS": "100",
        }
        command = [sys.executable, "-m", "handclr_cli", *words]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, cwd=folder, env=environment
        )

    return run


def prepare(folder: Path) -> None:
    """Write what no command makes: annotated frames and boxes of another detector."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(4):
        name = f"video-{number // 2}/frame_{number:06d}.jpg"
        (folder / "frames" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / "frames" / name), rng.integers(0, 255, (120, 160, 3), np.uint8))
        images.append({"id": number, "file_name": name, "width": 160, "height": 120})
        hand = {
            "image_id": number,
            "hand_id": number,
            "boxes": [40, 30, 100, 90],
            "left_right": "Right",
        }
        points = {"keypoint_25d": rng.uniform(0.1, 0.9, 63).round(3).tolist()}
        annotations.append(
            hand | points | {"positive_sample": [(number + 2) % 4], "distance": [0.5]}
        )
    (folder / "annotations.json").write_text(
        json.dumps({"images": images, "annotations": annotations})
    )
    rows = ["video,frame,x0,y0,x1,y1,hand,score"]
    for number in range(3):
        rows += [
            f"wild-0-{number:05d},{frame},90,60,230,200,{'lr'[frame % 2]},0.9" for frame in (0, 3)
        ]
    (folder / "boxes.csv").write_text("\n".join(rows) + "\n")


def _digest_of(path: Path) -> str:
    # Of an NPZ file or a checkpoint, what it holds: each release of Python writes other headers.
    data = path.read_bytes()
    if not data.startswith(b"PK\x03\x04"):
        return _digest(_CLOCKS.sub(b"", data))
    with zipfile.ZipFile(path) as held:
        members = [(member.filename, _digest(held.read(member))) for member in held.infolist()]
    return _digest(json.dumps(members).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tree", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.keep or Path(scratch)
        folder.mkdir(exist_ok=True)
        found = {
            "machine": machine(),
            "checksums": checksums(folder, in_tree(asked.tree.resolve())),
        }
    text = json.dumps(found, indent=1) + "\n"
    if asked.record:
        RECORDED.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
