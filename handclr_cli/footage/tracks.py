"""Hands of neighbouring looks joined to tracks; each track has one side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from ..contract.sample import LAST_FRAME
from .frames import Hand

# A track's side is decided when it has ended, or so many looks after it began: so many wait in
# memory at most.
LONGEST = 64
# A hand that is not seen for longer has gone; in images, for more looks.
REACH_S = 1.05
REACH_LOOKS = 3
# How far keypoints may be from where they were, in sizes of the hand: NEAR up to SOON_S seconds
# later, from there ever less, FAR after REACH_S; and STILL in images, which say no time.
NEAR, FAR, STILL = 0.8, 0.6, 0.08
SOON_S = 0.35
# How much nearer a hand seems that is of the side of the track, in shares of that: without, a hand
# that comes where another one has left is taken for it.
PULL = 0.3
# A decided track ends where what was seen since speaks against its side as much as so many looks.
STEADY = 32.0
# A track of so many looks that are as sure of its side needs no opinion; of others, so many crops
# are asked for one. On synthetic footage, asking more changed nothing.
ENOUGH, SURE = 4, 0.8
OPINIONS = 5

Other = TypeVar("Other")
# Says of a crop, uint8 (S, S, 3) RGB, how much its hand is a right one: -1 is a left hand, 1 a
# right one, None where it finds none.
Opinion = Callable[[np.ndarray], float | None]


@dataclass
class Look:
    """The hands of a frame, and the pixels of their crops, of which none is mirrored yet.

    `size` is the width and height of the frame.
    """

    number: int
    time_s: float | None
    size: tuple[int, int]
    hands: list[Hand]
    pixels: list[np.ndarray]


def tracked(looks: Iterable[Look | Other], opinion: Opinion) -> Iterator[Look | Other]:
    """Yield the looks of a piece of footage in order, each hand with its track and its side.

    What is no look passes through in its place. A hand's side is that of its track, which is
    decided by the handedness in all its looks and by `opinion` of some of its crops; where the
    track is longer than LONGEST looks, of the first of them.
    """
    tracks, waiting = _Tracks(opinion), deque[Look | Other]()
    for look in looks:
        waiting.append(look)
        if isinstance(look, Look):
            tracks.join(look)
        while waiting and _decided(waiting[0]):
            yield waiting.popleft()
    tracks.end()
    yield from waiting


def _decided(look: Look | Other) -> bool:
    return not isinstance(look, Look) or all(hand.track is not None for hand in look.hands)


def towards_right(hand: Hand) -> float:
    """How much a hand is a right one by the handedness found: -1 is a left hand, 1 a right one."""
    weight = 2 * hand.score - 1
    return weight if hand.side == "right" else -weight


@dataclass
class _Track:
    """A hand where it was seen last, and what is known of its side.

    `first` and `last` are the places of its looks in the order of all; `evidence` is the sum of
    `towards_right`; `undecided` are its looks, and the hand's row in each, until `side` is known.
    """

    number: int
    first: int
    last: int
    time_s: float | None
    hand: Hand
    evidence: float = 0.0
    side: str | None = None
    side_score: float = 0.0
    undecided: list[tuple[Look, int]] = field(default_factory=list)

    def see(self, look: Look, row: int, place: int) -> None:
        """Add the next look, in which this is the hand of a row."""
        self.last, self.time_s, self.hand = place, look.time_s, look.hands[row]
        self.evidence += towards_right(self.hand)
        if self.side is None:
            self.undecided.append((look, row))
        else:
            self.evidence = min(max(self.evidence, -STEADY), STEADY)
            self._settle(look, row)

    def contradicted(self, hand: Hand) -> bool:
        """Whether, with one more hand, more speaks against the side than for it."""
        evidence = self.evidence + towards_right(hand)
        return self.side is not None and (evidence > 0) != (self.side == "right")

    def decide(self, opinion: Opinion) -> None:
        """Decide the side, if it is not, and give it to the hands that wait for it."""
        if self.side is not None:
            return
        looks = len(self.undecided)
        certain = self._certain(opinion)
        self.side = ("right" if certain > 0 else "left") if certain else self.hand.side
        self.side_score = (1 + abs(certain)) / 2
        self.evidence = min(max(certain * looks, -STEADY), STEADY)
        for look, row in self.undecided:
            self._settle(look, row)
        self.undecided = []

    def _certain(self, opinion: Opinion) -> float:
        """How much this is a right hand: -1 is a left hand, 1 a right one."""
        looks = len(self.undecided)
        own = self.evidence / looks
        if looks >= ENOUGH and abs(own) >= SURE:
            return own
        chosen = np.linspace(0, looks - 1, min(looks, OPINIONS)).round().astype(int).tolist()
        asked = [opinion(_pixels(self.undecided[row])) for row in chosen]
        told = [each for each in asked if each is not None]
        return (own + sum(told) / len(told)) / 2 if told else own

    def _settle(self, look: Look, row: int) -> None:
        hand = look.hands[row]
        look.hands[row] = replace(
            hand, track=self.number, side=self.side or hand.side, side_score=self.side_score
        )


def _pixels(seen: tuple[Look, int]) -> np.ndarray:
    look, row = seen
    return look.pixels[row]


class _Tracks:
    """The tracks that go on."""

    def __init__(self, opinion: Opinion) -> None:
        self._opinion = opinion
        self._live: list[_Track] = []
        self._place = 0

    def join(self, look: Look) -> None:
        """Add each hand of the next look to a track, or begin one with it."""
        self._live = self._going_on(look)
        tracks = self._links(look)
        began = 0
        for row, hand in enumerate(look.hands):
            track = tracks.get(row)
            if track is not None and track.contradicted(hand):
                self._live.remove(track)
                track = None
            if track is None:
                # Unique in the video, whatever the pieces: no two frames have the same number.
                number = look.number + began * (LAST_FRAME + 1)
                track = _Track(number, self._place, self._place, look.time_s, hand)
                self._live.append(track)
                began += 1
            track.see(look, row, self._place)
        self._place += 1
        for track in self._live:
            if self._place - track.first >= LONGEST:
                track.decide(self._opinion)

    def end(self) -> None:
        """Decide what is undecided: no look follows."""
        for track in self._live:
            track.decide(self._opinion)

    def _going_on(self, look: Look) -> list[_Track]:
        """The tracks that this look can continue; the others have ended."""
        live = []
        for track in self._live:
            if _limit(track, look, self._place) > 0:
                live.append(track)
            else:
                track.decide(self._opinion)
        return live

    def _links(self, look: Look) -> dict[int, _Track]:
        """The track that each row of the look's hands continues, where it does one."""
        if not self._live or not look.hands:
            return {}
        from scipy.optimize import linear_sum_assignment

        apart = _apart([track.hand for track in self._live], look.hands)
        sides = np.array([towards_right(hand) for hand in look.hands])
        leaning = np.array([_leaning(track) for track in self._live])
        limits = np.array([[_limit(track, look, self._place)] for track in self._live])
        # No link costs as much as one at the limit, so that two far ones never beat a near one.
        costs = np.minimum(apart / limits - PULL * leaning[:, None] * sides, 1.0)
        pairs = zip(*linear_sum_assignment(costs), strict=True)
        return {int(row): self._live[line] for line, row in pairs if costs[line, row] < 1}


