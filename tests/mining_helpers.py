"""What the tests of `handclr mine` share: running it, and reading what it wrote."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from shard_helpers import CLI, ROOT, cli_env, load_npz, run_cli, write_pose

from handclr_cli.commands.mine import mine
from handclr_cli.main import app

VIDEOS = [0, 0, 1, 1, 1, 2, 0]

Found = dict[str, np.ndarray]


def shell(script: str) -> subprocess.CompletedProcess[bytes]:
    """A pipeline in bash, in which $HANDCLR is the command line."""
    env = cli_env({"HANDCLR": " ".join(CLI)})
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", script],
        capture_output=True,
        env=env,
        cwd=ROOT,
        timeout=120,
    )


def mined_by(*args: str | Path, stdin: bytes | None = None) -> Found:
    """What a run that goes well writes to standard output."""
    done = run_cli("mine", "-q", *args, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr
    return load_npz(done.stdout)


def mined_here(path: Path, *sources: Path | str, **options: Any) -> Found:
    """The same without a process of its own, for many small runs and for changed constants."""
    if "max_distance" in options:
        options["max_distance"] = str(options["max_distance"])
    try:
        mine([*map(str, sources)], output=str(path), quiet=True, **options)
    except typer.Exit as exit_:
        assert exit_.exit_code == 3
    return load_npz(path)


@functools.cache
def _command_line() -> Any:
    return typer.main.get_command(app)


def refusal(*args: str | Path) -> tuple[int, str]:
    """The exit code and the words of a run that goes wrong, without a process of its own."""
    command = _command_line()
    with pytest.raises(Exception) as caught:
        command.main(["mine", *map(str, args)], prog_name="handclr", standalone_mode=False)
    error: Any = caught.value
    words = error.format_message() if hasattr(error, "format_message") else str(error)
    return error.exit_code, words.replace("Value error, ", "")


def named(found: Found) -> list[tuple[bytes, list[tuple[bytes, float]]]]:
    """Each query's key with the keys and distances of its positives, in the order of the file."""
    target = found.get("target", found["key"])
    rows = []
    for key, positive, distance in zip(
        found["key"], found["positive"], found["distance"], strict=True
    ):
        there = positive >= 0
        assert np.isinf(distance[~there]).all() and np.isfinite(distance[there]).all()
        rows.append(
            (
                key,
                list(zip(target[positive[there]].tolist(), distance[there].tolist(), strict=True)),
            )
        )
    return rows


def coarse(rows: int, seed: int) -> np.ndarray:
    """Poses on a grid: many at equal distances, some equal."""
    return np.random.default_rng(seed).integers(0, 3, (rows, 14)).astype(np.float32) * (
        np.arange(14) < 5
    )


def write_coarse(path: Path, videos: Sequence[int], seed: int) -> Path:
    return write_pose(path, videos, embedding=coarse(len(videos), seed))


def of_queries(union: Found, queries: Path) -> list[tuple[bytes, list[tuple[bytes, float]]]]:
    wanted = set(load_npz(queries)["key"].tolist())
    return [row for row in named(union) if row[0] in wanted]
