"""Hands drawn on the frames that they were seen in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..hand.joints import FINGERS, WRIST
from ..report.sheets import draw_skeleton
from .hands import PosedHands

_LEFT, _RIGHT = (20, 20, 20), (255, 255, 255)
# Lines are one pixel wide for each 70 pixels of the hand's longer side, within these limits.
_PIXELS_PER_WIDTH = 70
_WIDTHS = (1, 10)
_KNUCKLES = [finger[0] for finger in FINGERS.values()]
_FARTHEST = 30_000


@dataclass(frozen=True)
class DrawnHand:
    """A hand on a frame of footage.

    `points` (21, 2) pixels; `left` or right hand, None where unknown; `track` its number, 0 where
    unknown.
    """

    points: np.ndarray
    left: bool | None
    track: int = 0


def drawn_hands(hands: PosedHands, frame: int) -> list[DrawnHand]:
    """The hands of a frame, of those of one video."""
    found = []
    for row in np.flatnonzero(hands.frame == frame).tolist():
        left = {"left": True, "right": False}.get(str(hands.hand[row]))
        points = hands.placed.source2d[row].astype(np.float64)
        found.append(DrawnHand(points, left, int(hands.track[row])))
    return found


def draw_hands(image: np.ndarray, hands: Sequence[DrawnHand]) -> np.ndarray:
    """Return a copy of an RGB uint8 (H, W, 3) image with hands drawn on it.

    Each finger has a colour, and lines are wider on larger hands. Right hands are outlined in white
    with an R beside the wrist, left hands in black with an L, others in white without a letter; the
    number of the track follows the letter.
    """
    low, high = _WIDTHS
    for hand in hands:
        side = float(np.ptp(hand.points, axis=0).max())
        width = min(max(round(side / _PIXELS_PER_WIDTH), low), high)
        outline = _LEFT if hand.left else _RIGHT
        image = draw_skeleton(image, hand.points, width=width + 1 + width // 2, colour=outline)
        image = draw_skeleton(image, hand.points, width=width)
        _label(image, hand, width)
    return image


def label_of(hand: DrawnHand) -> str:
    """The letter of the side and the number of the track, as far as they are known."""
    letter = {True: "L", False: "R", None: ""}[hand.left]
    return f"{letter} {hand.track or ''}".strip()


def _label(image: np.ndarray, hand: DrawnHand, width: int) -> None:
    """Put the label beside the wrist, on the side away from the fingers, in place."""
    import cv2

    text = label_of(hand)
    if not text:
        return
    paper, ink = (_LEFT, _RIGHT) if hand.left else (_RIGHT, _LEFT)
    scale, thick = 0.35 + 0.12 * width, max(1, width // 2)
    letters = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)[0]
    half = np.array(letters) / 2 + 3 + width
    middle = _beside_wrist(hand.points, half, 2 * width + 2)
    middle = np.clip(middle, half, np.maximum(np.array(image.shape[1::-1]) - half, half))
    low, high = (np.rint(middle + sign * half).astype(int).tolist() for sign in (-1, 1))
    cv2.rectangle(image, low, high, paper, -1, cv2.LINE_AA)
    at = np.rint(middle + np.array(letters) * (-0.5, 0.5)).astype(int).tolist()
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thick, cv2.LINE_AA)


def _beside_wrist(points: np.ndarray, half: np.ndarray, gap: float) -> np.ndarray:
    """The middle of a box of these half sides beyond the wrist, seen from the knuckles."""
    away = points[WRIST] - points[_KNUCKLES].mean(axis=0)
    away = away / max(float(np.linalg.norm(away)), 1e-9)
    reach = gap + float(np.min(half / np.maximum(np.abs(away), 1e-9)))
    return np.clip(points[WRIST] + reach * away, -_FARTHEST, _FARTHEST)
