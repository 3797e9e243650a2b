"""The headers of many videos in the cache: the same plan, and no video is opened again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from films import H264, film

from handclr_cli.contract.temporary import lock_file
from handclr_cli.footage import headers
from handclr_cli.footage.decoding import read_header
from handclr_cli.footage.finding import find_footage
from handclr_cli.footage.frames import Piece, Sampling
from handclr_cli.footage.plan import pieces_of, units_of

COUNT = 12


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("one") / "film.mp4", 30, 10, *H264)


@pytest.fixture
def films(one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Videos, among them one that is none, and an empty cache that they are enough for."""
    monkeypatch.setenv("HANDCLR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(headers, "MANY", COUNT)
    folder = tmp_path / "films"
    folder.mkdir()
    for number in range(COUNT - 2):
        shutil.copy(one, folder / f"{number}.mp4")
    os.utime(folder / "0.mp4", ns=(10**18, 10**18))
    shutil.copy(one, os.fsencode(folder) + b"/\xff.mp4")
    (folder / "broken.mp4").write_bytes(b"no film")
    return folder


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the videos that are opened for a plan."""
    names: list[str] = []
    monkeypatch.setattr(
        headers, "read_header", lambda path: names.append(path.name) or read_header(path)
    )
    return names


def plan(folder: Path) -> list[Piece]:
    return pieces_of(find_footage([str(folder)]), Sampling(fps=3))


def plan_without(folder: Path) -> list[Piece]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headers, "MANY", COUNT + 1)
        return plan(folder)


def test_a_second_task_opens_no_video_and_has_the_same_plan(
    films: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = plan(films)
    assert len(opened) == len(set(opened)) == COUNT
    opened.clear()
    second = plan(films)
    # What cannot be opened may be there the next time.
    assert opened == ["broken.mp4"]
    monkeypatch.chdir(films.parent)
    assert len(plan(Path("films"))) == COUNT and opened == 2 * ["broken.mp4"]
    assert first == second == plan_without(films)
    assert [piece.frames for piece in second].count(9) == COUNT - 1
    assert units_of(first, 20) == units_of(second, 20)
    assert not [path for path in (films.parent / "cache").rglob("*") if path.suffix]


def test_a_video_that_was_replaced_is_opened_again(films: Path, opened: list[str]) -> None:
    plan(films)
    opened.clear()
    film(films / "3.mp4", 60, 10, *H264)
    os.utime(films / "5.mp4", ns=(10**18, 10**18))
    assert plan(films) == plan_without(films)
    assert sorted(opened) == ["3.mp4", "5.mp4", "broken.mp4"]


def test_a_damaged_cache_is_made_anew(films: Path, opened: list[str]) -> None:
    plan(films)
    shelves = sorted((films.parent / "cache" / "headers").iterdir())
    for number, shelf in enumerate(shelves):
        data = bytearray(shelf.read_bytes())
        data[-10 - number] ^= 1
        shelf.write_bytes(data if number % 2 else data[: len(data) // 2])
    opened.clear()
    assert plan(films) == plan_without(films) and len(opened) == COUNT
    opened.clear()
    assert plan(films) == plan_without(films) and opened == ["broken.mp4"]


def test_headers_of_another_version_are_read_anew(
    films: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(films)
    monkeypatch.setattr(headers, "version", lambda name: "0.1")
    opened.clear()
    plan(films)
    assert len(opened) == COUNT


def test_a_shelf_that_another_task_holds_is_not_waited_for_without_end(
    films: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headers, "_PATIENCE_S", 0.3)
    monkeypatch.setattr(headers, "_SHELVES", 2)
    (films.parent / "cache" / "headers").mkdir(parents=True)
    with lock_file(films.parent / "cache" / "headers" / "00.lock", wait=True):
        assert plan(films) == plan_without(films) and len(opened) == COUNT
    assert [path.name for path in (films.parent / "cache" / "headers").iterdir()] == ["01"]


def test_without_a_cache_all_is_read(
    films: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HANDCLR_CACHE", os.devnull)
    assert plan(films) == plan(films) and len(opened) == 2 * COUNT
