"""Pictures of hands whose true 2D keypoints are known, as footage for `handclr extract`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from footage_crops import Place

from handclr_cli.contract.shards import read_samples
from handclr_cli.datasets.dexycb import DexYCB
from handclr_cli.datasets.freihand import FreiHAND
from handclr_cli.datasets.labelled import LabelledHand, LabelledSet
from handclr_cli.footage.finding import find_footage
from handclr_cli.footage.frames import Sampling
from handclr_cli.footage.video import pieces
from handclr_cli.hand.camera import project
from handclr_cli.hand.square import Box, square_box, to_source

MARGIN = 1.5


@dataclass(frozen=True)
class TrueHand:
    """The side of a hand, its keypoints (21, 2), pixels of the frame, and (21, 3), metres."""

    side: str
    keypoints: np.ndarray
    joints: np.ndarray

    @property
    def box(self) -> Box:
        """The square that `extract` would cut if it knew."""
        return square_box(self.keypoints, MARGIN)


@dataclass(frozen=True)
class Truth:
    """What `extract` is to be given, and the hands of its frames."""

    name: str
    footage: list[str]
    hands: dict[Place, list[TrueHand]]


def of_freihand(root: Path) -> Truth:
    """Both splits of a FreiHAND."""
    return _of_images("FreiHAND", [FreiHAND(root, split) for split in ("train", "eval")])


def of_dexycb(root: Path) -> Truth:
    """All images of a DexYCB that are there and have labels."""
    return _of_images("DexYCB", [DexYCB(root, "all")])


def of_synthetic(root: Path) -> Truth:
    """Footage made by `handclr synth footage`."""
    hands = defaultdict(list)
    for sample in read_samples(map(str, sorted((root / "truth").glob("*.tar")))):
        info = sample.info
        points = to_source(sample.keypoints2d, tuple(info["box"]), sample.side, info["flipped"])
        joints = sample.keypoints3d * ((-1, 1, 1) if info["flipped"] else (1, 1, 1))
        hands[info["video"], info["frame"]].append(TrueHand(info["hand"], points, joints))
    return Truth("synthetic", [str(root)], dict(hands))


def _of_images(name: str, sets: Iterable[LabelledSet]) -> Truth:
    hands = {}
    for labelled in sets:
        for number in range(len(labelled)):
            item = labelled[number]
            if isinstance(item, LabelledHand):
                points = project(item.keypoints3d, item.intrinsics)
                hands[item.path] = TrueHand(item.side, points, item.keypoints3d)
    parents = {path.parent for path in hands}
    folders = [str(folder) for folder in sorted(parents)]
    by_place = {
        (footage.name, number): [hands[path]]
        for footage in find_footage(folders)
        for piece in pieces(footage, Sampling())
        for number, path in zip(piece.numbers, piece.footage.files, strict=True)
        if path in hands
    }
    return Truth(name, folders, by_place)
