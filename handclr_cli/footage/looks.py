"""The hands of a frame: one look at all of it, and further looks for those that it misses.

MediaPipe's palm detector sees an image at 192 px and needs surroundings: it misses hands that fill
the frame, and those of a tenth of it.
"""

from __future__ import annotations

import math
from itertools import chain

import numpy as np

from ..choices import LookName
from ..hand.square import overlap, shared, square_box
from .frames import Frame, Hand
from .windows import Find, look_in, tile_boxes, whole_image, with_border

# Of the longer side of the frame; of a hand that fills the frame so many pixels are enough.
BORDER, LARGEST = 0.5, 1280
# The squares, in shorter sides of the frame, and how much of one its neighbour shows too.
TILES, COMMON = (1.0, 0.6), 1 / 3
# In pixels. A smaller square shows no hand, and of a long strip there would be thousands.
LEAST_TILE = 48
# A hand is looked at again in a square of so many of its sizes.
SURROUNDINGS = 3.0
# Two boxes are of one hand where they overlap as much (intersection over union), or where so much
# of the smaller one is in the other.
SAME, MOSTLY_INSIDE = 0.5, 0.7
# One that was looked at again is the hand that was meant where they overlap as much, or the same.
AGAIN, AGAIN_INSIDE = 0.3, 0.6
# Film is searched square by square no more often, in seconds; between, where hands were before.
SEARCH_S = 0.99


class Search:
    """Finds the hands of the frames of a piece of footage, which come in order.

    `look` is "once": at the whole frame; "border": where that finds nothing, at the frame with a
    border, and at its mirror image; "tiles": besides at overlapping squares, where fewer than
    `max_hands` are found. In film the last two look, first of all, where hands were a moment
    before. What is found there and in squares counts if it is found again in its surroundings,
    which is where its keypoints are taken from.
    """

    def __init__(self, find: Find, look: LookName, max_hands: int) -> None:
        self._find, self._look, self._max_hands = find, look, max_hands
        self._before: list[Hand] = []
        self._before_s = self._searched_s = math.nan

    def hands(self, frame: Frame) -> list[Hand]:
        """Find the hands of the next frame: those of the first look, then what others add."""
        hands = distinct_hands(self._find(frame.image))
        if self._look != "once":
            self._look_again(frame, hands)
            self._before, self._before_s = list(hands), _seconds(frame)
        return hands

    def _look_again(self, frame: Frame, hands: list[Hand]) -> None:
        image, now = frame.image, _seconds(frame)
        if now - self._before_s < SEARCH_S:
            self._add(image, hands, self._before)
        if not hands:
            border = with_border(image, BORDER)
            hands += distinct_hands(look_in(image, border, self._find, largest=LARGEST))
        if not hands:
            hands += distinct_hands(look_in(image, whole_image(image), self._find, mirrored=True))
        # The times of images are not known: each of them is searched.
        if self._look == "tiles" and not now - self._searched_s < SEARCH_S:
            self._searched_s = now
            for share in TILES:
                if len(hands) < self._max_hands:
                    self._add(image, hands, self._in_tiles(image, share))

    def _in_tiles(self, image: np.ndarray, share: float) -> list[Hand]:
        height, width = image.shape[:2]
        if share * min(width, height) < LEAST_TILE:
            return []
        squares = tile_boxes(width, height, share, COMMON)
        return [*chain.from_iterable(look_in(image, square, self._find) for square in squares)]

    def _add(self, image: np.ndarray, hands: list[Hand], proposed: list[Hand]) -> None:
        """Add the hands that are found again where some are proposed, and are not known yet."""
        for proposal in sorted(proposed, key=lambda hand: -hand.score):
            if len(hands) >= self._max_hands:
                return
            if any(are_one(proposal, known) for known in hands):
                continue
            hand = self._again(image, proposal)
            if hand is not None and not any(are_one(hand, known) for known in hands):
                hands.append(hand)

    def _again(self, image: np.ndarray, proposal: Hand) -> Hand | None:
        """The hand that is proposed as its surroundings show it, or else their mirror image."""
        box = square_box(proposal.keypoints, SURROUNDINGS)
        for mirrored in (False, True):
            found = look_in(image, box, self._find, mirrored=mirrored)
            meant = [hand for hand in found if _is_meant(hand, proposal)]
            if meant:
                return max(meant, key=lambda hand: overlap(hand.keypoints, proposal.keypoints))
        return None


def distinct_hands(hands: list[Hand]) -> list[Hand]:
    """Drop hands that were found twice: their box overlaps that of a more confident one."""
    kept: list[Hand] = []
    for hand in hands:
        if all(overlap(hand.keypoints, other.keypoints) < SAME for other in kept):
            kept.append(hand)
    return kept


def _seconds(frame: Frame) -> float:
    return math.nan if frame.time_s is None else frame.time_s


def are_one(hand: Hand, other: Hand) -> bool:
    """Whether two hands found in an image are one, by their boxes."""
    first, second = hand.keypoints, other.keypoints
    return overlap(first, second) >= SAME or shared(first, second) >= MOSTLY_INSIDE


def _is_meant(hand: Hand, proposal: Hand) -> bool:
    one, other = hand.keypoints, proposal.keypoints
    return overlap(one, other) >= AGAIN or shared(one, other) >= AGAIN_INSIDE
