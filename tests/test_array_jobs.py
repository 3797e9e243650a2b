"""extract and keypoints in numbered shards: parts, several processes, kills and reruns give the
bytes of one run.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Handclr, lines, pack, unpack
from drawn_hand import draw_hand, write_video

pytestmark = pytest.mark.landmarker

CROPS, HANDS = "crops-%06d.tar", "hands-%06d.tar"
EXTRACT = ("extract", "--every", "1", "--shard-size", "4", "films")
COUNTS = {"frames": 4, "left": 4, "right": 4, "no hand": 0, "shards": 3, "videos": 1}


@pytest.fixture(scope="module")
def whole(drawn_clip: Path, handclr: Handclr, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three films, and the shards of crops and of hands that one process makes of them."""
    folder = tmp_path_factory.mktemp("whole")
    for name in "abc":
        (folder / "films" / name).mkdir(parents=True)
        shutil.copy(drawn_clip, folder / "films" / name)
    (folder / "crops").mkdir()
    (folder / "hands").mkdir()
    assert handclr(*EXTRACT, "-o", f"crops/{CROPS}", cwd=folder).returncode == 0
    assert handclr("keypoints", "crops", "-o", f"hands/{HANDS}", cwd=folder).returncode == 0
    return folder


@pytest.fixture
def work(whole: Path, tmp_path: Path) -> Path:
    """A folder with the same films and nothing else."""
    (tmp_path / "films").symlink_to(whole / "films")
    for name in ("crops", "hands"):
        (tmp_path / name).mkdir()
    return tmp_path


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def metadata(shard: bytes, name: str) -> dict[str, int]:
    start = shard.rindex(name.encode() + b"\0")
    size = int(shard[start + 124 : start + 135], 8)
    return json.loads(shard[start + 512 : start + 512 + size])


def test_a_shard_is_made_of_whole_pieces_and_says_what_became_of_them(
    whole: Path, drawn_crops: bytes
) -> None:
    crops, hands = shards(whole / "crops"), shards(whole / "hands")
    assert list(crops) == [CROPS % number for number in range(3)] and list(hands) == [
        HANDS % n for n in range(3)
    ]
    images = [members["jpg"] for members in unpack(drawn_crops).values()]
    for name, shard in crops.items():
        assert [members["jpg"] for members in unpack(shard).values()] == images
        assert metadata(shard, "__counts__") == COUNTS
        number = json.loads(shard[512:].split(b"\0", 1)[0])["unit"]["number"]
        assert name == CROPS % number
    for shard in hands.values():
        assert all("keypoints2d.npy" in members for members in unpack(shard).values())
        assert metadata(shard, "__counts__") == {**COUNTS, "no keypoints": 0}


def test_parts_make_the_whole_and_a_rerun_makes_what_is_missing(
    whole: Path, work: Path, handclr: Handclr
) -> None:
    for part in ("1/2", "0/2"):
        assert handclr(*EXTRACT, "-o", f"crops/{CROPS}", "--part", part, cwd=work).returncode == 0
        assert handclr("keypoints", "crops", "-o", f"hands/{HANDS}", cwd=work).returncode == 0
    assert shards(work / "crops") == shards(whole / "crops") and shards(work / "hands") == shards(
        whole / "hands"
    )

    (work / "crops" / (CROPS % 1)).unlink()
    missing = handclr(*EXTRACT, "-o", f"crops/{CROPS}", "--dry-run", cwd=work)
    assert missing.stdout.decode().split() == [f"crops/{CROPS % 1}"] and missing.returncode == 0
    again = handclr(*EXTRACT, "-o", f"crops/{CROPS}", "--workers", "1", cwd=work)
    assert (
        lines(again.stderr)[-1].endswith("2 of 3 shards there already")
        and b"24 crops" in again.stderr
    )
    assert shards(work / "crops") == shards(whole / "crops")
    done = handclr(*EXTRACT, "-o", f"crops/{CROPS}", cwd=work)
    assert done.returncode == 0 and lines(done.stderr)[-1].endswith("3 of 3 shards there already")


