"""What the tests share: the command line as a subprocess, the landmarker's file, drawn footage,
real footage.
"""

from __future__ import annotations

import functools
import io
import os
import signal
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import warm
from drawn_hand import draw_hand, hand_joints, write_video

from handclr_cli import console
from handclr_cli.contract.errors import HandclrError
from handclr_cli.footage.model_file import model_file

REPOSITORY = Path(__file__).resolve().parent.parent
LONGEST = ("test_demo", "test_pipeline", "test_loader_watchdog")
Handclr = Callable[..., "subprocess.CompletedProcess[bytes]"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # What takes a minute on its own is begun first, so that no process is left with it at the end.
    items.sort(key=lambda item: item.path.stem not in LONGEST)
    if not os.environ.get("HANDCLR_REAL_DATA"):
        for item in items:
            if item.get_closest_marker("real"):
                item.add_marker(
                    pytest.mark.skip(reason="needs real footage: HANDCLR_REAL_DATA is unset")
                )


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c() -> None:
    """Ctrl-C is heard, also where a shell runs the tests in the background, which ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def environment() -> Iterator[None]:
    """One cache for all tests, so that the landmarker is fetched once a machine; nothing of the
    user's settings.
    """
    with pytest.MonkeyPatch.context() as patch:
        cache = os.environ.get("HANDCLR_TEST_CACHE") or REPOSITORY / ".venv" / "cache" / "handclr"
        patch.setenv("HANDCLR_CACHE", str(cache))
        patch.setenv("NO_COLOR", "1")
        for name in ("HANDCLR_LANDMARKER", "HANDCLR_OFFLINE"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def _own_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command that runs in this process is told with -q holds for one test."""
    for name in ("quiet", "debug", "muted"):
        monkeypatch.setattr(console.State, name, False)


@pytest.fixture(scope="session")
def landmarker_file(environment: None) -> Path:
    try:
        return model_file(None, print)
    except HandclrError as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def _landmarker_or_skip(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("landmarker"):
        request.getfixturevalue("landmarker_file")


@pytest.fixture(scope="session")
def handclr(environment: None) -> Handclr:
    """Run the command line in a process of its own."""

    def run(
        *args: str | Path,
        stdin: bytes | None = b"",
        env: dict[str, str] | None = None,
        cwd: str | Path | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[bytes]:
        return warm.run(
            [os.fspath(word) for word in args],
            stdin or b"",
            {**os.environ, **(env or {})},
            cwd,
            timeout,
        )

    return run


@pytest.fixture(scope="session")
def real_data() -> Path:
    return Path(os.environ["HANDCLR_REAL_DATA"])


@functools.cache
def drawn_pair(index: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A picture with a right hand on its left and a left one on its right, and the joints of both
    in its pixels.
    """
    halves, joints = [], {}
    for side, offset in (("right", 0), ("left", 320)):
        pose: dict[str, Any] = {
            "scale": 13 + 0.3 * index,
            "angle": 3.0 * index,
            "mirrored": side == "left",
        }
        halves.append(draw_hand((480, 320), (160, 250), **pose, seed=index))
        joints[side] = hand_joints((160 + offset, 250), **pose)[:, :2]
    return np.hstack(halves), joints


@pytest.fixture(scope="session")
def drawn_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four frames at 2 fps of `drawn_pair`."""
    path = tmp_path_factory.mktemp("drawn") / "clip.mp4"
    return write_video(path, [drawn_pair(index)[0] for index in range(4)], 2)


@pytest.fixture(scope="session")
def drawn_crops(handclr: Handclr, drawn_clip: Path, landmarker_file: Path) -> bytes:
    """What `extract --every 1` makes of the clip."""
    done = handclr("extract", "--every", "1", drawn_clip)
    assert done.returncode == 0, done.stderr
    return done.stdout


def pack(samples: dict[str, dict[str, bytes]]) -> bytes:
    """A shard such as any program makes: no provenance."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for key, members in samples.items():
            for suffix, data in members.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def unpack(data: bytes) -> dict[str, dict[str, bytes]]:
    """The samples of a tar by key, as any other reader of WebDataset's layout sees them."""
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            key, _, suffix = member.name.partition(".")
            if not key.startswith("__"):
                samples.setdefault(key, {})[suffix] = archive.extractfile(member).read()  # type: ignore[union-attr]
    return samples


def lines(stream: bytes) -> list[str]:
    return stream.decode().splitlines()
