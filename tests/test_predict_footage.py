"""predict on footage: the same hands as by extract, tables, films, pages, and what goes wrong."""

from __future__ import annotations

import io
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas
import pytest
import torch
from conftest import Handclr, drawn_pair
from drawn_hand import write_video
from filter_contract import read_terminal
from shard_helpers import error_line, load_npz

from handclr_cli.contract.npz import read_npz
from handclr_cli.hand.joints import FINGERS
from handclr_cli.learning.encoder import Encoder
from handclr_cli.learning.pose import PoseNet
from handclr_cli.learning.posemodel import MeanPose, save_payload

pytestmark = [pytest.mark.landmarker, pytest.mark.slow]


def predicted(handclr: Handclr, *words: str | Path, code: int = 0) -> list[str]:
    """Run predict in this process; gives what it said, line by line."""
    done = handclr("predict", *words, "--workers", "0")
    assert done.returncode == code, done.stderr.decode()
    return done.stderr.decode().splitlines()


def test_footage_gives_the_hands_that_extract_gives(
    handclr: Handclr, drawn_clip: Path, tmp_path: Path
) -> None:
    landmarks = ("--model", "mediapipe")
    said = predicted(handclr, drawn_clip, *landmarks, "-o", tmp_path / "direct.npz")
    assert said[0].startswith(
        "predict: 4 frames of 1 video, 8 hands (4 left, 4 right) in 2 tracks, 0 skipped; "
    )
    assert " frames a second in 1 process" in said[0]
    assert said[1].startswith(
        "predict: predicted by: MediaPipe's hand landmarker; "
        "camera: assumed across the source (60 degrees); size: reference bone "
    )
    shard = tmp_path / "crops.tar"
    handclr("extract", "--every", "1", "--with-keypoints", drawn_clip, "-o", shard)
    predicted(handclr, shard, *landmarks, "-o", tmp_path / "piped.npz")
    direct, meta = read_npz(str(tmp_path / "direct.npz"), "predictions")
    piped, _ = read_npz(str(tmp_path / "piped.npz"), "predictions")
    for name, array in direct.items():
        np.testing.assert_array_equal(array, piped[name], err_msg=name)
    assert meta is not None and meta["predicted_by"] == "MediaPipe's hand landmarker"
    assert meta["arguments"]["every"] == 1 and "hand_detector.tflite" in meta["model"]
    for row, frame in enumerate(direct["frame"].tolist()):
        side = direct["hand"][row].decode()
        assert direct["track"][row] == (1 if direct["track"][0] == direct["track"][row] else 2)
        off = direct["source2d"][row] - drawn_pair(frame)[1][side]
        assert np.abs(off).mean() < 12
        # A left hand is left in space too: its thumb is on the other side.
        thumb = direct["source3d"][row, 2, 0] - direct["source3d"][row, 17, 0]
        assert (thumb < 0) == (side == "right")


def test_a_model_sees_the_crops_that_extract_cuts(
    handclr: Handclr, drawn_clip: Path, drawn_crops: bytes, tmp_path: Path
) -> None:
    mean = MeanPose(np.zeros((21, 3), np.float32), 0.09)
    torch.manual_seed(0)
    network = PoseNet(Encoder("resnet18"), head="regress")
    torch.save(save_payload(network, 32, mean), tmp_path / "model.pt")
    (tmp_path / "crops.tar").write_bytes(drawn_crops)
    model = ("--model", tmp_path / "model.pt", "--device", "cpu")
    for name, source in (("direct.npz", drawn_clip), ("piped.npz", tmp_path / "crops.tar")):
        said = predicted(handclr, source, *model, "-o", tmp_path / name)
        assert "predicted by: model.pt; camera: assumed across the source" in "".join(said)
    direct, meta = read_npz(str(tmp_path / "direct.npz"), "predictions")
    piped, _ = read_npz(str(tmp_path / "piped.npz"), "predictions")
    for name in ("key", "track", "keypoints2d", "source2d"):
        np.testing.assert_array_equal(direct[name], piped[name], err_msg=name)
    assert meta is not None and {"model.pt", "hand_detector.tflite"} < set(meta["model"])


