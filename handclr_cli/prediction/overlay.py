"""Hands drawn on the frames that they were seen in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..hand.joints import FINGERS, WRIST
from ..report.sheets import add_skeleton
from .hands import PosedHands

_LEFT, _RIGHT = (20, 20, 20), (255, 255, 255)
# Lines are one pixel wide for each 70 pixels of the hand's longer side, within these limits.
_PIXELS_PER_WIDTH = 70
_WIDTHS = (1, 10)
_KNUCKLES = [finger[0] for finger in FINGERS.values()]
# Letters have this many pixels, and a share of the picture's longer side more; OpenCV's have
# _FONT_PX at scale 1.
_LETTERS_PX, _LETTERS_SHARE, _FONT_PX = 6, 0.009, 22
_PIXELS_PER_STROKE = 8
_PADDING = 0.4
# Where a label is tried, in radians from the direction away from the fingers.
_TURNS = (0.0, 0.8, -0.8, 1.6, -1.6, 2.4, -2.4)


@dataclass(frozen=True)
class DrawnHand:
    """A hand on a frame of footage.

    `points` (21, 2) pixels; `left` or right hand, None where unknown; `track` its number, 0 where
    unknown.
    """

    points: np.ndarray
    left: bool | None
    track: int = 0


def drawn_hands(hands: PosedHands) -> list[DrawnHand]:
    """The hands as they are drawn."""
    found = []
    for row in range(len(hands)):
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
    canvas = np.ascontiguousarray(image).copy()
    low, high = _WIDTHS
    for hand in hands:
        side = float(np.ptp(hand.points, axis=0).max())
        width = min(max(round(side / _PIXELS_PER_WIDTH), low), high)
        outline = _LEFT if hand.left else _RIGHT
        add_skeleton(canvas, hand.points, width=width + 1 + width // 2, colour=outline)
        add_skeleton(canvas, hand.points, width=width)
    joints = [hand.points for hand in hands]
    for hand in hands:
        if label_of(hand):
            # The next label keeps off this one too.
            joints.append(_label(canvas, hand, np.concatenate(joints)))
    return canvas


def label_of(hand: DrawnHand) -> str:
    """The letter of the side and the number of the track, as far as they are known."""
    letter = {True: "L", False: "R", None: ""}[hand.left]
    return f"{letter} {hand.track or ''}".strip()


def _label(canvas: np.ndarray, hand: DrawnHand, joints: np.ndarray) -> np.ndarray:
    """Put the label beside the wrist, off the `joints` (N, 2), in place; returns where, (3, 2)."""
    import cv2

    text = label_of(hand)
    paper, ink = (_LEFT, _RIGHT) if hand.left else (_RIGHT, _LEFT)
    height = _LETTERS_PX + _LETTERS_SHARE * max(canvas.shape[:2])
    scale, thick = height / _FONT_PX, max(1, round(height / _PIXELS_PER_STROKE))
    letters = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)[0]
    half = np.array(letters) / 2 + height * _PADDING
    middle = _free_place(hand.points, joints, half, canvas.shape[1::-1])
    low, high = (np.rint(middle + sign * half).astype(int).tolist() for sign in (-1, 1))
    cv2.rectangle(canvas, low, high, paper, -1)
    cv2.rectangle(canvas, low, high, ink, thick)
    at = np.rint(middle + np.array(letters) * (-0.5, 0.5)).astype(int).tolist()
    cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thick, cv2.LINE_AA)
    return np.array([low, middle, high])


def _free_place(
    points: np.ndarray, joints: np.ndarray, half: np.ndarray, size: Sequence[int]
) -> np.ndarray:
    """The middle of a box of these half sides in the picture that covers the fewest joints.

    It lies beyond the wrist as seen from the knuckles, or else turned from there.
    """
    wrist = points[WRIST]
    away = wrist - points[_KNUCKLES].mean(axis=0)
    away = away / max(float(np.linalg.norm(away)), 1e-9)
    limit = np.maximum(np.array(size) - half, half)
    places = []
    for turn in _TURNS:
        cosine, sine = math.cos(turn), math.sin(turn)
        way = np.array([[cosine, -sine], [sine, cosine]]) @ away
        reach = half.min() + float(np.min(half / np.maximum(np.abs(way), 1e-9)))
        places.append(np.clip(wrist + reach * way, half, limit))
    return min(places, key=lambda place: int((np.abs(joints - place) < half).all(axis=1).sum()))