def test_other_arguments_or_footage_are_an_error_that_names_them(
    whole: Path, work: Path, handclr: Handclr
) -> None:
    shutil.copytree(whole / "crops", work / "crops", dirs_exist_ok=True)
    other = handclr(*EXTRACT, "--size", "96", "-o", f"crops/{CROPS}", cwd=work)
    assert (
        other.returncode == 2
        and b"made with size 224" in other.stderr
        and b"overwrite them" in other.stderr
    )
    other = handclr(*EXTRACT, "films/b", "-o", f"crops/{CROPS}", cwd=work)
    assert other.returncode == 2 and b'made with inputs ["films"]' in other.stderr
    assert shards(work / "crops") == shards(whole / "crops")
    fewer = handclr(*EXTRACT, "--shard-size", "8", "-o", f"crops/{CROPS}", "--overwrite", cwd=work)
    assert fewer.returncode == 0 and len(shards(work / "crops")) == 2


def test_hands_of_crops_that_were_made_anew_are_not_taken_for_done(
    whole: Path, work: Path, handclr: Handclr
) -> None:
    shutil.copytree(whole / "hands", work / "hands", dirs_exist_ok=True)
    assert handclr(*EXTRACT, "--size", "96", "-o", f"crops/{CROPS}", cwd=work).returncode == 0
    stale = handclr("keypoints", "crops", "-o", f"hands/{HANDS}", cwd=work)
    assert stale.returncode == 2 and b"hands-000000.tar: made with unit" in stale.stderr


def test_a_pipe_of_an_array_task(whole: Path, work: Path, handclr: Handclr) -> None:
    def task(part: str) -> subprocess.CompletedProcess[bytes]:
        ours = (*EXTRACT, "--part", part, "--skip-done", f"hands/{HANDS}")
        crops = handclr(*ours, cwd=work)
        assert crops.returncode == 0, crops.stderr
        return handclr("keypoints", "-o", f"hands/{HANDS}", stdin=crops.stdout, cwd=work)

    assert [task(part).returncode for part in ("0/2", "1/2")] == [0, 0]
    made = shards(work / "hands")
    assert {name: unpack(shard) for name, shard in made.items()} == {
        name: unpack(shard) for name, shard in shards(whole / "hands").items()
    }
    (work / "hands" / (HANDS % 2)).unlink()
    done = task("0/1")
    assert b"8 crops in, 8 out" in done.stderr and shards(work / "hands") == made
    nothing = handclr(
        *EXTRACT, "--part", "0/1", "--skip-done", f"hands/{HANDS}", "--dry-run", cwd=work
    )
    assert nothing.stdout == b"" and b"0 of 3 shards missing" in nothing.stderr
    # A part in which nothing is missing, and one that has no units, end well too.
    assert (
        task("0/1").returncode == 0
        and task("8/9").returncode == 0
        and shards(work / "hands") == made
    )
    other = handclr(
        *EXTRACT, "--size", "96", "--part", "0/1", "--skip-done", f"hands/{HANDS}", cwd=work
    )
    assert other.returncode == 2 and b"made with size 224" in other.stderr


def test_crops_without_keypoints_are_not_footage_that_was_skipped(
    whole: Path, work: Path, handclr: Handclr
) -> None:
    unsure = ("keypoints", "--min-score", "1", str(whole / "crops"), "-o", f"hands/{HANDS}")
    assert b"24 without a hand" in handclr(*unsure, cwd=work).stderr
    done = handclr(*EXTRACT, "--part", "0/1", "--skip-done", f"hands/{HANDS}", cwd=work)
    assert done.returncode == 0 and b"0 inputs skipped; 3 of 3 shards there already" in done.stderr


def test_crops_are_not_replaced_by_what_is_made_of_them(
    whole: Path, work: Path, handclr: Handclr
) -> None:
    shutil.copytree(whole / "crops", work / "crops", dirs_exist_ok=True)
    same = handclr("keypoints", "crops", "-o", f"crops/{CROPS}", "--overwrite", cwd=work)
    assert same.returncode == 2 and b"is an input of this command" in same.stderr
    assert shards(work / "crops") == shards(whole / "crops")


