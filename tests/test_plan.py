"""Which pieces of footage go into which shard: as much for an array task to agree on as the others
do.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from handclr_cli.footage import video
from handclr_cli.footage.frames import Footage, FootageDetections, Piece, Sampling
from handclr_cli.footage.plan import pieces_of, units_of


def videos(frames: list[int]) -> list[Piece]:
    """Videos of so many frames to look at each."""
    return [
        Piece(Footage(f"set/{n}.mp4", f"{n}-0", (Path(f"{n}.mp4"),), True), frames=count)
        for n, count in enumerate(frames)
    ]


def images(folder: str, count: int) -> Footage:
    return Footage(
        f"set/{folder}", f"{folder}-0", tuple(Path(folder, f"{n}.jpg") for n in range(count)), False
    )


def test_units_hold_whole_pieces_in_order() -> None:
    pieces = videos([3, 0, 5, 2, 20, 0, 9])
    units = units_of(pieces, 8)
    assert [list(unit.rows) for unit in units] == [[0, 1, 2], [3], [4], [5, 6]]
    assert [unit.number for unit in units] == [0, 1, 2, 3]
    assert [unit.rows for unit in units_of(pieces, None)] == [range(7)]
    assert units_of([], 8) == []


def test_footage_that_is_added_last_makes_only_the_last_unit_another() -> None:
    before, after = (units_of(videos([3] * count), 8) for count in (7, 9))
    assert before[:3] == after[:3] and before[3] != after[3] and len(after) == 5


def test_another_image_in_a_folder_makes_another_unit() -> None:
    folder = images("a", 6)
    fewer = Footage(folder.name, folder.id, folder.files[1:], False)
    plans = [units_of(pieces_of([each], Sampling()), 8) for each in (folder, folder, fewer)]
    assert plans[0] == plans[1] != plans[2]


def test_a_piece_of_a_folder_sees_its_own_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "PIECE_IMAGES", 4)
    folder = images("a", 10)
    at = np.array([0, 3, 3, 4, 9], np.int32)
    boxes = {folder.id: FootageDetections(at, np.zeros((5, 4)), np.ones(5), np.zeros(5, bool))}
    found = pieces_of([folder], Sampling(fps=5.0), boxes)
    assert [piece.frames for piece in found] == [2, 1, 1]
    assert [piece.sampling.numbers for piece in found] == [(0, 3), (4,), (9,)]
    assert [len(piece.boxes.box) for piece in found if piece.boxes] == [3, 1, 1]
