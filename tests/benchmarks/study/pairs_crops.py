"""The same crops with keypoints of several kinds, and their true hands, for `pairs.py`.

crop     found in the crop
frame    found in the frame
truth    the true ones
turned   found in the crop, turned upright
right    found in the crop, mirrored where the crop shows a left hand
mended   found in the crop, mirrored as the tracks of extract say
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from handclr_cli.contract.fields import (
    IMAGE,
    INFO,
    KEYPOINTS_2D,
    KEYPOINTS_3D,
    WORLD_3D,
    encode_array,
    encode_image,
    encode_object,
)
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.inputs import expand_inputs
from handclr_cli.contract.provenance import provenance
from handclr_cli.contract.sample import Sample
from handclr_cli.contract.shards import ShardOutput, read_samples
from handclr_cli.hand.joints import MIDDLE_MCP, WRIST
from handclr_cli.hand.square import Box, to_crop, to_source
from handclr_cli.similarity.truth import MIRROR, Truth

# The side that all crops are brought to, as extract makes them.
CROP_SIDE = 224


class Hand(NamedTuple):
    """A true hand as the camera sees it: whether it is a left one, its keypoints (21, 2) in pixels
    of the frame, (21, 3) in metres.
    """

    left: bool
    points: np.ndarray
    joints: np.ndarray


class Crops(NamedTuple):
    """What is known of N crops: `row` by key, `video` numbers, true hands (N, 21, 3) in metres, (N,
    21, 2) in sides.

    `apart` (N,): the mean distance of the keypoints found in the frame from those found in the
    crop, in sides, or NaN. `mirrored` (N,) of each kind: where it shows the hand the other way
    round.
    """

    row: dict[bytes, int]
    video: np.ndarray
    joints: np.ndarray
    points: np.ndarray
    apart: np.ndarray
    mirrored: dict[str, np.ndarray]

    def seen_as(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """The true hands as a kind shows them: in metres, and in sides."""
        other = self.mirrored[kind][:, None, None]
        points = np.where(other, self.points * MIRROR[:2] + (1, 0), self.points)
        return np.where(other, self.joints * MIRROR, self.joints), points


class Others(NamedTuple):
    """The shards beside the crops, and where the mended ones have a square of a frame."""

    frames: ShardIndex | None
    mended: ShardIndex | None
    mended_row: dict[tuple[str, int, Box], int]


def write_sets(arguments: argparse.Namespace) -> dict[str, int]:
    """Write the same crops with each kind of keypoints, and the true hands, to RUN/KIND.tar; gives
    counts.
    """
    counted, counts = arguments.run / "sets.json", Counter(crops=0, without_truth=0)
    kinds = ("crop", "truth", "turned", "right")
    kinds += ("frame",) * bool(arguments.frame) + ("mended",) * bool(arguments.mended)
    if counted.exists() and all((arguments.run / f"{kind}.tar").exists() for kind in kinds):
        return json.loads(counted.read_text())
    others = read_others(arguments)
    truth = Truth(ShardIndex(expand_inputs([arguments.truth])), arguments.truth)
    record = provenance("study", {}, [])
    with contextlib.ExitStack() as stack:
        outputs = {}
        for kind in kinds:
            output = ShardOutput(str(arguments.run / f"{kind}.tar"), record)
            outputs[kind] = stack.enter_context(output)
        for sample in read_samples(expand_inputs([arguments.hands])):
            hand = true_hand(sample, truth)
            counts["without_truth" if hand is None else "crops"] += 1
            for kind, version in versions(sample, hand, others) if hand else ():
                outputs[kind].write(version)
    counted.write_text(json.dumps(counts))
    return counts


def read_others(arguments: argparse.Namespace) -> Others:
    frames, mended = (
        ShardIndex(expand_inputs([name])) if name else None
        for name in (arguments.frame, arguments.mended)
    )
    return Others(
        frames, mended, {square_of(sample): row for row, sample in enumerate(mended or ())}
    )


def square_of(sample: Sample) -> tuple[str, int, Box]:
    """Video, frame and square of a crop, whichever side it is taken for."""
    info = sample.info
    return info["video"], info["frame"], tuple(info["box"])


def versions(sample: Sample, hand: Hand, others: Others) -> Iterator[tuple[str, Sample]]:
    """A crop with each kind of keypoints."""
    (points, joints), found, world = seen(hand, sample), scaled(sample), world_of(sample)
    yield "crop", lean(sample, found, joints, world)
    yield "truth", lean(sample, points, joints)
    yield "turned", lean(sample, upright(found), joints)
    if sample.info["flipped"] != hand.left:
        found, joints = found * MIRROR[:2] + (CROP_SIDE, 0), joints * MIRROR
        world = None if world is None else world * MIRROR
    yield "right", lean(sample, found, joints, world, flipped=hand.left)
    if others.frames is not None:
        other = others.frames[others.frames.row(sample.key)]
        assert square_of(other) == square_of(sample), f"--frame: {sample.key} is another crop"
        joints = seen(hand, other)[1]
        yield "frame", lean(sample, scaled(other), joints, world_of(other))
    row = others.mended_row.get(square_of(sample))
    if others.mended is not None and row is not None:
        other = others.mended[row]
        version = lean(other, scaled(other), seen(hand, other)[1], world_of(other))
        version.key = sample.key
        yield "mended", version


def true_hand(crop: Sample, truth: Truth) -> Hand | None:
    """The hand that a crop shows."""
    found = truth.nearest(crop)
    if found is None:
        return None
    sample = truth.sample(found)
    points = to_source(sample.keypoints2d, found.box, sample.side, found.flipped)
    joints = sample.keypoints3d * MIRROR if found.flipped else sample.keypoints3d
    return Hand(found.flipped, points, joints)


def seen(hand: Hand, crop: Sample) -> tuple[np.ndarray, np.ndarray]:
    """A hand's keypoints in a crop of CROP_SIDE, and in metres, mirrored where the crop
    is.
    """
    flipped = crop.info["flipped"]
    points = to_crop(hand.points, tuple(crop.info["box"]), CROP_SIDE, flipped)
    return points, hand.joints * MIRROR if flipped else hand.joints


def scaled(sample: Sample) -> np.ndarray:
    """The keypoints found, in a crop of CROP_SIDE."""
    return sample.keypoints2d * (CROP_SIDE / sample.side)


def upright(points: np.ndarray) -> np.ndarray:
    """Keypoints (21, 2) from the wrist, turned so that the middle knuckle is straight above it."""
    rooted = np.asarray(points - points[WRIST], np.float64)
    x, y = rooted[MIDDLE_MCP] / max(float(np.linalg.norm(rooted[MIDDLE_MCP])), 1e-6)
    return rooted @ np.array([[-y, -x], [x, -y]])


def world_of(sample: Sample) -> np.ndarray | None:
    return sample.world3d if WORLD_3D in sample else None


def lean(
    sample: Sample,
    points: np.ndarray,
    joints: np.ndarray,
    world: np.ndarray | None = None,
    **changed: object,
) -> Sample:
    """A sample with a blank image, by which `pca` knows the side of the crop."""
    members = {
        IMAGE.suffix: blank(),
        INFO.suffix: encode_object(sample.info | changed),
        KEYPOINTS_2D.suffix: encode_array(KEYPOINTS_2D, points),
        KEYPOINTS_3D.suffix: encode_array(KEYPOINTS_3D, joints),
    }
    if world is not None:
        members[WORLD_3D.suffix] = encode_array(WORLD_3D, world)
    return Sample(sample.key, members)


@functools.cache
def blank() -> bytes:
    """A black crop of CROP_SIDE, encoded."""
    return encode_image(np.zeros((CROP_SIDE, CROP_SIDE, 3), np.uint8))


def read_crops(run: Path) -> Crops:
    """What `write_sets` wrote."""
    samples = list(read_samples([str(run / "truth.tar")]))
    _, video = np.unique([sample.video for sample in samples], return_inverse=True)
    row = {sample.key.encode(): number for number, sample in enumerate(samples)}
    apart = np.full(len(samples), np.nan)
    if (run / "frame.tar").exists():
        offsets = _points(run / "frame.tar") - _points(run / "crop.tar")
        apart = np.linalg.norm(offsets, axis=2).mean(axis=1)
    joints = np.stack([sample.keypoints3d for sample in samples])
    flipped = [sample.info["flipped"] for sample in samples]
    mirrored = {}
    for shard in run.glob("*.tar"):
        mirrored[shard.stem] = np.zeros(len(samples), bool)
        for sample in read_samples([str(shard)]):
            number = row[sample.key.encode()]
            mirrored[shard.stem][number] = sample.info["flipped"] != flipped[number]
    return Crops(row, video, joints, _points(run / "truth.tar"), apart, mirrored)


def _points(shard: Path) -> np.ndarray:
    return np.stack([sample.keypoints2d for sample in read_samples([str(shard)])]) / CROP_SIDE
