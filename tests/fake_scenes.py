"""A scene without a renderer: joints whose place in the world and in each camera is known."""

from __future__ import annotations

import numpy as np

from handclr_cli.synth.layouts import FRAMES
from handclr_cli.synth.shot import HandTruth, Shot

# The camera that looks away from the hands.
AWAY = 7
DOT = 3.0


class FakeScene:
    """Two clouds of joints before a rig of cameras; a red dot where the first hand's wrist is.

    With two hands the rig moves, camera 1 sees the left one only and camera 2 sees neither.
    """

    people = 3
    restless = False

    def __init__(self, index: int, size: tuple[int, int], sides: tuple[str, ...]) -> None:
        self.index, self.size, self.sides = index, size, sides
        self.subject = index % self.people

    def world(self, time: int, side: str) -> np.ndarray:
        assert 0 <= time < FRAMES
        rng = np.random.default_rng([self.index, time, side == "left"])
        return rng.normal(0, 0.03, (21, 3)) + [-0.1 if side == "left" else 0.1, 0, 0]

    def pose(self, time: int, camera: int) -> np.ndarray:
        two = len(self.sides) == 2
        turn = 0.2 * camera - 0.5 + 0.05 * self.index + (0.01 * time if two or self.restless else 0)
        target = [0.1 if self.sides[0] == "right" else -0.1, 0, 0]
        if two:
            target = {1: [-0.33, 0, 0], 2: [3, 0, 0]}.get(camera, [0, 0, 0])
        rotation = np.array(
            [[np.cos(turn), 0, -np.sin(turn)], [0, 1, 0], [np.sin(turn), 0, np.cos(turn)]]
        )
        shift = [9, 0, 0.9] if camera == AWAY else [0, 0, 0.9]
        return np.column_stack([rotation, shift - rotation @ target])

    def shoot(self, time: int, camera: int = 0, backdrop: int = 0) -> Shot:
        width, height = self.size
        pose = self.pose(time, camera)
        matrix = np.array(
            [[1.5 * width + camera, 0, width / 2 + 0.3], [0, 1.5 * width, height / 2], [0, 0, 1]]
        )
        hands = tuple(
            HandTruth(side, self.world(time, side) @ pose[:, :3].T + pose[:, 3])
            for side in self.sides
        )
        x, y = project(hands[0].keypoints3d, matrix)[0]
        away = (np.arange(width) + 0.5 - x) ** 2 + (np.arange(height)[:, None] + 0.5 - y) ** 2
        image = np.full((height, width, 3), 20 + 30 * backdrop, np.uint8)
        image[..., 0] = np.maximum(image[..., 0], 250 * np.exp(-away / (2 * DOT**2)))
        segmentation = np.zeros((height, width), np.uint8)
        segmentation[:20, :20] = 255 if "right" in self.sides else 254
        segmentation[20:40, :20] = 1
        return Shot(image, matrix, pose, hands, segmentation)


def project(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return (points @ matrix.T)[:, :2] / points[:, 2:]
