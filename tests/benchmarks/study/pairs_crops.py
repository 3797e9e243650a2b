"""The same crops with keypoints of several kinds, and their true hands, for `pairs.py`."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from handclr_cli.contract.fields import (
    IMAGE,
    INFO,
    KEYPOINTS_2D,
    KEYPOINTS_3D,
    encode_array,
    encode_image,
)
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.inputs import expand_inputs
from handclr_cli.contract.provenance import provenance
from handclr_cli.contract.sample import Sample
from handclr_cli.contract.shards import ShardOutput, read_samples
from handclr_cli.hand.joints import MIDDLE_MCP, WRIST
from handclr_cli.hand.square import Box, box_overlap, to_crop, to_source

# The side that all crops are brought to, as extract makes them.
CROP_SIDE = 224
LEAST_OVERLAP = 0.3
MIRROR = np.array([-1, 1, 1])


class Hand(NamedTuple):
    """A true hand as the camera sees it: its square and keypoints (21, 2) in pixels of the frame,
    (21, 3) in metres.
    """

    box: Box
    points: np.ndarray
    joints: np.ndarray


class Crops(NamedTuple):
    """What is known of N crops: `row` by key, `video` numbers, true hands (N, 21, 3) in metres, (N,
    21, 2) in sides.

    `apart` (N,): the mean distance of the keypoints found in the frame from those found in the
    crop, in sides, or NaN.
    """

    row: dict[bytes, int]
    video: np.ndarray
    joints: np.ndarray
    points: np.ndarray
    apart: np.ndarray


def write_sets(arguments: argparse.Namespace) -> dict[str, int]:
    """Write the same crops with each kind of keypoints, and the true hands, to RUN/KIND.tar; gives
    counts.
    """
    counted, counts = arguments.run / "sets.json", Counter(crops=0, without_truth=0)
    if counted.exists() and (not arguments.frame or (arguments.run / "frame.tar").exists()):
        return json.loads(counted.read_text())
    frames = ShardIndex(expand_inputs([arguments.frame])) if arguments.frame else None
    kinds = ("crop", "truth", "turned") + ("frame",) * bool(frames)
    truth, record = true_hands(arguments.truth), provenance("study", {}, [])
    with contextlib.ExitStack() as stack:
        outputs = {}
        for kind in kinds:
            output = ShardOutput(str(arguments.run / f"{kind}.tar"), record)
            outputs[kind] = stack.enter_context(output)
        for sample in read_samples(expand_inputs([arguments.hands])):
            place = sample.info["video"], sample.info["frame"]
            hand = nearest_hand(tuple(sample.info["box"]), truth[place])
            counts["without_truth" if hand is None else "crops"] += 1
            if hand is None:
                continue
            points, joints = seen(hand, sample)
            kept = {"crop": scaled(sample), "truth": points, "turned": upright(scaled(sample))}
            if frames is not None:
                other = frames[frames.row(sample.key)]
                same = other.info["box"] == sample.info["box"]
                assert same, f"--frame: {sample.key} is another crop"
                kept["frame"] = scaled(other)
            for kind, output in outputs.items():
                output.write(lean(sample, kept[kind], joints))
    counted.write_text(json.dumps(counts))
    return counts


def true_hands(shards: str) -> dict[tuple[str, int], list[Hand]]:
    """The hands of each frame of each video."""
    hands = defaultdict(list)
    for sample in read_samples(expand_inputs([shards])):
        box, flipped = tuple(sample.info["box"]), sample.info["flipped"]
        joints = sample.keypoints3d * MIRROR if flipped else sample.keypoints3d
        hand = Hand(box, to_source(sample.keypoints2d, box, sample.side, flipped), joints)
        hands[sample.info["video"], sample.info["frame"]].append(hand)
    return hands


def nearest_hand(box: Box, hands: list[Hand]) -> Hand | None:
    """The hand whose square overlaps a crop's most, by intersection over union."""
    best = max(hands, key=lambda hand: box_overlap(box, hand.box), default=None)
    return best if best and box_overlap(box, best.box) >= LEAST_OVERLAP else None


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


def lean(sample: Sample, points: np.ndarray, joints: np.ndarray) -> Sample:
    """A sample with a blank image, by which `pca` knows the side of the crop."""
    members = {
        IMAGE.suffix: blank(),
        INFO.suffix: sample.members[INFO.suffix],
        KEYPOINTS_2D.suffix: encode_array(KEYPOINTS_2D, points),
    }
    return Sample(sample.key, {**members, KEYPOINTS_3D.suffix: encode_array(KEYPOINTS_3D, joints)})


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
    return Crops(row, video, joints, _points(run / "truth.tar"), apart)


def _points(shard: Path) -> np.ndarray:
    return np.stack([sample.keypoints2d for sample in read_samples([str(shard)])]) / CROP_SIDE