def _limit(track: _Track, look: Look, place: int) -> float:
    """How far a track's hand may have moved up to a look, in sizes of the hand; 0: it has ended."""
    if look.time_s is None or track.time_s is None:
        return STILL if place - track.last <= REACH_LOOKS else 0.0
    later = look.time_s - track.time_s
    share = (later - SOON_S) / (REACH_S - SOON_S)
    return 0.0 if later > REACH_S else NEAR + (FAR - NEAR) * max(share, 0.0)


def _leaning(track: _Track) -> float:
    """How much the side of a track is a right one, from -1 to 1."""
    return float(np.tanh(track.evidence / 2))


def _apart(before: Sequence[Hand], after: Sequence[Hand]) -> np.ndarray:
    """Mean distance of the keypoints of each of T hands from each of H, in sizes of a hand: (T, H).

    The size is the longer side of the bounding box, of both the geometric mean.
    """
    first = np.stack([hand.keypoints for hand in before])
    second = np.stack([hand.keypoints for hand in after])
    pixels = np.linalg.norm(first[:, None] - second, axis=-1).mean(axis=-1)
    sizes = [np.ptp(points, axis=1).max(axis=1) for points in (first, second)]
    return pixels / np.sqrt(np.maximum(np.outer(*sizes), 1e-9))
