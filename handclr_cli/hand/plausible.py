"""Whether labelled or predicted hands have the size of hands, and if not, in which unit they do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..contract.errors import HandclrError
from ..contract.fields import KEYPOINTS_2D
from ..contract.sample import Sample
from .joints import FINGERS, REFERENCE_BONE, WRIST

# In metres: from those of a small child to those that no hand reaches.
_MEDIAN_BONE = (0.005, 0.15)
_USUAL_BONE = 0.03
_LONGEST_BONE = 0.3
_SHORTEST_REFERENCE = 0.003
# In sides of the crop no keypoint is farther from its corner; in pixels every hand is wider.
_WIDEST_SHARE = 2.0
# What makes metres of the labels, and what is then wrong with them.
_UNITS = (
    (0.001, "1,000 times too long: are these millimetres?"),
    (0.01, "100 times too long: are these centimetres?"),
    (1000.0, "1,000 times too short"),
    (100.0, "100 times too short"),
)
_PARENTS = np.array([[WRIST, *finger[:-1]] for finger in FINGERS.values()]).ravel()
_JOINTS = np.array(list(FINGERS.values())).ravel()


def pixel_keypoints(sample: Sample) -> np.ndarray:
    """The 2D keypoints of a sample, float32 (21, 2), in pixels of its crop.

    Raises HandclrError where they are missing, damaged, or so near to each other that they must be
    shares of the crop's side.
    """
    points = sample.keypoints2d
    if np.abs(points).max() <= _WIDEST_SHARE < np.ptp(points) * sample.side:
        why = f"{KEYPOINTS_2D.suffix} is in shares of the side of the crop, not in pixels"
        raise HandclrError(f"{sample.source}: sample {sample.key}: {why}")
    return points


def bone_lengths(hands: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """The 20 bones of hands (N, 21, 3), float64 (N, 20) in their unit.

    NaN where one of the two joints is not `valid` (N, 21), or not finite.
    """
    hands = np.asarray(hands, np.float64)
    lengths = np.linalg.norm(hands[:, _JOINTS] - hands[:, _PARENTS], axis=-1)
    if valid is not None:
        lengths[~(valid[:, _JOINTS] & valid[:, _PARENTS])] = np.nan
    return lengths


def plausible(hands: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Which of hands (N, 21, 3) in metres have bones as hands do, bool (N,).

    The median bone has 5 to 150 mm, the longest at most 300, the reference bone at least 3; a
    joint that is not `valid` (N, 21), or not finite, says nothing.
    """
    bones = bone_lengths(hands, valid)
    start, end = (np.asarray(hands, np.float64)[:, joint] for joint in REFERENCE_BONE)
    reference = np.linalg.norm(end - start, axis=-1)
    typical = _median(bones)
    least, most = _MEDIAN_BONE
    fits = (least <= typical) & (typical <= most)
    return fits & ~(bones > _LONGEST_BONE).any(axis=1) & ~(reference < _SHORTEST_REFERENCE)


def require_hands(hands: np.ndarray, valid: np.ndarray, name: Callable[[int], str]) -> None:
    """Raise HandclrError where labels (N, 21, 3) are not in metres, or some are no hand's.

    `valid` (N, 21) says which joints count, and `name` how a row is called.
    """
    if wrong := wrong_unit(hands, valid):
        raise HandclrError(f"the labels are not in metres: {wrong}")
    odd = np.flatnonzero(np.logical_not(plausible(hands, valid)))
    if len(odd):
        which = f"{len(odd):,} of {len(hands):,} labelled samples have bones"
        raise HandclrError(
            f"{which} of lengths that no hand has, the first is {name(int(odd[0]))}; drop them"
        )


def wrong_unit(hands: np.ndarray, valid: np.ndarray | None = None) -> str:
    """What is wrong with the unit of hands (N, 21, 3) that are taken for metres, or "".

    Their typical bone is no hand's, and a factor of 100 or 1,000 makes it one.
    """
    typical = float(_median(_median(bone_lengths(hands, valid))[None, :])[0])
    least, most = _MEDIAN_BONE
    if least <= typical <= most:
        return ""
    if not 0 < typical < np.inf:
        return ""
    factor, words = min(_UNITS, key=lambda unit: abs(np.log(typical * unit[0] / _USUAL_BONE)))
    return (
        f"a typical bone has {typical:.3g} m, {words}" if least <= typical * factor <= most else ""
    )


def _median(values: np.ndarray) -> np.ndarray:
    """The median of the finite values of each row, NaN where there are none, float64 (N,)."""
    known = np.where(np.isfinite(values), values, np.nan)
    empty = np.asarray(np.isnan(known).all(axis=1))
    return np.where(empty, np.nan, np.nanmedian(np.where(empty[:, None], 0.0, known), axis=1))
