"""Footage over which a worker process hangs is lost, and nothing else is."""

from __future__ import annotations

import os
import shutil
import signal
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from films import H264, film

from handclr_cli.contract.units import Unit
from handclr_cli.footage import extract_job
from handclr_cli.footage.extract_job import ExtractSettings, run_extract
from handclr_cli.footage.extraction import Extraction
from handclr_cli.footage.frames import Piece
from handclr_cli.work import pulse, watch


class Hanging(Extraction):
    """Stops its process at the second frame of one film; another film takes its time."""

    def __call__(self, piece: Piece) -> Iterator[Any]:
        looks = super().__call__(piece)
        yield next(looks)
        if piece.footage.name.endswith("b.mp4"):
            os.kill(os.getpid(), signal.SIGSTOP)
        if piece.footage.name.endswith("d.mp4"):
            for _ in range(60):
                time.sleep(0.1)
                pulse.beat()
        yield from looks


@pytest.mark.slow
def test_footage_that_hangs_is_lost_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("films").mkdir()
    first = film(Path("films/a.mp4"), 30, 10, *H264)
    for name in "bcd":
        shutil.copy(first, f"films/{name}.mp4")
    rows = [f"{name}.mp4,{frame},10,2,90,30,right" for name in "abcd" for frame in (0, 9, 20)]
    Path("boxes.csv").write_text("\n".join(["video,frame,x0,y0,x1,y1,hand", *rows]) + "\n")
    settings: dict[str, Any] = {"footage": ["films"], "detections": "boxes.csv", "shard_size": 3}
    whole = run_extract(ExtractSettings(output="whole-%06d.tar", workers=0, **settings))
    monkeypatch.setattr(extract_job, "Extraction", Hanging)
    monkeypatch.setattr(watch, "HANG_S", 1.0)
    monkeypatch.setattr(watch, "STALL_S", 30.0)
    made = run_extract(ExtractSettings(output="made-%06d.tar", workers=2, **settings))
    assert whole.skipped == 0 and made.counts["worker process lost"] == 1 == made.skipped
    assert made.lost == ["made-000001.tar"] and "films/b.mp4: a worker process hung for" in (
        capsys.readouterr().err
    )
    for number in (0, 2, 3):
        assert (
            Path(f"made-{number:06d}.tar").read_bytes()
            == Path(f"whole-{number:06d}.tar").read_bytes()
        )
    with tarfile.open("made-000001.tar") as archive:
        assert len([name for name in archive.getnames() if name.endswith(".jpg")]) == 1


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"output": "crops-%06d.tar"}, ["crops-000001.tar", "crops-000004.tar"]),
        ({"skip_done": "hands-%06d.tar"}, ["hands-000001.tar", "hands-000004.tar"]),
        ({"output": "crops.tar"}, []),
        ({}, []),
    ],
)
def test_the_shards_that_lack_footage_are_named_each_once(
    settings: dict[str, str], names: list[str]
) -> None:
    """By the names that they have at the end of the pipe."""
    asked = ExtractSettings(footage=["films"], **settings)  # type: ignore[arg-type]
    paths = [asked.output.replace("%06d", f"{number:06d}") for number in (1, 1, 4)]
    lost = [Unit(number, path, range(1)) for number, path in zip((1, 1, 4), paths, strict=True)]
    made: Any = SimpleNamespace(counts=Counter(), lost=lost)
    units: Any = SimpleNamespace(done=lambda unit: False)
    assert extract_job._result(asked, units, lost, made).lost == names