@pytest.mark.parametrize(
    "damage",
    [
        lambda shard: shard[:-2000],
        lambda shard: shard[: 40 * 512] + b"\x07" * 100 * 512 + shard[140 * 512 :],
    ],
    ids=["cut off", "overwritten"],
)
def test_a_damaged_shard_costs_the_others_nothing(
    damage: Callable[[bytes], bytes], whole: Path, work: Path, handclr: Handclr
) -> None:
    shutil.copytree(whole / "crops", work / "crops", dirs_exist_ok=True)
    cut = work / "crops" / (CROPS % 1)
    cut.write_bytes(damage(cut.read_bytes()))
    done = handclr("keypoints", "crops", "-o", f"hands/{HANDS}", cwd=work)
    assert done.returncode == 3 and b"crops-000001.tar" in done.stderr
    assert b"hands/hands-000001.tar is not made" in done.stderr
    expected = shards(whole / "hands")
    del expected[HANDS % 1]
    assert shards(work / "hands") == expected
    assert (
        handclr("keypoints", "crops", "-o", f"hands/{HANDS}", "--strict", cwd=work).returncode == 1
    )
    cut.write_bytes(b"")
    nothing = handclr("keypoints", "crops", "-o", f"hands/{HANDS}", cwd=work)
    assert nothing.returncode == 3 and b"crops-000001.tar: is empty" in nothing.stderr


def test_two_sets_of_shards_are_not_made_one(whole: Path, work: Path, handclr: Handclr) -> None:
    shutil.copytree(whole / "crops", work / "crops", dirs_exist_ok=True)
    (work / "others").mkdir()
    assert handclr(*EXTRACT, "--size", "96", "-o", f"others/{CROPS}", cwd=work).returncode == 0
    stream = b"".join([*shards(work / "crops").values(), *shards(work / "others").values()])
    both = handclr("keypoints", "-o", f"hands/{HANDS}", "--overwrite", stdin=stream, cwd=work)
    assert both.returncode == 1 and b"two archives of the input are unit 0" in both.stderr


def test_a_crop_that_cannot_be_read_is_said_again(
    whole: Path, work: Path, handclr: Handclr
) -> None:
    samples = unpack((whole / "crops" / (CROPS % 0)).read_bytes())
    next(iter(samples.values()))["jpg"] = b"no picture"
    (work / "crops" / (CROPS % 0)).write_bytes(pack(samples))
    for words in (b"8 crops in, 7 out", b"1 shard there already"):
        done = handclr("keypoints", "crops", "-o", f"hands/{HANDS}", cwd=work)
        assert done.returncode == 3 and words in done.stderr and b"1 skipped" in done.stderr


def test_what_was_skipped_is_kept_with_the_shard_and_said_again(
    whole: Path, tmp_path: Path, handclr: Handclr
) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "a.mp4").write_bytes(b"no film\n" * 50)
    shutil.copy(whole / "films" / "a" / "clip.mp4", tmp_path / "films" / "b.mp4")
    for _ in range(2):
        done = handclr(*EXTRACT, "-o", CROPS, cwd=tmp_path)
        assert done.returncode == 3 and b"1 inputs skipped" in done.stderr
    (shard,) = (path.read_bytes() for path in tmp_path.glob("*.tar"))
    (line,) = metadata(shard, "__skipped__")
    assert line.startswith("films/a.mp4: ")


