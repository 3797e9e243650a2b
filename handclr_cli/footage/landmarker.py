"""MediaPipe's HandLandmarker: the only place that imports mediapipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..contract.errors import HandclrError
from ..hand.joints import WRIST
from ..work.pulse import beat
from .frames import Hand

# A film is looked at whole and with a border.
_SHAPES = 2


class Landmarker:
    """Finds hands in single images; the result never depends on the images before.

    MediaPipe's Tasks label is that of the person's own hand in an unmirrored picture (checked on
    real right hands: 98 of 98 are "Right"), so a mirrored left hand is a "right" one.
    """

    def __init__(self, model: Path, max_hands: int = 2, min_score: float = 0.5) -> None:
        try:
            from mediapipe import Image, ImageFormat
            from mediapipe.tasks.python import BaseOptions, vision
        except ImportError as error:
            why = f"MediaPipe, which finds the hands, cannot be imported ({error})"
            raise HandclrError(f"{why}; pip install mediapipe") from error
        base = BaseOptions(model_asset_path=str(model), delegate=BaseOptions.Delegate.CPU)
        options = vision.HandLandmarkerOptions(
            base_options=base,
            running_mode=vision.RunningMode.IMAGE,
            num_hands=max_hands,
            min_hand_detection_confidence=min_score,
            min_hand_presence_confidence=min_score,
        )
        # Kept from frame to frame: new memory for each would take a twentieth of the time.
        self._squares: dict[tuple[int, ...], np.ndarray] = {}
        self._wrap = lambda pixels: Image(image_format=ImageFormat.SRGB, data=pixels)
        try:
            self._detector = vision.HandLandmarker.create_from_options(options)
        except Exception as error:  # MediaPipe has several for a file that it cannot read
            # Its own words go on for pages.
            reason = " ".join(str(error).split())[:200]
            why = f"{model}: MediaPipe cannot load this landmarker; it is damaged, or of another"
            raise HandclrError(f"{why} version ({reason})") from error

    def __enter__(self) -> Landmarker:
        return self

    def __exit__(self, *exception: object) -> None:
        self._detector.close()

    def find(self, image: np.ndarray) -> list[Hand]:
        """Find the hands in a uint8 (H, W, 3) RGB image, the most confident first.

        The image is padded to a square first: MediaPipe's own mapping of landmarks is exact for
        squares only.
        """
        beat()
        height, width = image.shape[:2]
        side = max(height, width)
        x, y = (side - width) // 2, (side - height) // 2
        if height != width:
            square = self._square_for(image.shape)
            square[y : y + height, x : x + width] = image
            image = square
        result = self._detector.detect(self._wrap(np.ascontiguousarray(image)))
        found = zip(
            result.hand_landmarks, result.hand_world_landmarks, result.handedness, strict=True
        )
        hands = []
        for landmarks, metres, sides in found:
            keypoints = np.array([(mark.x, mark.y) for mark in landmarks]) * side - (x, y)
            world = np.array([(mark.x, mark.y, mark.z) for mark in metres])
            label, score = sides[0].category_name.lower(), float(sides[0].score)
            hands.append(Hand(keypoints, label, score, world - world[WRIST]))
        return sorted(hands, key=lambda hand: -hand.score)

    def _square_for(self, shape: tuple[int, ...]) -> np.ndarray:
        """The square, black around what was there before, for images of a shape."""
        if shape not in self._squares:
            if len(self._squares) == _SHAPES:
                self._squares.pop(next(iter(self._squares)))
            side = max(shape)
            self._squares[shape] = np.zeros((side, side, 3), np.uint8)
        return self._squares[shape]
