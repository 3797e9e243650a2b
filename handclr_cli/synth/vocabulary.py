"""What hands do: key poses by name, and the simple objects that fit into those that grasp.

The rows were fitted to the capsules of the average build: nothing runs through anything, what ought
to touch touches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .skeleton import Build, average_build

# Degrees: thumb, index, middle, ring, pinky as (flexion, abduction, flexion2, flexion3).
_ROWS = {
    "open": ((-4, 2, 0, 2), (2, 0, 6, 3), (2, 0, 6, 3), (2, 0, 6, 3), (2, 0, 6, 3)),
    "five-spread": (
        (-12, 14, -6, -6),
        (-6, 10, 0, 0),
        (-6, 2, 0, 0),
        (-6, -7, 0, 0),
        (-4, -12, 0, 0),
    ),
    "together": ((10, -22, 0, 0), (2, -8, 3, 2), (2, 0, 3, 2), (2, 8, 3, 2), (4, 15, 3, 2)),
    "wave": ((2, 4, 4, 6), (12, 4, 14, 8), (8, 0, 12, 6), (10, -4, 14, 8), (16, -8, 18, 10)),
    "split": ((8, -4, 4, 4), (0, 10, 2, 2), (0, 8, 2, 2), (0, -8, 2, 2), (0, -10, 2, 2)),
    "relaxed": (
        (16, -6, 14, 14),
        (22, -2, 30, 15),
        (28, 0, 34, 18),
        (32, 2, 36, 20),
        (34, 6, 34, 20),
    ),
    "cupped": (
        (28, -8, 8, 8),
        (32, -6, 28, 14),
        (34, 0, 30, 16),
        (36, 6, 30, 16),
        (42, 12, 28, 14),
    ),
    "claw": ((20, 14, 18, 40), (8, 6, 66, 40), (8, 1, 68, 42), (8, -5, 68, 42), (8, -8, 66, 40)),
    "hook-fist": (
        (6, -14, 10, 10),
        (2, 0, 98, 60),
        (2, 0, 100, 62),
        (2, 0, 100, 62),
        (4, 4, 98, 60),
    ),
    "tabletop": ((14, -20, 4, 4), (80, -4, 6, 3), (81, 0, 6, 3), (83, 4, 6, 3), (80, 10, 6, 3)),
    "typing": (
        (20, -6, 10, 12),
        (20, 0, 42, 22),
        (22, 0, 46, 24),
        (24, 0, 44, 24),
        (22, 0, 40, 22),
    ),
    "mouse": ((18, 2, 12, 12), (18, 2, 30, 14), (16, 0, 34, 16), (26, -2, 44, 24), (30, 0, 44, 24)),
    "fist": (
        (25, -1, 39, 53),
        (87, -2, 100, 60),
        (85, -2, 100, 62),
        (86, 2, 100, 61),
        (82, 4, 95, 58),
    ),
    "tight-fist": (
        (40, 1, 35, 49),
        (85, -3, 101, 65),
        (85, -2, 105, 66),
        (85, 2, 100, 65),
        (82, 3, 95, 63),
    ),
    "thumb-beside": (
        (18, -15, 12, 12),
        (87, -2, 100, 60),
        (85, -2, 101, 62),
        (86, 2, 100, 61),
        (82, 3, 95, 58),
    ),
    "thumbs-up": (
        (-4, 16, -6, -14),
        (87, -3, 100, 60),
        (85, -2, 101, 62),
        (86, 2, 100, 61),
        (82, 3, 95, 58),
    ),
    "point": ((39, -1, 36, 39), (2, 0, 4, 2), (85, -3, 102, 62), (86, 1, 99, 61), (82, 2, 95, 58)),
    "gun": ((-6, 2, -4, -6), (2, 0, 4, 2), (85, -3, 102, 62), (86, 1, 99, 61), (82, 2, 95, 58)),
    "gun-two": ((-6, 2, -4, -6), (4, -6, 4, 2), (4, 0, 4, 2), (86, 0, 100, 62), (82, 2, 95, 58)),
    "victory": ((39, 2, 40, 42), (0, 8, 4, 2), (0, -6, 4, 2), (86, 0, 100, 62), (82, 2, 95, 58)),
    "two-together": (
        (39, 2, 40, 42),
        (4, -8, 4, 2),
        (4, 0, 4, 2),
        (86, 0, 100, 62),
        (82, 2, 95, 58),
    ),
    "three": ((48, -3, 44, 39), (0, 6, 4, 2), (0, 0, 4, 2), (0, -4, 4, 2), (82, 2, 95, 58)),
    "three-thumb": (
        (-8, 6, -4, -4),
        (0, 6, 4, 2),
        (0, -4, 4, 2),
        (86, 0, 100, 62),
        (82, 2, 95, 58),
    ),
    "four": ((48, -12, 48, 42), (0, 8, 4, 2), (0, 0, 4, 2), (0, -6, 4, 2), (0, -8, 4, 2)),
    "rock": ((43, 2, 38, 40), (0, 4, 4, 2), (85, -3, 102, 62), (86, 2, 99, 61), (0, -6, 4, 2)),
    "love": ((-10, 8, -4, -6), (0, 4, 4, 2), (85, -3, 102, 62), (86, 2, 99, 61), (0, -6, 4, 2)),
    "shaka": (
        (-12, 8, -6, -8),
        (87, -2, 100, 60),
        (85, -2, 101, 62),
        (86, 3, 100, 61),
        (-2, -8, 2, 0),
    ),
    "pinky-up": (
        (43, 2, 38, 40),
        (87, -2, 100, 60),
        (85, -2, 102, 62),
        (86, 3, 100, 61),
        (2, -4, 6, 2),
    ),
    "middle-down": (
        (42, 3, 37, 39),
        (4, 2, 12, 6),
        (86, 0, 96, 58),
        (10, 0, 14, 6),
        (12, -2, 14, 6),
    ),
    "ok": ((32, -7, 8, 17), (49, -7, 39, 24), (8, 0, 12, 7), (10, -3, 14, 8), (12, -6, 14, 8)),
    "pinch": ((32, -7, 8, 17), (49, -7, 39, 24), (60, 0, 66, 40), (68, 0, 76, 46), (72, 2, 78, 46)),
    "tip-middle": (
        (43, 2, 18, 16),
        (8, 4, 10, 6),
        (54, -5, 46, 27),
        (26, 0, 32, 19),
        (28, 0, 32, 19),
    ),
    "tip-ring": ((55, 4, 22, 20), (8, 4, 10, 6), (8, 0, 12, 7), (50, -3, 49, 29), (28, 0, 32, 19)),
    "tip-pinky": (
        (58, -12, 24, 21),
        (8, 4, 10, 6),
        (8, 0, 12, 7),
        (14, -2, 18, 11),
        (41, 4, 47, 28),
    ),
    "tripod": (
        (35, 5, 20, 26),
        (54, -7, 41, 24),
        (55, -4, 47, 28),
        (68, 0, 76, 46),
        (72, 2, 78, 46),
    ),
    "beak": (
        (50, -7, 9, 11),
        (64, -12, 26, 14),
        (61, -1, 32, 19),
        (62, 6, 30, 16),
        (63, 16, 19, 8),
    ),
    "hold-rod": (
        (6, -4, 55, 63),
        (52, 1, 78, 41),
        (70, -5, 77, 46),
        (67, 1, 73, 43),
        (53, 1, 65, 36),
    ),
    "hold-bottle": (
        (32, 14, 32, 25),
        (47, 1, 59, 33),
        (62, -3, 57, 35),
        (59, 0, 54, 33),
        (46, -1, 47, 27),
    ),
    "hold-can": (
        (51, 22, 3, 43),
        (35, 1, 45, 27),
        (49, 0, 44, 27),
        (48, 0, 39, 25),
        (36, 0, 35, 20),
    ),
    "hold-tool": (
        (15, -4, 2, 14),
        (34, 2, 73, 41),
        (64, -6, 71, 42),
        (67, 1, 64, 39),
        (60, 2, 54, 30),
    ),
    "hold-handle": (
        (5, -8, 12, 10),
        (10, -3, 72, 42),
        (25, 4, 86, 48),
        (27, 2, 83, 47),
        (13, -1, 69, 39),
    ),
    "hold-golf-ball": (
        (39, 8, 16, 24),
        (49, 4, 49, 29),
        (52, 0, 51, 31),
        (50, -3, 52, 31),
        (40, 0, 54, 33),
    ),
    "hold-ball": (
        (37, 10, 12, 21),
        (47, 0, 39, 22),
        (41, 0, 46, 28),
        (37, -5, 42, 26),
        (39, -6, 32, 17),
    ),
    "hold-orange": (
        (30, 17, 6, 15),
        (36, 4, 30, 17),
        (31, -1, 35, 22),
        (28, -6, 32, 20),
        (30, -9, 24, 13),
    ),
    "hold-pen": (
        (26, -3, 16, 22),
        (43, 0, 50, 28),
        (61, 0, 57, 35),
        (62, 0, 59, 36),
        (62, 0, 60, 36),
    ),
    "hold-key": (
        (20, -26, 12, 21),
        (26, 3, 58, 33),
        (48, -1, 63, 38),
        (58, 0, 68, 41),
        (62, 0, 70, 42),
    ),
    "hold-card": (
        (43, 4, 11, 8),
        (57, 0, 43, 25),
        (38, 0, 44, 27),
        (42, 0, 45, 27),
        (46, 0, 45, 27),
    ),
    "hold-book": (
        (39, 12, 7, 8),
        (47, 0, 41, 24),
        (50, 0, 43, 26),
        (52, 0, 41, 24),
        (55, 0, 40, 23),
    ),
}
# Name -> 22 angles in degrees, in the order of skeleton.ANGLES; the wrist is straight.
VOCABULARY = {name: np.array([*np.ravel(rows), 0.0, 0.0]) for name, rows in _ROWS.items()}


@dataclass(frozen=True)
class HeldObject:
    """A rigid object in the hand frame.

    `kind` "sphere", "cylinder", "pen" or "box"; `size` (3,) metres, its extents along its own x, y
    and z; `centre` (3,) metres; `axis` (3,), the unit vector of its y: the length of a cylinder,
    pen or box; `side` (3,), the unit vector of its x.
    """

    kind: str
    size: np.ndarray
    centre: np.ndarray
    axis: np.ndarray
    side: np.ndarray

    @property
    def frame(self) -> np.ndarray:
        """The rigid frame (4, 4), object to hand."""
        frame = np.eye(4)
        frame[:3, :3] = np.stack([self.side, self.axis, np.cross(self.side, self.axis)], axis=1)
        frame[:3, 3] = self.centre
        return frame


def _object(
    kind: str, size: tuple, centre: tuple, axis: tuple = (0, 1, 0), side: tuple = (0, 0, 1)
) -> HeldObject:
    y = np.array(axis) / np.linalg.norm(axis)
    x = np.array(side) - y * (y @ np.array(side))
    return HeldObject(
        kind, np.array(size) / 1000, np.array(centre) / 1000, y, x / np.linalg.norm(x)
    )


# Millimetres.
_HELD = {
    "hold-rod": _object("cylinder", (28, 130, 28), (4.8, 77.9, -31.4), (0.98, -0.21, -0.01)),
    "hold-bottle": _object("cylinder", (45, 150, 45), (4.5, 75.5, -39.1), (0.98, -0.20, -0.03)),
    "hold-can": _object("cylinder", (66, 122, 66), (5.1, 77.2, -49.5), (0.98, -0.21, -0.04)),
    "hold-tool": _object("cylinder", (34, 200, 34), (-40.6, 96.6, -32.6), (0.91, -0.41, -0.02)),
    "hold-handle": _object("cylinder", (26, 130, 26), (4.8, 100.2, -27.6), (0.95, -0.30, -0.01)),
    "hold-golf-ball": _object("sphere", (42, 42, 42), (-4.9, 83.3, -52.0)),
    "hold-ball": _object("sphere", (72, 72, 72), (4.6, 83.5, -48.5)),
    "hold-orange": _object("sphere", (98, 98, 98), (3.9, 86.3, -61.5)),
    "hold-pen": _object("pen", (9.5, 140, 9.5), (-33.0, 91.4, -21.5), (-0.36, -0.12, 0.92)),
    "hold-key": _object(
        "box", (22, 55, 3.5), (-38.7, 121.3, -52.2), (-0.14, 0.73, -0.67), (0.08, 0.70, 0.75)
    ),
    "hold-card": _object(
        "box", (54, 86, 1.2), (-22.1, 117.1, -97.1), (0.13, 0.75, -0.66), (1, -0.22, 0)
    ),
    "hold-book": _object(
        "box", (120, 170, 24), (-3.9, 127.8, -126.6), (-0.23, 0.70, -0.75), (1, -0.27, -0.06)
    ),
}
GRASPS = tuple(_HELD)


def held_object(name: str, build: Build | None = None) -> HeldObject | None:
    """The object that a vocabulary pose holds, or None where it holds nothing.

    It touches the average build; for another `build` it grows with the hand.
    """
    held = _HELD.get(name)
    if held is None or build is None:
        return held
    scale = _reach(build) / _reach(average_build())
    return replace(held, size=held.size * scale, centre=held.centre * scale)


def _reach(build: Build) -> float:
    """From the wrist to the middle finger's tip, metres."""
    return float(np.linalg.norm(build.bases[2]) + build.lengths[2].sum())
