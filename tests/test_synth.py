"""synth: truth that is true, the same bytes for the same seed, and footage that survives being
interrupted.
"""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import tarfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from filter_contract import read_terminal
from shard_helpers import CLI, cli_env, error_line, run_cli, write_shard

from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.provenance import provenance
from handclr_cli.contract.sample import Sample
from handclr_cli.contract.shards import read_samples
from handclr_cli.evaluation.labels import read_labels
from handclr_cli.hand.camera import project
from handclr_cli.hand.square import cut, square_box, to_source
from handclr_cli.synth.production import Crops, Portraits, Videos
from handclr_cli.synth.scenes import Scene
from handclr_cli.synth.worlds import WILD
from handclr_cli.work.crew import in_order

pytestmark = pytest.mark.slow

SIZE = (128, 96)
VIDEOS, FRAMES = 3, 3
FILM = [
    "--videos",
    VIDEOS,
    "--frames",
    FRAMES,
    "--width",
    SIZE[0],
    "--height",
    SIZE[1],
    "--size",
    64,
]
NAMES = [f"wild-0-{index:05d}" for index in range(VIDEOS)]


def made(*args: str | int | Path) -> subprocess.CompletedProcess[bytes]:
    done = run_cli("synth", *map(str, args))
    assert done.returncode == 0, done.stderr.decode()
    return done


