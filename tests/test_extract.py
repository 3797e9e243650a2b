"""extract: drawn hands in, crops of right hands out; and what it says and leaves behind when
footage is bad.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Handclr, drawn_pair, lines, unpack
from drawn_hand import draw_hand, write_video

from handclr_cli.contract.fields import encode_object
from handclr_cli.contract.sample import Sample
from handclr_cli.footage.extraction import balanced
from handclr_cli.footage.frames import Hand
from handclr_cli.footage.keypoints import find_keypoints
from handclr_cli.footage.landmarker import Landmarker
from handclr_cli.footage.looks import distinct_hands
from handclr_cli.hand.square import to_crop


def decoded(jpg: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(jpg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image[:, :, ::-1]


def picture(path: Path, image: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), image[:, :, ::-1])
    return path


def started(*args: str | Path, cwd: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "handclr_cli", *map(str, args)]
    # A shell that runs the tests in the background has them ignore SIGINT, and what they start
    # would too.
    return subprocess.Popen(
        command,
        cwd=cwd,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the first crops have been written, into whatever temporary file."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if any(file.stat().st_size > 0 for file in folder.iterdir()):
            return
        time.sleep(0.02)
    pytest.fail("nothing was ever written")


@pytest.fixture(scope="module")
def one_picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture(tmp_path_factory.mktemp("one") / "hand.png", draw_hand(seed=1))


# What comes out


@pytest.mark.landmarker
def test_samples_are_what_the_contract_says(drawn_crops: bytes, drawn_clip: Path) -> None:
    samples = unpack(drawn_crops)
    assert len(samples) == 8
    for position, (key, members) in enumerate(samples.items()):
        assert set(members) == {"jpg", "json"}
        info = json.loads(members["json"])
        assert list(info) == [
            "video",
            "frame",
            "time_s",
            "box",
            "source_size",
            "hand",
            "flipped",
            "score",
            "track",
            "side_score",
        ]
        assert info["video"] == f"{drawn_clip.parent.name}/clip.mp4"
        assert info["frame"] == position // 2 and info["time_s"] == position // 2 / 2
        assert info["source_size"] == [640, 480]
        assert info["hand"] in ("left", "right") and info["flipped"] is (info["hand"] == "left")
        assert 0.5 <= info["score"] <= 1 and 0.5 <= info["side_score"] <= 1
        assert type(info["track"]) is int
        x0, y0, x1, y1 = info["box"]
        assert all(type(value) is int for value in info["box"]) and x1 - x0 == y1 - y0 > 0
        assert re.fullmatch(rf"clip-[0-9a-f]{{8}}_{position // 2:08d}_{info['hand'][0]}", key)
        assert decoded(members["jpg"]).shape == (224, 224, 3)
    assert [json.loads(members["json"])["hand"] for members in samples.values()].count("left") == 4


@pytest.mark.landmarker
def test_first_member_is_the_provenance(drawn_crops: bytes) -> None:
    assert drawn_crops.startswith(b"__handclr__\0")
    record = json.loads(drawn_crops[512:].split(b"\0", 1)[0])
    assert (record["stage"], record["inputs"], record["seed"]) == ("extract", ["clip.mp4"], 0)
    assert record["arguments"]["every"] == 1 and record["arguments"]["margin"] == 1.5
    assert {len(checksum) for checksum in record["model"].values()} == {64}


@pytest.mark.landmarker
def test_left_hands_are_mirrored_and_hands_are_where_they_were_drawn(
    drawn_crops: bytes, drawn_clip: Path
) -> None:
    """The left hand is drawn in the right half. The crops are compared with the video by a way of
    their own.
    """
    capture = cv2.VideoCapture(str(drawn_clip))
    frames = [capture.read()[1][:, :, ::-1] for _ in range(4)]
    for members in unpack(drawn_crops).values():
        info = json.loads(members["json"])
        x0, y0, x1, y1 = info["box"]
        joints = drawn_pair(info["frame"])[1][info["hand"]]
        assert (joints.min(axis=0) > (x0, y0)).all() and (joints.max(axis=0) < (x1, y1)).all()
        padded = np.pad(frames[info["frame"]], ((500, 500), (500, 500), (0, 0)))
        source = padded[y0 + 500 : y1 + 500, x0 + 500 : x1 + 500]
        if info["hand"] == "left":
            source = source[:, ::-1]
        expected = cv2.resize(
            np.ascontiguousarray(source), (224, 224), interpolation=cv2.INTER_AREA
        )
        assert np.abs(decoded(members["jpg"]) - expected.astype(float)).mean() < 3


@pytest.mark.landmarker
def test_every_crop_looks_like_a_right_hand(drawn_crops: bytes, landmarker_file: Path) -> None:
    with Landmarker(landmarker_file) as detector:
        for members in unpack(drawn_crops).values():
            info = json.loads(members["json"])
            hand = find_keypoints(decoded(members["jpg"]), detector)
            assert hand is not None and hand.side == "right"
            joints = to_crop(
                drawn_pair(info["frame"])[1][info["hand"]], info["box"], 224, info["flipped"]
            )
            assert np.median(np.linalg.norm(hand.keypoints - joints, axis=1)) < 8
            assert hand.keypoints[4, 0] < hand.keypoints[20, 0], (
                "seen from its back, a right thumb is on the left"
            )


@pytest.mark.landmarker
def test_same_bytes_again(
    drawn_crops: bytes, drawn_clip: Path, handclr: Handclr, tmp_path: Path
) -> None:
    """Into a file instead of standard output, in numbered shards too."""
    done = handclr("extract", "--every", "1", drawn_clip, "-o", "out.tar", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, b"")
    assert lines(done.stderr) == [
        "extract: 4 frames of 1 video, 8 crops (4 left, 4 right), 0 frames without a hand, 0 inputs"
        " skipped"
    ]
    assert (tmp_path / "out.tar").read_bytes() == drawn_crops
    assert os.listdir(tmp_path) == ["out.tar"]


@pytest.mark.landmarker
def test_size_margin_max_hands(drawn_crops: bytes, drawn_clip: Path, handclr: Handclr) -> None:
    done = handclr(
        "extract", "--every", "2", "--size", "96", "--margin", "3", "--max-hands", "1", drawn_clip
    )
    usual, samples = unpack(drawn_crops), unpack(done.stdout)
    assert [json.loads(members["json"])["frame"] for members in samples.values()] == [0, 2]
    for key, members in samples.items():
        assert decoded(members["jpg"]).shape == (96, 96, 3)
        wide, box = (np.array(json.loads(of["json"])["box"]) for of in (members, usual[key]))
        assert abs((wide[2] - wide[0]) - 2 * (box[2] - box[0])) <= 0.05 * (wide[2] - wide[0])
        np.testing.assert_allclose(wide[:2] + wide[2:], box[:2] + box[2:], atol=20)


@pytest.mark.landmarker
def test_min_score_of_one_finds_nothing(handclr: Handclr, one_picture: Path) -> None:
    done = handclr("extract", "--min-score", "1", one_picture)
    assert done.returncode == 0 and unpack(done.stdout) == {}
    assert lines(done.stderr)[-1].startswith("handclr: warning: no hand was found")


@pytest.mark.landmarker
def test_video_without_hands(handclr: Handclr, tmp_path: Path) -> None:
    wall = np.random.default_rng(0).normal(110, 5, (240, 320, 3)).astype(np.uint8)
    done = handclr(
        "extract", write_video(tmp_path / "wall.mp4", [wall] * 10, 5), "-o", tmp_path / "out.tar"
    )
    assert done.returncode == 0
    assert unpack((tmp_path / "out.tar").read_bytes()) == {}
    assert lines(done.stderr) == [
        (
            "extract: 2 frames of 1 video, 0 crops (0 left, 0 right), 2 frames without a hand, 0"
            " inputs skipped"
        ),
        "handclr: warning: no hand was found; the output holds no crops; where there are hands, try"
        " --every 1 --min-score 0.3",
    ]


@pytest.mark.landmarker
def test_balance(handclr: Handclr, tmp_path: Path) -> None:
    picture(tmp_path / "img_0.png", drawn_pair(0)[0])
    for number in range(1, 5):
        picture(tmp_path / f"img_{number}.png", draw_hand((360, 480), (240, 190), 13, seed=number))
    runs = [handclr("extract", "--balance", "--seed", "3", tmp_path) for _ in range(2)]
    assert runs[0].stdout == runs[1].stdout
    hands = [json.loads(members["json"])["hand"] for members in unpack(runs[0].stdout).values()]
    assert sorted(hands) == ["left", "right"]
    assert b"2 crops (1 left, 1 right)" in runs[0].stderr


def test_balanced_draws_equally_by_seed_and_keeps_the_order() -> None:
    sides = ["left" if value < 0.3 else "right" for value in np.random.default_rng(0).random(200)]
    keys = [f"v_{row:08d}_{side[0]}" for row, side in enumerate(sides)]

    def draw(seed: int) -> list[str]:
        samples = (
            Sample(k, {"json": encode_object({"hand": s})})
            for k, s in zip(keys, sides, strict=True)
        )
        return [sample.key for sample in balanced(samples, seed)]

    drawn = draw(0)
    assert drawn == sorted(drawn) and set(drawn) < set(keys)
    assert sum(key.endswith("l") for key in drawn) == sides.count("left") == len(drawn) / 2
    assert draw(0) == drawn and draw(1) != drawn
    assert list(balanced(iter([]), 0)) == []


def test_distinct_hands() -> None:
    points = np.random.default_rng(0).uniform(0, 100, (21, 2))
    sure, same, other = (
        Hand(points, "right", 0.9),
        Hand(points + 3, "left", 0.6),
        Hand(points + 200, "left", 0.55),
    )
    assert distinct_hands([sure, same, other]) == [sure, other]
    assert distinct_hands([]) == []


@pytest.mark.landmarker
def test_odd_names(handclr: Handclr, tmp_path: Path, one_picture: Path) -> None:
    names = [
        'it\'s "new"\nline.png',
        "Hände 手.v2.png",
        "a/x/hand.png",
        "b/x/hand.png",
        "10:30.mp4",
    ]
    for name in names[:-1]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(one_picture, tmp_path / name)
    write_video(tmp_path / "plain.mp4", [draw_hand(seed=1)], 5).rename(tmp_path / names[-1])
    done = handclr("extract", *names, "./a/x/../x/hand.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    samples = unpack(done.stdout)
    assert [json.loads(members["json"])["video"] for members in samples.values()] == [
        *(f"{tmp_path.name}/{name}" for name in names[:2]),
        "a/x/hand.png",
        "b/x/hand.png",
        f"{tmp_path.name}/{names[-1]}",
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", key) for key in samples)


@pytest.mark.landmarker
def test_keypoints_of_the_frame_in_the_crop(
    drawn_crops: bytes, drawn_clip: Path, handclr: Handclr
) -> None:
    """And the shape, seen from where the crop sees it: mirrored where the crop is."""
    done = handclr("extract", "--every", "1", "--with-keypoints", drawn_clip)
    plain = unpack(drawn_crops)
    for key, members in unpack(done.stdout).items():
        keypoints = np.load(io.BytesIO(members.pop("keypoints2d.npy")), allow_pickle=False)
        world = np.load(io.BytesIO(members.pop("world3d.npy")), allow_pickle=False)
        assert world.dtype == np.float32 and (world[0] == 0).all()
        flat = keypoints - keypoints[0]
        scale = np.linalg.norm(world[9, :2]) / np.linalg.norm(flat[9])
        apart = np.linalg.norm(world[:, :2] - scale * flat, axis=1).mean()
        assert apart < 0.3 * np.linalg.norm(world[9]) and 0.05 < np.linalg.norm(world[9]) < 0.15
        assert (
            members == plain[key] and keypoints.dtype == np.float32 and keypoints.shape == (21, 2)
        )
        info = json.loads(members["json"])
        joints = to_crop(
            drawn_pair(info["frame"])[1][info["hand"]], info["box"], 224, info["flipped"]
        )
        errors = np.linalg.norm(keypoints - joints, axis=1) / np.ptp(joints, axis=0).max()
        assert np.median(errors) < 0.035 and errors.max() < 0.12


@pytest.mark.slow
def test_boxes_of_another_detector(drawn_clip: Path, handclr: Handclr, tmp_path: Path) -> None:
    rows = [
        "clip,0,100,100,220,260,left,0.9",
        "clip,2,300,90,400,300,1,0.8",
        "clip,2,700,90,800,300,right,1",
    ]
    (tmp_path / "boxes.csv").write_text(
        "\n".join(["video,frame,x0,y0,x1,y1,hand,score", *rows, ""])
    )
    command = ("extract", "--detections", "boxes.csv", "--margin", "1.2", drawn_clip)
    done = handclr(*command, cwd=tmp_path)
    assert done.returncode == 3 and b"frame 2: box outside the frame; skipped" in done.stderr
    infos = [json.loads(members["json"]) for members in unpack(done.stdout).values()]
    expected = [(0, "left", True, [64, 84, 256, 276]), (2, "right", False, [224, 69, 476, 321])]
    assert [
        (info["frame"], info["hand"], info["flipped"], info["box"]) for info in infos
    ] == expected
    pipe = handclr(
        "extract",
        "--detections",
        "-",
        "--margin",
        "1.2",
        drawn_clip,
        stdin=b"\n".join([b"video,frame,x0,y0,x1,y1,hand,score", *map(str.encode, rows)]),
    )
    assert unpack(pipe.stdout) == unpack(done.stdout)
    assert handclr(*command, "--with-keypoints", cwd=tmp_path).returncode == 2


# Bad footage


@pytest.fixture(scope="module")
def bad_footage(tmp_path_factory: pytest.TempPathFactory, drawn_clip: Path) -> list[Path]:
    folder = tmp_path_factory.mktemp("bad")
    contents = {
        "text.mp4": b"no video\n" * 50,
        "empty.mp4": b"",
        "cut.mp4": drawn_clip.read_bytes()[:5000],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


@pytest.mark.landmarker
def test_bad_footage_is_skipped(
    handclr: Handclr, bad_footage: list[Path], one_picture: Path
) -> None:
    done = handclr("extract", *bad_footage, one_picture)
    assert done.returncode == 3 and len(unpack(done.stdout)) == 1
    reasons = ["cannot be opened as a video", "empty file", "cannot be opened as a video"]
    assert lines(done.stderr) == [
        *(
            f"handclr: warning: {path}: {reason}; skipped"
            for path, reason in zip(bad_footage, reasons, strict=True)
        ),
        (
            "extract: 1 frame of 1 video, 1 crop (0 left, 1 right), 0 frames without a hand, 3"
            " inputs skipped"
        ),
    ]


@pytest.mark.landmarker
def test_nothing_but_bad_footage(handclr: Handclr, bad_footage: list[Path], tmp_path: Path) -> None:
    done = handclr("extract", *bad_footage, "-o", tmp_path / "out.tar")
    assert done.returncode == 1 and os.listdir(tmp_path) == []
    assert [line.split(":")[1] for line in lines(done.stderr)] == [" warning"] * 3 + [" error"]


@pytest.mark.landmarker
def test_strict(
    handclr: Handclr, bad_footage: list[Path], one_picture: Path, tmp_path: Path
) -> None:
    done = handclr("extract", "--strict", one_picture, bad_footage[0], "-o", tmp_path / "out.tar")
    assert done.returncode == 1 and os.listdir(tmp_path) == []
    assert lines(done.stderr) == [f"handclr: error: {bad_footage[0]}: cannot be opened as a video"]


@pytest.mark.slow
def test_missing_footage(handclr: Handclr, tmp_path: Path) -> None:
    done = handclr("extract", "missing.mp4", "-o", "out.tar", cwd=tmp_path)
    assert (done.returncode, lines(done.stderr)) == (
        2,
        ["handclr: error: missing.mp4: no such file or folder"],
    )
    assert os.listdir(tmp_path) == []
    none = handclr("extract", cwd=tmp_path)
    assert none.returncode == 2 and none.stdout == b"" and len(lines(none.stderr)) == 1


# Ends before its end


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frame = draw_hand((240, 320), (160, 125), 9)
    return write_video(tmp_path_factory.mktemp("long") / "long.avi", [frame] * 800, 25, "MJPG")


@pytest.mark.landmarker
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed(long_clip: Path, tmp_path: Path, kill: signal.Signals) -> None:
    process = started("extract", "--every", "1", long_clip, "-o", "out.tar", cwd=tmp_path)
    wait_for(tmp_path, process)
    process.send_signal(kill)
    code = process.wait(timeout=30)
    left = os.listdir(tmp_path)
    assert "out.tar" not in left
    if kill is signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert left == [] and code == {signal.SIGTERM: 143, signal.SIGINT: 130}[kill]


@pytest.mark.landmarker
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_closed_pipe(long_clip: Path) -> None:
    script = (
        '"$1" -m handclr_cli extract --every 1 "$2" | head -c 1 | wc -c; echo "${PIPESTATUS[0]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script, "-", sys.executable, long_clip], capture_output=True, timeout=60
    )
    assert (done.stdout.split(), done.stderr) == ([b"1", b"141"], b"")


@pytest.mark.landmarker
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk(handclr: Handclr, one_picture: Path) -> None:
    with open("/dev/full", "wb") as full:
        command = [
            sys.executable,
            "-m",
            "handclr_cli",
            "extract",
            "--size",
            "512",
            str(one_picture),
        ]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 1
    assert lines(done.stderr) == [
        "handclr: error: cannot write standard output: No space left on device"
    ]


# Real footage


def unexpected(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    """What was said beside the summary, which is last, and the progress of a slow machine."""
    return [
        line for line in lines(done.stderr)[:-1] if not re.match(r"\w+: \d+ \w+ of \d+, ", line)
    ]


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.landmarker
def test_real_videos(handclr: Handclr, real_data: Path) -> None:
    """Twelve clips of one hand, 640x480, 10 fps."""
    crops = handclr("extract", "--fps", "2", real_data / "videos" / "ti1k", timeout=300)
    assert crops.returncode == 0 and not unexpected(crops), crops.stderr
    hands = handclr("keypoints", stdin=crops.stdout, timeout=300)
    assert hands.returncode == 0 and not unexpected(hands), hands.stderr
    samples = unpack(hands.stdout)
    assert len(samples) >= 80
    assert len({json.loads(members["json"])["video"] for members in samples.values()}) == 12
    assert all(
        set(members) == {"jpg", "json", "keypoints2d.npy", "world3d.npy"}
        for members in samples.values()
    )
