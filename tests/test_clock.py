"""Times of frames, from time stamps that are as they should be, or not."""

from __future__ import annotations

import itertools

import pytest

from handclr_cli.footage.clock import NUDGE_S, STUCK, Clock


def told(stamps: list[float | None], period_s: float = 0.1) -> list[float]:
    clock = Clock(period_s)
    times = [clock.tell(stamp) for stamp in stamps]
    assert all(one < two for one, two in itertools.pairwise(times))
    return times


def test_increasing_stamps_are_the_times() -> None:
    assert told([7, 7.1, 9, 9.00001]) == pytest.approx([0, 0.1, 2, 2.00001])


def test_a_repeated_stamp_moves_none_but_its_own_frame() -> None:
    times = told([0, 0.1, 0.1, 0.3, 20.3])
    assert times == pytest.approx([0, 0.1, 0.1 + NUDGE_S, 0.3, 20.3])


def test_a_small_step_back_is_no_new_beginning() -> None:
    times = told([0, 0.1, 0.3, 0.2, 0.4])
    assert times == pytest.approx([0, 0.1, 0.3, 0.3 + NUDGE_S, 0.4])


def test_where_streams_were_joined_time_goes_on() -> None:
    assert told([5, 5.1, 5.2, 1, 1.1, 0, 0.1]) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])


def test_a_step_forward_is_kept() -> None:
    assert told([0, 0.1, 3600, 3600.1]) == pytest.approx([0, 0.1, 3600, 3600.1])


def test_without_stamps_frames_are_counted() -> None:
    assert told([None] * 3) == pytest.approx([0, 0.1, 0.2])
    assert told([4, None, 4.3, None]) == pytest.approx([0, 0.1, 0.3, 0.4])


def test_a_clock_that_stands_still_is_none() -> None:
    """A film whose stamps are all the same is not over in a moment."""
    times = told([0.0] * 200)
    assert times[STUCK - 1] < 0.01
    assert times[-1] == pytest.approx(0.1 * (200 - STUCK), abs=0.01)


def test_found_by_a_seek() -> None:
    clock = Clock(0.1)
    clock.tell(5.0)
    assert clock.move_to(8.0) == pytest.approx(3)
    assert clock.tell(8.1) == pytest.approx(3.1)
    assert clock.move_to(None) is None
    clock.begin_again()
    assert clock.tell(6.0) == 0