def test_an_image_that_was_skipped_is_named_in_the_shard(tmp_path: Path, handclr: Handclr) -> None:
    (tmp_path / "a" / "films").mkdir(parents=True)
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / "a" / "films" / name).write_bytes(b"no picture")
    assert handclr("extract", "a/films", "a/films/2.jpg", "-o", CROPS, cwd=tmp_path).returncode == 3
    lines_of = metadata((tmp_path / (CROPS % 0)).read_bytes(), "__skipped__")
    reason = "cannot be decoded as an image"
    assert lines_of == [
        f"a/films/1.jpg: {reason}",
        f"a/films/2.jpg: {reason}",
        f"films/2.jpg: {reason}",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--part", "0/2", "-o", "one.tar"),
        ("--skip-done", HANDS, "-o", CROPS),
        ("--skip-done", HANDS, "-o", "one.tar"),
        ("--dry-run",),
        ("--dry-run", "--part", "0/2"),
        ("--part", "2/2", "-o", CROPS),
        ("--part", "x", "-o", CROPS),
        ("--fps", "2", "-o", "one.tar"),
        ("--detections", "boxes.csv", "-o", "one.tar"),
    ],
)
def test_usage(arguments: tuple[str, ...], work: Path, handclr: Handclr) -> None:
    wrong = handclr(*EXTRACT, *arguments, cwd=work)
    assert wrong.returncode == 2 and len(lines(wrong.stderr)) == 1 and wrong.stdout == b""


def test_shards_are_not_made_of_boxes_that_no_rerun_can_compare(
    work: Path, handclr: Handclr
) -> None:
    wrong = handclr("extract", "films", "--detections", "-", "-o", CROPS, cwd=work)
    assert wrong.returncode == 2 and b"write the boxes to a file" in wrong.stderr
    wrong = handclr(
        "extract", "films", "--detections", "boxes.csv", "--fps", "2", "-o", "one.tar", cwd=work
    )
    assert wrong.returncode == 2 and b"--fps 2: the detections say which frames" in wrong.stderr


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["2", "3"])
def test_the_bytes_do_not_depend_on_the_number_of_processes(
    workers: str, whole: Path, work: Path, handclr: Handclr
) -> None:
    assert handclr(*EXTRACT, "-o", f"crops/{CROPS}", "--workers", workers, cwd=work).returncode == 0
    assert shards(work / "crops") == shards(whole / "crops")
    assert (
        handclr(
            "keypoints", "crops", "-o", f"hands/{HANDS}", "--workers", workers, cwd=work
        ).returncode
        == 0
    )
    assert shards(work / "hands") == shards(whole / "hands")


@pytest.mark.slow
def test_one_process_finds_the_keypoints_of_every_crop(whole: Path, handclr: Handclr) -> None:
    done = handclr("keypoints", "crops", "--workers", "1", cwd=whole)
    assert b"24 crops in, 24 out" in done.stderr
    assert unpack(done.stdout) == unpack(
        handclr("keypoints", "crops", "--workers", "0", cwd=whole).stdout
    )


@pytest.mark.slow
def test_kills_and_reruns_end_with_the_bytes_of_an_undisturbed_run(tmp_path: Path) -> None:
    frames = [draw_hand(seed=seed) for seed in range(6)]
    (tmp_path / "films").mkdir()
    for number in range(6):
        write_video(tmp_path / "films" / f"{number}.mp4", frames[number:] + frames[:number], 5)
    for folder in ("whole", "killed"):
        (tmp_path / folder).mkdir()

    def start(folder: str) -> subprocess.Popen[bytes]:
        command = (
            "extract",
            "--every",
            "1",
            "--shard-size",
            "6",
            "--workers",
            "1",
            "films",
            "-o",
            f"{folder}/{CROPS}",
        )
        return subprocess.Popen(
            [sys.executable, "-m", "handclr_cli", *command], cwd=tmp_path, stderr=subprocess.DEVNULL
        )

    def kill_once_made(count: int, kill: signal.Signals) -> None:
        """By what there is, not by the clock: a machine that is busy finishes no later than it."""
        process = start("killed")
        deadline = time.monotonic() + 120
        while process.poll() is None and len(list((tmp_path / "killed").glob("crops-*"))) < count:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(kill)
        assert process.wait() != 0

    assert start("whole").wait() == 0
    for count, kill in enumerate([signal.SIGTERM, signal.SIGKILL] * 2, start=0):
        kill_once_made(count, kill)
    assert start("killed").wait() == 0
    made = {
        name: shard
        for name, shard in shards(tmp_path / "killed").items()
        if not name.startswith(".")
    }
    assert made == shards(tmp_path / "whole")