def started(*args: str | int | Path) -> subprocess.Popen[bytes]:
    """In a session of its own, so that all it starts can be signalled; with Ctrl-C not ignored."""
    return subprocess.Popen(
        [*CLI, "synth", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=cli_env(),
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def ended(process: subprocess.Popen[bytes]) -> bytes:
    """What it said; every process that it started must have let go of its standard error too."""
    try:
        return process.communicate(timeout=60)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        pytest.fail("something that it started lives on")


def wait_for_a_file(folder: Path, process: subprocess.Popen[bytes], names: str = "*") -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if any(path.is_file() for path in folder.rglob(names)):
            return
        time.sleep(0.01)
    pytest.fail("nothing was ever written")


def files(folder: Path) -> dict[str, bytes]:
    """What has a final name."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lab") / "lab.tar"
    path.write_bytes(made("labelled", "--count", 16, "--size", 64, "--workers", 1).stdout)
    return path


@pytest.fixture(scope="module")
def wild(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wild") / "wild.tar"
    made(
        "labelled",
        "--world",
        "wild",
        "--seed",
        1,
        "--count",
        6,
        "--size",
        96,
        "--workers",
        1,
        "-o",
        path,
    )
    return path


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first") / "film"
    made("footage", folder, *FILM, "--workers", 1)
    return folder


def truth(film: Path) -> list[Sample]:
    return list(read_samples([str(film / "truth" / f"{name}.tar") for name in NAMES]))


# What is made


def test_labelled_samples_are_what_the_contract_says(lab: Path, wild: Path) -> None:
    for path, world, seed, count, size in ((lab, "lab", 0, 16, 64), (wild, "wild", 1, 6, 96)):
        samples = list(read_samples([str(path)]))
        assert len({sample.key for sample in samples}) == len(samples) == count
        for index, sample in enumerate(samples):
            info, side = sample.info, ("right", "left")[index % 2]
            assert sample.image.shape == (size, size, 3) and sample.image.std() > 5
            assert (
                info["hand"] == side
                and info["flipped"] is (side == "left")
                and sample.key.endswith(side[0])
            )
            person = index % 6 if world == "lab" else index
            assert info["subject"] == f"{world}-{seed}-{person}"
            assert info["video"] == sample.video == f"synth-{world}-{seed}-{person:05d}"
            assert (info["frame"], info["time_s"], info["score"], info["sample"]) == (
                index,
                None,
                1.0,
                sample.key,
            )
            x0, y0, x1, y1 = info["box"]
            assert x1 - x0 == y1 - y0 > 0


def test_people_of_other_worlds_and_seeds_are_others(tmp_path: Path) -> None:
    shards = []
    for world, seed in (("wild", 0), ("wild", 1), ("any", 0)):
        portraits = Portraits(world, seed, Crops(32))
        samples = [portraits.make(index) for index in range(2)]
        shards.append(str(write_shard(tmp_path / f"{world}-{seed}.tar", samples)))
    assert len(np.unique(read_labels(ShardIndex(shards), "subject").units)) == 6


def test_the_first_member_says_where_it_comes_from(lab: Path, film: Path) -> None:
    size = {"size": 64, "margin": 1.5, "quality": 95}
    records = {
        lab: ("synth labelled", {"count": 16, "world": "lab", **size}),
        film / "truth" / f"{NAMES[0]}.tar": (
            "synth footage",
            {
                "frames": FRAMES,
                "fps": 12.0,
                "world": "wild",
                "width": SIZE[0],
                "height": SIZE[1],
                **size,
            },
        ),
    }
    for path, (stage, arguments) in records.items():
        with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as archive:
            first = archive.next()
            assert first is not None and first.name == "__handclr__"
            record = json.load(archive.extractfile(first))  # type: ignore[arg-type]
        assert record["stage"] == stage and record["seed"] == 0 and record["arguments"] == arguments


def test_truth_is_truth(lab: Path, wild: Path, film: Path) -> None:
    sides = set()
    for sample in [*read_samples([str(lab), str(wild)]), *truth(film)]:
        intrinsics = np.load(io.BytesIO(sample.members["intrinsics.npy"]))
        points = sample.keypoints3d.astype(np.float64)
        projected = project(points, intrinsics.astype(np.float64))
        np.testing.assert_allclose(projected, sample.keypoints2d, atol=1e-3)
        # The crop is 1.5 times the longer side of the hand, around its middle; to the pixel of the
        # frame.
        step = len(sample.image) / (sample.info["box"][2] - sample.info["box"][0])
        low, high = sample.keypoints2d.min(axis=0), sample.keypoints2d.max(axis=0)
        np.testing.assert_allclose((low + high) / 2, len(sample.image) / 2, atol=0.51 * step)
        assert abs((high - low).max() * 1.5 - len(sample.image)) < 1.01 * step
        # A right hand, whatever it was: seen with its palm towards the camera or not, its axes have
        # one handedness.
        assert 0.06 < np.linalg.norm(points[9] - points[0]) < 0.13 and (points[:, 2] > 0.15).all()
        sides.add(sample.info["hand"])
    assert sides == {"left", "right"}


def test_mirrored_left_hands_are_right_hands(lab: Path, wild: Path, film: Path) -> None:
    """The thumb's base lies on the palm's side of the knuckles, which tells a right hand from its
    mirror image.
    """
    for sample in [*read_samples([str(lab), str(wild)]), *truth(film)]:
        points = sample.keypoints3d
        out_of_the_back = np.cross(points[17] - points[0], points[5] - points[0])
        assert out_of_the_back @ (points[1] - points[0]) < 0


def test_truth_lies_where_extract_would_cut(film: Path) -> None:
    for index, name in enumerate(NAMES):
        scene = Scene(WILD, 0, index, SIZE, frames=FRAMES, fps=12.0)
        capture = cv2.VideoCapture(str(film / f"{name}.mp4"))
        assert capture.get(cv2.CAP_PROP_FPS) == 12.0
        samples = list(read_samples([str(film / "truth" / f"{name}.tar")]))
        seen = 0
        for time_index in range(FRAMES):
            shot, (there, picture) = scene.shoot(time_index), capture.read()
            assert there and picture.shape == (SIZE[1], SIZE[0], 3)
            frame = picture[:, :, ::-1]
            # MPEG-4 at its usual quality.
            assert np.abs(frame.astype(int) - shot.image).mean() < 12
            for hand, sample in zip(shot.hands, samples[seen:], strict=False):
                seen += 1
                info = sample.info
                assert sample.key.endswith(f"_{time_index:08d}_{hand.side[0]}")
                assert info["source_size"] == list(SIZE) and info["hand"] == hand.side
                assert info["subject"] == f"wild-0-{index}"
                assert (info["frame"], info["time_s"]) == (time_index, round(time_index / 12, 4))
                pixels = project(hand.keypoints3d, shot.intrinsics)
                assert info["box"] == list(square_box(pixels, 1.5))
                back = to_source(sample.keypoints2d, info["box"], 64, info["flipped"])
                np.testing.assert_allclose(back, pixels, atol=0.01)
                crop = cut(
                    np.ascontiguousarray(shot.image), tuple(info["box"]), 64, info["flipped"]
                )
                assert np.abs(crop.astype(int) - sample.image).mean() < 6
        assert not capture.read()[0] and seen == len(samples)


def test_truth_leaves_out_hands_outside_the_frame(tmp_path: Path) -> None:
    size, crops, record = (1920, 64), Crops(32), provenance("synth footage", {}, seed=0)
    (tmp_path / "truth").mkdir()
    videos = Videos(tmp_path, "wild", 0, 1, 12.0, size, crops, record)
    for index, sides, seen in ((54, ["right", "left"], ["right"]), (142, ["right"], [])):
        hands = Scene(WILD, 0, index, size).shoot(0).hands
        assert [hand.side for hand in hands] == sides and videos.make(index) == len(seen)
        samples = read_samples([str(videos.truth(index))])
        assert [sample.info["hand"] for sample in samples] == seen
        assert videos.done(index)


def test_keys_are_those_of_extract(film: Path) -> None:
    from handclr_cli.contract.sample import sample_key, video_id
    from handclr_cli.footage.finding import find_footage

    names = {footage.name for footage in find_footage([str(film)])}
    assert names == {f"film/{name}.mp4" for name in NAMES}
    for sample in truth(film):
        assert sample.video in names
        assert sample.key == sample_key(
            video_id(sample.video), sample.info["frame"], sample.info["hand"]
        )


@pytest.mark.slow
@pytest.mark.landmarker
def test_what_extract_finds_is_in_the_truth(tmp_path: Path) -> None:
    folder = tmp_path / "studio"
    size = ["--width", 320, "--height", 240, "--size", 96]
    made("footage", folder, "--world", "lab", "--videos", 4, "--frames", 1, *size, "--workers", 1)
    known = {
        sample.key: sample.info
        for sample in read_samples(map(str, sorted((folder / "truth").glob("*.tar"))))
    }
    found = tmp_path / "found.tar"
    env = {"HANDCLR_CACHE": os.environ["HANDCLR_CACHE"]}
    assert run_cli("extract", "--every", "1", folder, "-o", found, env=env).returncode == 0
    right = 0
    for sample in read_samples([str(found)]):
        info = sample.info
        near = [key for key in known if key.rsplit("_", 1)[0] == sample.key.rsplit("_", 1)[0]]
        key = min(near, key=lambda key: np.abs(np.subtract(known[key]["box"], info["box"])).sum())
        if known[key]["hand"] == info["hand"]:
            right += 1
            assert sample.key == key
            apart = np.abs(np.subtract(known[key]["box"], info["box"])).mean()
            assert apart < 0.25 * (info["box"][2] - info["box"][0])
    assert right >= 2


# The same bytes


def test_a_sample_depends_on_nothing_but_seed_and_number(lab: Path) -> None:
    there = list(read_samples([str(lab)]))
    here, other = (Portraits("lab", seed, Crops(64)).make(5) for seed in (0, 1))
    assert here.key == there[5].key and here.members == there[5].members
    assert all(
        other.members[name] != here.members[name]
        for name in ("jpg", "keypoints2d.npy", "keypoints3d.npy")
    )


@pytest.mark.slow
def test_more_workers_make_the_same_bytes_quietly(lab: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "two.tar"
    output.parent.mkdir()
    done = made("labelled", "--count", 16, "--size", 64, "--workers", 2, "-q", "-o", output)
    assert (done.stdout, done.stderr) == (b"", b"")
    assert output.read_bytes() == lab.read_bytes() and list(output.parent.iterdir()) == [output]


@pytest.mark.slow
def test_answers_come_in_order_and_a_dead_worker_is_an_error() -> None:
    assert list(in_order(abs, range(-5, 0), 1)) == [5, 4, 3, 2, 1]
    answers = in_order(eval, ["1", "2", "3", "4", "__import__('os')._exit(1)", "6"], 2)
    with pytest.raises(HandclrError, match="a worker process ended"):
        assert [next(answers) for _ in range(4)] == [1, 2, 3, 4] and next(answers)


# The command line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["labelled", "--world", "mars"], "'--world': 'mars' is not one of 'lab', 'wild'"),
        (["labelled", "--layout", "freihand"], "--layout and DIR go together"),
        (["labelled", "folder"], "--layout and DIR go together"),
        (["labelled", "--layout", "bones", "folder"], "'bones' is not one of 'freihand'"),
        (["labelled", "--count", "0"], "--count"),
        *(
            (["labelled", "--layout", "freihand", "folder", *option], f"{' '.join(option)}: not")
            for option in (
                ("--first", "5"),
                ("--size", "224"),
                ("--margin", "3"),
                ("--quality", "10"),
                ("--workers", "2"),
                ("--shard-size", "3"),
                ("--overwrite",),
            )
        ),
        (
            ["footage", "folder", "--width", "65"],
            "--width 65: the video's format needs even sides",
        ),
        (["footage", "folder", "--height", "67"], "even sides"),
        (["footage"], "Missing argument 'DIR'"),
        (["footage", "folder", "--fps", "0"], "--fps"),
    ],
)
def test_bad_options(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = run_cli("synth", *arguments, cwd=tmp_path)
    assert words in error_line(done, 2)
    assert done.stdout == b"" and not list(tmp_path.iterdir())


def test_a_terminal_gets_no_binary_data() -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*CLI, "synth", "labelled"], stdout=slave, stderr=subprocess.PIPE, env=cli_env()
    )
    os.close(slave)
    shown: list[bytes] = []
    reader = threading.Thread(target=lambda: shown.append(read_terminal(master)))
    reader.start()
    _, errors = process.communicate(timeout=60)
    reader.join()
    done = subprocess.CompletedProcess([], process.returncode, b"", errors)
    assert "refusing to write binary data to the terminal; name a file" in error_line(done, 2)
    assert shown == [b""]


@pytest.mark.slow
def test_a_closed_pipe_ends_it_quietly_and_its_workers_too() -> None:
    command = " ".join([*CLI, "synth labelled --count 500 --size 64 --workers 2"])
    script = f'{command} | head -c 1000 > /dev/null; exit "${{PIPESTATUS[0]}}"'
    # Returns when nobody holds standard error any more.
    done = subprocess.run(["bash", "-c", script], capture_output=True, env=cli_env(), timeout=120)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.slow
def test_a_layout_can_be_imported(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    done = made("labelled", "--layout", "freihand", folder, "--count", 2, "--world", "wild")
    assert done.stdout == b"" and b"in freihand's layout" in done.stderr
    imported = tmp_path / "imported.tar"
    assert run_cli("import", "freihand", folder, "--size", "64", "-o", imported).returncode == 0
    samples = list(read_samples([str(imported)]))
    assert samples
    for sample in samples:
        intrinsics = np.load(io.BytesIO(sample.members["intrinsics.npy"])).astype(np.float64)
        projected = project(sample.keypoints3d.astype(np.float64), intrinsics)
        np.testing.assert_allclose(projected, sample.keypoints2d, atol=1e-3)


# Shards, again


SHARDED = ["--count", 13, "--size", 32, "--shard-size", 2, "--workers", 1]


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    made("labelled", *SHARDED, "-o", folder / "x-%03d.tar")
    return folder


def test_killed_shards_are_completed_to_the_same_bytes(sharded: Path, tmp_path: Path) -> None:
    assert len(files(sharded)) == 7
    line = ("labelled", *SHARDED, "-o", tmp_path / "x-%03d.tar")
    process = started(*line)
    wait_for_a_file(tmp_path, process, "x-*.tar")
    process.kill()
    ended(process)
    there = files(tmp_path)
    assert 0 < len(there) < 7 and there.items() <= files(sharded).items()
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in there}
    done = made(*line)
    assert f"{2 * len(there)} crops there already" in done.stderr.decode()
    assert all((tmp_path / name).stat().st_mtime_ns == then for name, then in before.items())
    assert files(tmp_path) == files(sharded) and len(list(tmp_path.iterdir())) == 7


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size", 33], "made with size 32"),
        (["--count", 14], "made with count 13"),
        (["--first", 2], "made with first (not set)"),
        (["--seed", 1], "made with seed 0"),
        (["--shard-size", 4], 'made with unit {"inputs": 13, "each": 2}'),
    ],
)
def test_shards_made_with_other_options_are_left_alone(
    options: list[str | int], words: str, sharded: Path
) -> None:
    before = files(sharded)
    line = ["labelled", *SHARDED, *options, "-o", sharded / "x-%03d.tar"]
    assert f"x-000.tar: {words}; remove" in error_line(run_cli("synth", *map(str, line)), 2)
    assert files(sharded) == before


def test_overwriting_removes_the_shards_of_the_larger_set(sharded: Path, tmp_path: Path) -> None:
    for name, data in files(sharded).items():
        (tmp_path / name).write_bytes(data)
    line = ["labelled", *SHARDED, "--count", 3, "--seed", 1, "-o", tmp_path / "x-%03d.tar"]
    made(*line, "--overwrite")
    assert sorted(files(tmp_path)) == ["x-000.tar", "x-001.tar"]
    keys = [sample.key for sample in read_samples(map(str, sorted(tmp_path.iterdir())))]
    assert keys == [Portraits("lab", 1, Crops(32)).make(index).key for index in range(3)]


# Footage, again


@pytest.mark.slow
def test_footage_goes_on_where_it_stopped(film: Path, tmp_path: Path) -> None:
    folder = tmp_path / "film"
    for name, data in files(film).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name != f"truth/{NAMES[1]}.tar":
            (folder / name).write_bytes(data)
    # The truth is written last: a video without it is made again.
    (folder / f"{NAMES[1]}.mp4").write_bytes(b"\0\0\0 ftyp, half of it")
    before = {
        path: path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and NAMES[1] not in path.name
    }
    done = made("footage", folder, *FILM, "--workers", 1)
    assert (
        b"synth footage: 1 video of 3 frames" in done.stderr
        and b"2 videos there already" in done.stderr
    )
    assert done.stdout == b"" and files(folder) == files(film)
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())


@pytest.mark.slow
def test_footage_made_with_other_arguments_is_left_alone(film: Path) -> None:
    before = files(film)
    done = run_cli("synth", "footage", str(film), *map(str, FILM), "--margin", "2", "--videos", "5")
    assert f"{NAMES[0]}.mp4: made with margin 1.5; remove the folder or name another" in error_line(
        done, 2
    )
    assert files(film) == before


@pytest.mark.slow
def test_the_truth_gets_its_name_after_the_video(film: Path) -> None:
    for name in NAMES:
        truth, video = film / "truth" / f"{name}.tar", film / f"{name}.mp4"
        assert video.stat().st_ctime_ns <= truth.stat().st_ctime_ns


@pytest.mark.slow
def test_a_damaged_truth_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "truth").mkdir()
    (tmp_path / f"{NAMES[0]}.mp4").write_bytes(b"video")
    (tmp_path / "truth" / f"{NAMES[0]}.tar").touch()
    done = run_cli("synth", "footage", str(tmp_path), *map(str, FILM))
    assert f"truth/{NAMES[0]}.tar: damaged; remove it, and its video is filmed again" in error_line(
        done, 1
    )


@pytest.mark.slow
def test_killed_footage_is_completed_to_the_same_bytes(film: Path, tmp_path: Path) -> None:
    folder = tmp_path / "film"
    process = started("footage", folder, *FILM, "--workers", 1)
    wait_for_a_file(folder, process)
    process.kill()
    ended(process)
    assert process.returncode == -signal.SIGKILL
    done = files(folder)
    assert len(done) < 2 * VIDEOS and done.items() <= files(film).items()
    made("footage", folder, *FILM, "--workers", 1)
    assert files(folder) == files(film)


@pytest.mark.slow
def test_ctrl_c_ends_all_of_it_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    folder = tmp_path / "film"
    process = started(
        "footage", folder, "--videos", 9, "--frames", 200, *FILM[4:], "--workers", 2, "-q"
    )
    wait_for_a_file(folder, process)
    os.killpg(process.pid, signal.SIGINT)
    errors = ended(process)
    assert (process.returncode, errors) == (130, b"handclr: error: interrupted\n")
    assert [path for path in folder.rglob("*") if path.is_file()] == []