def test_one_command_makes_a_table_a_film_and_a_page(
    handclr: Handclr, drawn_clip: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    paths = {suffix: out / f"hands.{suffix}" for suffix in ("csv", "mp4", "html")}
    words = ["--overlay", paths["mp4"], "--page", paths["html"], "--smooth"]
    for _ in range(2):  # it may replace what it made
        said = predicted(handclr, drawn_clip, "-o", paths["csv"], *words)
    assert said[-1] == f"predict: {paths['mp4']} and {paths['html']}, 4 frames, 8 hands"
    names = sorted(path.name for path in out.iterdir())
    assert names == ["hands.csv", "hands.csv.json", "hands.html", "hands.mp4"]
    table = pandas.read_csv(paths["csv"])
    assert table["hand"].value_counts().to_dict() == {"left": 4, "right": 4}
    assert table["time_s"].tolist() == pytest.approx([0, 0, 0.5, 0.5, 1, 1, 1.5, 1.5])
    beside = json.loads((out / "hands.csv.json").read_text())
    assert beside["arguments"]["smooth"] is True and list(beside["cameras"]) == [
        f"{drawn_clip.parent.name}/clip.mp4"
    ]


def test_the_bytes_do_not_depend_on_the_processes(
    handclr: Handclr, drawn_clip: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second.mp4"
    shutil.copy(drawn_clip, second)
    outputs = []
    for workers in ("0", "2"):
        words = ("--format", "jsonl", "--workers", workers)
        done = handclr("predict", drawn_clip, second, *words)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1] and len(outputs[0].splitlines()) == 16
    videos = [json.loads(line)["video"] for line in outputs[0].splitlines()]
    assert [video.rpartition("/")[2] for video in videos] == ["clip.mp4"] * 8 + ["second.mp4"] * 8


@pytest.mark.parametrize("model", ["handclr", "mediapipe"])
def test_frames_can_be_left_out_and_hands_be_given_a_size(
    model: str, handclr: Handclr, drawn_clip: Path, tmp_path: Path
) -> None:
    words = ("--model", model, "--every", "2", "--bone", "90")
    predicted(handclr, drawn_clip, *words, "-o", tmp_path / "a.npz")
    arrays = load_npz(tmp_path / "a.npz")
    assert arrays["frame"].tolist() == [0, 0, 2, 2]
    bones = np.linalg.norm(arrays["source3d"][:, 9] - arrays["source3d"][:, 0], axis=1)
    for track in (1, 2):
        assert np.median(bones[arrays["track"] == track]) == pytest.approx(0.09, abs=1e-4)
    said = predicted(handclr, drawn_clip, "--fps", "1", "-o", tmp_path / "b.npz")
    assert said[0].startswith("predict: 2 frames")


def test_what_cannot_be_used_is_named_and_the_rest_goes_on(
    handclr: Handclr, drawn_clip: Path, tmp_path: Path
) -> None:
    """A folder of a film, one that is none, one without hands, images, text, and a film of ours."""
    folder = tmp_path / "mixed"
    (folder / "stills").mkdir(parents=True)
    shutil.copy(drawn_clip, folder / "a.mp4")
    (folder / "broken.mp4").write_bytes(b"film")
    write_video(folder / "empty.mp4", [np.full((240, 320, 3), 90, np.uint8)] * 3, 2)
    (folder / "notes.txt").write_text("a")
    cv2.imwrite(str(folder / "stills" / "0.png"), drawn_pair(1)[0][:, :, ::-1])
    table, films = tmp_path / "poses.csv", tmp_path / "films"
    said = predicted(handclr, folder, "-o", table, "--overlay", films, code=3)
    assert sum("broken.mp4" in line for line in said) == 1
    assert any("8 frames of 3 videos, 10 hands" in line and "1 skipped" in line for line in said)
    assert sorted(path.name for path in films.iterdir()) == ["0.mp4", "a.mp4", "empty.mp4"]
    rows = pandas.read_csv(table)
    assert rows["time_s"].isna().sum() == 2 and len(rows) == 10
    strict = handclr("predict", folder, "--workers", "0", "--strict", "-o", tmp_path / "s.csv")
    assert "broken.mp4" in error_line(strict, 1) and not (tmp_path / "s.csv").exists()


def test_no_hands_are_an_empty_table_and_nothing_readable_an_error(
    handclr: Handclr, tmp_path: Path
) -> None:
    empty = write_video(tmp_path / "empty.mp4", [np.full((240, 320, 3), 90, np.uint8)] * 3, 2)
    words = ["--overlay", tmp_path / "o.mp4", "--page", tmp_path / "p.html"]
    said = predicted(handclr, empty, "-o", tmp_path / "a.csv", *words)
    assert (
        "handclr: warning: no hand was found; the output holds no hands; where there are hands, try"
        " --min-score 0.3"
    ) in said
    assert pandas.read_csv(tmp_path / "a.csv").empty and (tmp_path / "p.html").exists()
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"film")
    before = sorted(tmp_path.iterdir())
    done = handclr("predict", broken, "--workers", "0", "-o", tmp_path / "b.csv", *words)
    assert done.returncode == 1 and sorted(tmp_path.iterdir()) == before
    assert done.stderr.decode().splitlines()[-1] == (
        "handclr: error: none of the footage can be read; nothing was written; convert videos that "
        "other programs can play to MP4"
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--model", "gone.pt"], "cannot read gone.pt: No such file"),
        (["gone.mp4"], "gone.mp4: no such file or folder"),
        (["clip.mp4", "--overlay", "clip.mp4"], "clip.mp4"),
        (["clip.mp4", "--overlay", "out.avi"], "--overlay out.avi: name a file .mp4, or a folder"),
        (["clip.mp4", "--page", "no/such/p.html"], "cannot write no/such/p.html: no such folder"),
        (["clip.mp4", "-o", "poses.txt"], "poses.txt: tables are .csv, .jsonl, .npz"),
        (["clip.mp4", "-o", "notes.csv"], "exists and is not a"),
        (["clip.mp4", "--onnx", "m.onnx"], "--onnx m.onnx: a model.pt is exported"),
        (["clip.mp4", "--footage", "."], "name one of these"),
        (["clip.mp4", "--footage", ".", "--overlay", "a.mp4"], "films of footage show that itself"),
        (["clip.mp4", "--every", "2", "--fps", "3"], "leave out one of the two"),
        (["clip.mp4", "--landmarker", "none.task"], "no landmarker at none.task"),
        (["crops.tar", "--look", "once"], "--look once: is for footage"),
    ],
)
def test_what_cannot_be_had_is_said_before_a_frame_is_read(
    handclr: Handclr,
    drawn_clip: Path,
    drawn_crops: bytes,
    words: list[str],
    line: str,
    tmp_path: Path,
) -> None:
    (tmp_path / "clip.mp4").symlink_to(drawn_clip)
    (tmp_path / "crops.tar").write_bytes(drawn_crops)
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    before = sorted(tmp_path.iterdir())
    inputs = [] if words[0].endswith((".mp4", ".tar")) else ["clip.mp4"]
    named = [] if "-o" in words else ["-o", "x.npz"]
    done = handclr("predict", *inputs, *words, *named, "--workers", "0", cwd=tmp_path)
    assert done.returncode in (1, 2) and line in error_line(done, done.returncode)
    assert sorted(tmp_path.iterdir()) == before


