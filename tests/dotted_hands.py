"""Footage of hands that are dots, each joint of a colour of its own, and a model that finds them by
colour.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from drawn_hand import write_video

from handclr_cli.contract.provenance import provenance
from handclr_cli.contract.shards import ShardOutput
from handclr_cli.footage.extraction import CropSettings, crops, look_at
from handclr_cli.footage.finding import find_footage
from handclr_cli.footage.frames import Hand, Piece, Sampling
from handclr_cli.footage.video import read_frames
from handclr_cli.learning.posemodel import MeanPose, Poses

SIZE = (480, 640)
RADIUS = 7
HUES = np.linspace(0, 171, 21).round().astype(int)
COLOURS = cv2.cvtColor(np.array([[(hue, 255, 255) for hue in HUES]], np.uint8), cv2.COLOR_HSV2RGB)[
    0
]
FPS = 10.0


def dots(frame: int, side: str) -> np.ndarray:
    """Where the joints are, (21, 2) pixels: a left hand in the left half, a right one in the right;
    they move apart.
    """
    rng = np.random.default_rng(3 if side == "left" else 4)
    grid = np.array([(x, y) for y in range(3) for x in range(7)]) * (24.0, 30.0) + rng.uniform(
        -3, 3, (21, 2)
    )
    return grid + ((40 - 3 * frame, 260 + 2 * frame) if side == "left" else (380 + 3 * frame, 90))


def hands_on(frame: int) -> list[str]:
    """Which hands are seen: none on every fourth frame, and the left one alone on the next."""
    return [[], ["left"], ["left", "right"], ["right"]][frame % 4]


def picture(frame: int) -> np.ndarray:
    """A frame, uint8 RGB."""
    image = np.full((*SIZE, 3), 30, np.uint8)
    for side in hands_on(frame):
        for (x, y), colour in zip(dots(frame, side) - 0.5, COLOURS.tolist(), strict=True):
            cv2.circle(
                image, (round(x * 16), round(y * 16)), RADIUS * 16, colour, -1, cv2.LINE_AA, 4
            )
    return image


def write_dotted(folder: Path, frames: int, every: int = 2) -> tuple[Path, Path]:
    """Write a video of dots and the shard that extract makes of it; returns both paths."""
    video = write_video(
        folder / "dots.avi", [picture(frame) for frame in range(frames)], FPS, "MJPG"
    )
    shard = folder / "dots.tar"
    record = provenance("extract", {"fps": 1.0, "every": every}, [str(video)])
    (footage,) = find_footage([str(video)])
    settings = CropSettings()
    with ShardOutput(str(shard), record) as out:
        for frame in read_frames(footage, Sampling(every=every), _fail):
            hands = [Hand(dots(frame.number, side), side, 0.9) for side in hands_on(frame.number)]
            for sample in crops(Piece(footage), look_at(frame, hands, settings), settings):
                out.write(sample)
    return video, shard


class DotReader:
    """A stand-in for a PoseModel: reads the 2D of a dotted hand off the picture, and knows one 3D
    pose.
    """

    def __init__(self, pose: np.ndarray) -> None:
        self.size, self.network = 224, torch.nn.Linear(1, 1)
        self.mean = MeanPose(pose, 0.09)

    def __call__(self, crops: list[np.ndarray]) -> Poses:
        uv = np.stack([self._dots(crop) for crop in crops]) / self.size
        return Poses(np.repeat(self.mean.pose[None], len(crops), 0), uv.astype(np.float32))

    def _dots(self, crop: np.ndarray) -> np.ndarray:
        hue, saturation, value = cv2.split(cv2.cvtColor(crop, cv2.COLOR_RGB2HSV))
        found = []
        for wanted in HUES:
            apart = np.abs((hue.astype(int) - wanted + 90) % 180 - 90)
            rows, columns = np.nonzero((apart < 4) & (saturation > 150) & (value > 150))
            found.append((columns.mean() + 0.5, rows.mean() + 0.5))
        return np.array(found)


def _fail(error: Exception) -> None:
    raise error
