"""Where the crops of a prediction come from: shards, or footage in which the hands are found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .. import console
from ..contract.errors import UsageError
from ..contract.index import ShardIndex
from ..contract.inputs import STDIN, expand_inputs
from ..contract.provenance import Provenance
from ..work.skips import Skips
from .estimators import Estimate, Estimator
from .inputs import are_footage
from .settings import PredictSettings

if TYPE_CHECKING:
    from ..footage.frames import Footage, Sampling


class Filmed(NamedTuple):
    """The footage of hands by the names of their videos, and which of its frames are looked at."""

    footage: Mapping[str, Footage]
    sampling: Sampling


class Pace(NamedTuple):
    """How footage was worked through: videos, frames, seconds and processes."""

    videos: int
    frames: int
    seconds: float
    processes: int


class Source(Protocol):
    """Where crops come from.

    `piped`: what it holds is known only when all of it was read. `files` are those that are read,
    `arguments` and `checksums` what it adds to the provenance of the predictions.
    """

    piped: bool
    files: Sequence[str]
    arguments: Mapping[str, Any]
    checksums: Mapping[str, str]

    def estimates(self, estimator: Estimator, fov: float) -> Iterator[Estimate]:
        """Predict the crops, in order; what cannot be used is named and counted."""
        ...

    def filmed(self, named: Sequence[str]) -> Filmed:
        """Find the footage of the crops, of shards in `named` if that is not empty."""
        ...

    def was_read(self, video: str) -> bool:
        """Whether some of a video could be read."""
        ...

    @property
    def origins(self) -> Sequence[Provenance]:
        """The provenances of the crops."""
        ...

    @property
    def skipped(self) -> int:
        """How many inputs could not be used so far."""
        ...

    @property
    def pace(self) -> Pace | None:
        """Of footage: how fast it was worked through."""
        ...


def source_of(settings: PredictSettings, sees_crops: bool) -> Source:
    """The source of the inputs; `sees_crops`: the crops of footage need pictures.

    Raises UsageError where there is nothing to read, or a setting does not fit it.
    """
    if are_footage(settings.inputs):
        return FootageSource(settings, sees_crops)
    settings.refuse_for_shards()
    return ShardSource(settings)


class ShardSource:
    """Crops of shards, which are read when they are first asked for."""

    def __init__(self, settings: PredictSettings) -> None:
        self.files: Sequence[str] = expand_inputs(settings.inputs)
        self.piped = STDIN in self.files
        self.arguments: Mapping[str, Any] = {}
        self.checksums: Mapping[str, str] = {}
        self.pace: Pace | None = None
        self._skips = Skips(settings.strict)

    @cached_property
    def index(self) -> ShardIndex:
        """The crops by row."""
        return ShardIndex(self.files)

    @property
    def origins(self) -> Sequence[Provenance]:
        """As `Source`."""
        return self.index.origins

    @property
    def skipped(self) -> int:
        """As `Source`."""
        return self._skips.count

    def estimates(self, estimator: Estimator, fov: float) -> Iterator[Estimate]:
        """As `Source`."""
        parts = estimator.of_shards(self.index, fov, self._skips.add)
        with console.progress("predict", len(self.index), "crops") as advance:
            for part in _noted(parts, self._skips):
                advance(len(part.crops))
                yield part

    def filmed(self, named: Sequence[str]) -> Filmed:
        """As `Source`."""
        from ..footage.sources import sampling_of
        from .films import footage_of

        return Filmed(footage_of(self.index, named), sampling_of(self.index.origins))

    def was_read(self, video: str) -> bool:
        """As `Source`."""
        return True


class FootageSource:
    """Crops of the hands in footage."""

    piped = False
    origins: Sequence[Provenance] = ()

    def __init__(self, settings: PredictSettings, sees_crops: bool) -> None:
        from ..footage.extraction import CropSettings, Extraction
        from ..footage.finding import find_footage
        from ..footage.frames import Sampling
        from ..footage.model_file import checksums, model_file
        from .footage_crops import FootageCrops

        how = settings.of_footage()
        self.arguments: Mapping[str, Any] = how
        footage = find_footage(settings.inputs, console.warn)
        model = model_file(settings.landmarker, console.say)
        self.checksums: Mapping[str, str] = checksums(model)
        self.files: Sequence[str] = [str(file) for each in footage for file in each.files]
        # Cut as extract cuts them by default.
        crops = CropSettings(min_score=how["min_score"], keypoints=True, pictures=sees_crops)
        self._side = crops.size
        work = Extraction(crops, model, max_hands=how["max_hands"], look=how["look"])
        sampling = Sampling(how["fps"] or Sampling.fps, how["every"])
        self._crops = FootageCrops(footage, sampling, work, settings.strict)
        self._skips, self._workers = Skips(settings.strict), settings.workers

    @property
    def skipped(self) -> int:
        """As `Source`."""
        return self._crops.skipped + self._skips.count

    @property
    def pace(self) -> Pace:
        """As `Source`."""
        crops = self._crops
        return Pace(len(crops.read), crops.counts["frames"], crops.seconds, crops.processes)

    def estimates(self, estimator: Estimator, fov: float) -> Iterator[Estimate]:
        """As `Source`."""
        samples = self._crops.samples(self._workers)
        parts = estimator.of_samples(samples, self._side, fov, self._skips.add)
        return _noted(parts, self._skips)

    def filmed(self, named: Sequence[str]) -> Filmed:
        """As `Source`."""
        if named:
            why = "is where the footage of crops is; films of footage show that itself"
            raise UsageError(why, setting="footage")
        return Filmed({each.name: each for each in self._crops.footage}, self._crops.sampling)

    def was_read(self, video: str) -> bool:
        """As `Source`."""
        return video in self._crops.read


def _noted(parts: Iterator[Estimate], skips: Skips) -> Iterator[Estimate]:
    """Yield estimates; what is left out beside them is named, and an error where that is all."""
    for part in parts:
        skips.used()
        yield part
    skips.check()
