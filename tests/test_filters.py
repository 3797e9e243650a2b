"""The contract of filters, applied to each; and the front door: help that is quick and complete."""

from __future__ import annotations

import functools
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from filter_contract import FilterContract, MineContract, NpzOutput
from shard_helpers import (
    cli_env,
    crop,
    crops,
    error_line,
    jpeg,
    run_cli,
    tar_bytes,
    write_pose,
)

from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.shards import group
from handclr_cli.contract.tar import StreamCursor
from handclr_cli.main import app


@functools.cache
def many_crops() -> bytes:
    one = crop()
    samples = crops(["attic"], frames=1000, keypoints=False)
    for sample in samples:
        sample.members = {name: one.members[name] for name in ("jpg", "keypoints2d.npy")}
    return tar_bytes(samples)


@pytest.mark.slow
class TestPca(NpzOutput):
    name = "pca"

    def arguments(self, folder: Path) -> list[str]:
        """By a given basis: without scikit-learn, which takes a second to import."""
        return ["pca", "--basis", str(write_pose(folder / "basis.npz", [0]))]

    def good(self) -> bytes:
        return tar_bytes(crops())

    def large(self) -> bytes:
        return many_crops()


@pytest.mark.slow
class TestMine(MineContract):
    pass


@pytest.mark.slow
@pytest.mark.landmarker
class TestKeypoints(FilterContract):
    name = "keypoints"
    suffix = ".tar"

    def arguments(self, folder: Path) -> list[str]:
        return ["keypoints", "--keep-empty"]

    def good(self) -> bytes:
        return tar_bytes(crops(frames=2))

    def large(self) -> bytes:
        blank = jpeg(128, 64)
        return tar_bytes(
            crops(frames=4, keypoints=False, members={"jpg": blank, "raw": bytes(100_000)})
        )

    def complete(self, data: bytes) -> bool:
        try:
            return len(list(group(StreamCursor(io.BytesIO(data)), "output"))) >= 0
        except HandclrError:
            return False


# Where no landmarker is needed: what is wrong is said before it is loaded.


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["extract"], 2, "no footage: name videos"),
        (["extract", "gone.mp4"], 2, "gone.mp4"),
        (["extract", "-o", "x.tar", "gone"], 2, "gone"),
        (["keypoints", "gone.tar"], 2, "gone.tar: no such file or folder"),
        (["keypoints", "gone-*.tar"], 2, "gone-*.tar: nothing matches"),
        (["keypoints", "-", "-"], 2, "only once"),
        (["keypoints", "--landmarker", "gone.task"], 1, "no landmarker at gone.task"),
        (["keypoints"], 1, "name it here or as HANDCLR_LANDMARKER"),
        (["keypoints", "--landmarker", "words"], 1, "words: not a MediaPipe hand landmarker"),
        (["import", "freihand", "gone"], None, "gone"),
        (
            ["import", "freihand", ".", "--split", "test"],
            2,
            "'--split': 'test' is not one of 'train', 'eval'",
        ),
    ],
)
@pytest.mark.slow
def test_errors_of_the_other_filters(
    arguments: list[str], code: int | None, words: str, tmp_path: Path
) -> None:
    (tmp_path / "words").write_text("words\n")
    done = run_cli(*arguments, env={"HANDCLR_CACHE": str(tmp_path / "cache")}, cwd=tmp_path)
    assert words in error_line(done, done.returncode if code is None else code)
    assert done.returncode in (1, 2)
    assert done.stdout == b""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["words"]


# The front door.

COMMANDS = (
    "extract",
    "keypoints",
    "pca",
    "mine",
    "pretrain",
    "finetune",
    "evaluate",
    "predict",
    "inspect",
    "import",
)
HEAVY = (
    "torch",
    "torchvision",
    "cv2",
    "mediapipe",
    "sklearn",
    "scipy",
    "matplotlib",
    "webdataset",
    "rich",
)
RUN = f"""
import atexit, sys
def check():
    sys.stdout.flush()
    heavy = [name for name in {HEAVY!r} if name in sys.modules]
    print("heavy:", *heavy, file=sys.stderr, flush=True)
atexit.register(check)
sys.argv[0] = "handclr"
from handclr_cli.main import main
main()
"""


def every_command() -> list[tuple[str, Any]]:
    """Each command and subcommand with the words that call it."""
    found = []
    waiting = [("", typer.main.get_command(app))]
    while waiting:
        words, command = waiting.pop()
        found.append((words, command))
        children = getattr(command, "commands", {})
        waiting += [(f"{words} {name}".strip(), child) for name, child in children.items()]
    return sorted(found, key=lambda pair: pair[0])


@pytest.mark.parametrize("words", [words for words, _ in every_command()])
@pytest.mark.slow
def test_help_is_light(words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words.split(), "--help"], capture_output=True, env=cli_env()
    )
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: handclr {words}".strip().encode())
    assert done.stderr.decode() == "heavy:\n"


@pytest.mark.slow
def test_completion_is_light() -> None:
    env = cli_env(
        {"_HANDCLR_COMPLETE": "complete_bash", "COMP_WORDS": "handclr p", "COMP_CWORD": "1"}
    )
    done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, env=env)
    names = [line.split("\t")[0] for line in done.stdout.decode().splitlines()]
    assert names == ["pca", "pretrain", "predict"]
    assert done.stderr.decode() == "heavy:\n"


@pytest.mark.slow
def test_every_command_is_listed() -> None:
    listing = run_cli("--help").stdout.decode()
    names = [
        line.split()[0]
        for line in listing.partition("Commands:")[2].splitlines()
        if line.startswith("  ")
    ]
    assert set(COMMANDS) <= set(names)
    for name in COMMANDS:
        assert f"\n  {name} " in listing
    assert run_cli("-h").stdout.decode() == listing


def test_everything_has_help() -> None:
    for words, command in every_command():
        assert command.help, words
        for parameter in command.params:
            assert getattr(parameter, "help", None) or parameter.name in ("help",), (
                words,
                parameter.name,
            )
        if not getattr(command, "commands", None):
            assert f"handclr {words}" in command.help, f"{words}: no example"


@pytest.mark.slow
def test_version() -> None:
    done = run_cli("--version")
    assert (done.returncode, done.stdout.decode().split()[0]) == (0, "handclr")