def test_a_pipe_whose_footage_is_gone_still_gives_its_table(
    handclr: Handclr, drawn_crops: bytes, tmp_path: Path
) -> None:
    words = ("--overlay", "films", "-o", "poses.csv", "--workers", "0")
    done = handclr("predict", "-", *words, stdin=drawn_crops, cwd=tmp_path)
    assert done.returncode == 2
    assert "name it, or its folder, as the footage" in done.stderr.decode().splitlines()[-1]
    assert len(pandas.read_csv(tmp_path / "poses.csv")) == 8


def test_a_terminal_gets_text_or_is_told_what_to_name(drawn_clip: Path, tmp_path: Path) -> None:
    def at_terminal(*words: str | Path) -> tuple[int, str, str]:
        master, slave = pty.openpty()
        command = [sys.executable, "-m", "handclr_cli", "predict", drawn_clip, *words]
        with subprocess.Popen(
            [*map(str, command), "--workers", "0"],
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=subprocess.PIPE,
        ) as process:
            os.close(slave)
            shown = read_terminal(master).decode()
            errors = process.communicate(timeout=120)[1].decode()
        return process.returncode, shown, errors

    code, shown, errors = at_terminal()
    assert (code, shown) == (2, "") and "such as -o poses.csv, --overlay hands.mp4" in errors
    code, shown, errors = at_terminal("--format", "csv")
    assert code == 0 and len(pandas.read_csv(io.StringIO(shown))) == 8
    code, shown, errors = at_terminal("--overlay", tmp_path / "hands.mp4")
    assert (code, shown) == (0, "") and (tmp_path / "hands.mp4").exists()


def test_a_killed_run_leaves_nothing(tmp_path: Path) -> None:
    film = write_video(tmp_path / "clip.mp4", [drawn_pair(0)[0]] * 400, 10)
    out = tmp_path / "out"
    out.mkdir()
    words = ["-o", out / "a.csv", "--overlay", out / "a.mp4", "--page", out / "a.html"]
    command = [sys.executable, "-m", "handclr_cli", "predict", film, *words, "--workers", "1"]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE) as process:
        time.sleep(4.0)
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 143 and "Traceback" not in errors
    assert not list(out.iterdir())


@pytest.mark.real
def test_the_3d_of_real_footage_falls_on_its_2d(
    handclr: Handclr, real_data: Path, tmp_path: Path
) -> None:
    video = real_data / "videos" / "ti1k" / "rotation_1.mp4"
    said = predicted(handclr, video, "-o", tmp_path / "a.csv")
    assert any("in 1 track," in line for line in said)
    table = pandas.read_csv(tmp_path / "a.csv")
    assert len(table) >= 45 and (table["hand"] == "left").all()
    off = []
    for finger in FINGERS:
        x, y, z = (table[f"{finger}_tip_{axis}"] for axis in "xyz")
        u = table["camera_fx"] * x / z + table["camera_cx"]
        v = table["camera_fy"] * y / z + table["camera_cy"]
        off.append(np.hypot(u - table[f"{finger}_tip_u"], v - table[f"{finger}_tip_v"]))
    assert 0.05 < table["wrist_z"].median() < 0.6 and np.median(np.mean(off, axis=0)) < 25
