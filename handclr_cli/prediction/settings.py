"""The settings of `handclr predict`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..choices import MEDIAPIPE, LookName, TableFormat
from ..contract.errors import UsageError
from ..contract.settings import Settings
from ..contract.shipped import SHIPPED

# What means something for footage only, and what that is by default.
_OF_FOOTAGE = {"fps": None, "every": None, "max_hands": 2, "look": "tiles"}


@dataclass(frozen=True, kw_only=True)
class PredictSettings(Settings):
    """What `run_predict` predicts with, and how.

    Raises UsageError where two of them contradict each other.
    """

    recorded: ClassVar = ("fov", "bone")

    inputs: Sequence[str]
    """Footage, as `run_extract` takes it, or sources of crops: tar files, URLs, or - for standard
    input."""
    model: str = SHIPPED
    """handclr for the model that comes with it, mediapipe for the landmarker's own world landmarks,
    or the model.pt of a fine-tuning."""
    alone: bool = False
    """Predict from the crops alone where a guided model is told what the landmarker found."""
    output: str | None = "-"
    """The table to write, CSV, JSON lines or NPZ; - is standard output, None writes none."""
    form: TableFormat | None = None
    """The format of the table; None: by the suffix of `output`, NPZ for a stream."""
    smooth: bool = False
    """Filter each track over time."""
    fov: float = 60.0
    """Angle of view in degrees across the longer side, where there are no intrinsics."""
    bone: float | None = None
    """Wrist to middle knuckle of the hands in mm; None: as the model has it."""
    overlay: str | None = None
    """The MP4 to draw the hands on the footage in; of several videos, a folder or {video}.mp4."""
    page: str | None = None
    """The HTML page to show film and hands in; of several videos, a folder or {video}.html."""
    footage: Sequence[str] = ()
    """Where the footage of crops is, if not where extract read it."""
    fps: float | None = None
    """Frames of footage to look at per second; None: all."""
    every: int | None = None
    """Look at every N-th frame or image of footage instead."""
    max_hands: int | None = None
    """Hands to find in a frame of footage at most; None: 2."""
    look: LookName | None = None
    """Where hands are looked for in footage, as for `run_extract`."""
    min_score: float = 0.5
    """Least confidence of a hand, 0 to 1, where hands are looked for."""
    landmarker: str | None = None
    """MediaPipe's hand_landmarker.task; None is the cached file, which is fetched once."""
    onnx: str | None = None
    """The ONNX file to export the model to, checked on some of the crops."""
    batch: int = 128
    """Crops in a batch."""
    workers: int | None = None
    """Processes that find hands or decode crops, 0: this one; None: one for each core."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    strict: bool = False
    """Fail at the first input that cannot be used."""

    def __post_init__(self) -> None:
        if self.fps and self.every:
            why = "counts frames, and the frames per second count time; leave out one of the two"
            raise UsageError(why, setting="every")
        if self.alone and self.model == MEDIAPIPE:
            why = "leaves out the landmarks, and MediaPipe's own 3D are nothing else"
            raise UsageError(why, setting="alone")
        if self.footage and not (self.overlay or self.page):
            raise UsageError("is what films and pages show; name one of these", setting="footage")

    def arguments(self) -> dict[str, Any]:
        """The recorded fields; that tracks are filtered, crops seen alone, or hands looked for less
        or more surely than by default, is one where so.
        """
        told: dict[str, Any] = {"smooth": self.smooth or None, "alone": self.alone or None}
        if self.min_score != type(self).min_score:
            told["min_score"] = self.min_score
        return {**super().arguments(), **told}

    def of_footage(self) -> dict[str, Any]:
        """How hands are found in footage, as plain types; every frame is looked at by default."""
        found = {}
        for name, default in _OF_FOOTAGE.items():
            given = getattr(self, name)
            found[name] = default if given is None else given
        if not (self.fps or self.every):
            found["every"] = 1
        return {**found, "min_score": self.min_score}

    def refuse_for_shards(self) -> None:
        """Raise UsageError where a setting is for footage, and the inputs are shards."""
        for name in _OF_FOOTAGE:
            if getattr(self, name) is not None:
                why = "is for footage; in shards the hands are found already"
                raise UsageError(why, setting=name)
