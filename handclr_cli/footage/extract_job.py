"""The job of `handclr extract`: the hands in footage to shards of crops."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from .. import console
from ..choices import LookName
from ..contract import numbering
from ..contract.errors import UsageError
from ..contract.inputs import STDIN
from ..contract.numbering import is_numbered, shards_of
from ..contract.provenance import Provenance, file_checksum, provenance
from ..contract.sample import Sample
from ..contract.settings import Settings
from ..contract.units import INPUTS, TOTAL, Unit, Units, write_nothing
from ..work import cores
from ..work.crew import Crew
from .crop_shards import LOST, CropShards
from .detections import boxes_of, read_detections
from .extraction import (
    FRAMES_PER_PROCESS,
    FRAMES_PER_WORKER,
    CropSettings,
    Extraction,
    Skipped,
)
from .finding import find_footage
from .frames import Footage, FootageDetections, Piece, Sampling
from .model_file import checksums, model_file
from .plan import pieces_of, units_of


@dataclass(frozen=True, kw_only=True)
class ExtractSettings(Settings):
    """What `run_extract` reads, how it crops, and where the shards go.

    Raises UsageError where two of them contradict each other.
    """

    recorded: ClassVar = (
        *("fps", "every", "size", "margin", "min_score", "max_hands", "balance", "with_keypoints"),
        *("quality", "look", "tracks"),
    )

    footage: Sequence[str]
    """Videos, images, folders of them, searched in depth, or wildcards."""
    output: str = "-"
    """A tar, a pattern of numbered shards (crops-%06d.tar), or - for standard output."""
    fps: float | None = None
    """Frames to look at per second of video; None is 1."""
    every: int | None = None
    """Look at every N-th frame or image instead."""
    size: int = 224
    """Side of the crops in pixels."""
    margin: float = 1.5
    """Side of the crop over the longer side of the hand."""
    min_score: float = 0.5
    """Least confidence of a hand, 0 to 1."""
    max_hands: int = 2
    """Hands to find in a frame at most."""
    balance: bool = False
    """Write as many left as right hands into a shard, drawn by `seed`."""
    with_keypoints: bool = False
    """Keep the keypoints found in the frame, mapped into the crop."""
    look: LookName = "tiles"
    """Where hands are looked for: once in a frame, or also with a border, and in squares."""
    tracks: bool = True
    """Join hands of neighbouring looks to tracks, each of one side."""
    detections: str | None = None
    """A file with the boxes of another detector; `read_detections` describes it."""
    quality: int = 95
    """JPEG quality of the crops, 1 to 100."""
    landmarker: str | None = None
    """MediaPipe's hand_landmarker.task; None is the cached file, which is fetched once."""
    workers: int | None = None
    """Processes that find hands; 0 is this one, None is chosen by the cores and the work."""
    part: str | None = None
    """Make part I of N, counted from 0, written as I/N."""
    skip_done: str | None = None
    """A pattern of shards that a later stage makes: units that have one there are left out."""
    dry_run: bool = False
    """Make nothing; the result names the shards that are missing."""
    shard_size: int = numbering.SHARD_SIZE
    """About how many frames are looked at for one numbered shard."""
    overwrite: bool = False
    """Replace numbered shards that were made otherwise."""
    strict: bool = False
    """Fail at the first input that cannot be used."""
    seed: int = 0
    """Same seed, same draw of `balance`."""

    def __post_init__(self) -> None:
        if not self.footage:
            raise UsageError("no footage: name videos, images, or folders of them")
        lacking = "needs numbered shards, such as crops-%06d.tar; in a pipe, name those at its end"
        if self.part and not self.in_units:
            raise UsageError(lacking, setting="part")
        if self.dry_run and not self.numbered:
            raise UsageError(lacking, setting="dry_run")
        if self.skip_done and self.output != STDIN:
            why = "is for standard output; numbered shards that are there are left out anyway"
            raise UsageError(why, setting="skip_done")
        self._check_sampling()
        if self.detections == STDIN and self.in_units:
            why = "the shards record what they were made of; write the boxes to a file"
            raise UsageError(why, setting="detections")

    def _check_sampling(self) -> None:
        for name in ("fps", "every", "with_keypoints") if self.detections else ():
            if getattr(self, name):
                why = "the detections say which frames to look at, and have no keypoints"
                raise UsageError(f"{why}; leave out one of the two", setting=name)
        if self.fps and self.every:
            why = "counts frames, and the frames per second count time; leave out one of the two"
            raise UsageError(why, setting="every")

    @property
    def numbered(self) -> bool:
        """Whether the shards that come of this job are numbered, here or at the end of a pipe."""
        return is_numbered(self.output) or bool(self.skip_done)

    @property
    def in_units(self) -> bool:
        """Whether the footage is cut into units, each a tar that says which one it is."""
        return self.numbered or (self.output == STDIN and bool(self.part))

    @property
    def sampling(self) -> Sampling:
        """Which frames are looked at."""
        return Sampling(self.fps or Sampling.fps, self.every)

    def arguments(self) -> dict[str, Any]:
        """The recorded fields; the frame rate is the one that is sampled with."""
        return {**super().arguments(), "fps": self.sampling.fps}


class ExtractResult(NamedTuple):
    """What `run_extract` did, and what the earlier runs did that made the other shards of its part.

    `counts` of "videos", "frames", "left" and "right" crops, "no hand" (frames without one), and by
    reason of the inputs that were skipped. `shards` are all of the part, `there` those made before,
    `lost` those that lack footage because a worker process ended. A dry run counts nothing;
    `missing` are the shards that it would make.
    """

    counts: Counter[str]
    shards: int
    there: int
    lost: list[str]
    missing: list[str]

    @property
    def skipped(self) -> int:
        """How many inputs were skipped."""
        return sum(count for reason, count in self.counts.items() if reason not in INPUTS)


def run_extract(settings: ExtractSettings) -> ExtractResult:
    """Find hands in footage and write their crops, all as right hands (paper, Sec. 3.1).

    Raises UsageError for footage or older shards that do not fit; HandclrError where none of the
    footage can be read or, with `strict`, for the first input that cannot.

    >>> import handclr_cli as handclr
    >>> settings = handclr.ExtractSettings(footage=["kitchen.mp4"], output="crops.tar", fps=5)
    >>> handclr.run_extract(settings).skipped  # doctest: +SKIP
    0
    """
    record = provenance("extract", settings.arguments(), settings.footage, seed=settings.seed)
    source = _open_source(settings, record)
    with Crew(source.work, settings.workers or 0, FRAMES_PER_PROCESS) as crew:
        if not settings.dry_run and not _begun(settings):
            # So many as are asked for get ready while the footage is opened. A job that goes on
            # may have nothing left to do.
            crew.hire(len(source.footage))
        pieces = pieces_of(source.footage, settings.sampling, source.boxes)
        parts = units_of(pieces, settings.shard_size if settings.in_units else None)
        units = Units(settings.output, record, parts, settings.overwrite, settings.skip_done)
        mine = numbering.part_of(settings.part, len(units.units))
        chosen, todo = units.units[mine], units.missing(mine)
        if settings.dry_run:
            there = len(chosen) - len(todo)
            return ExtractResult(Counter(), len(chosen), there, [], _names(todo, settings))
        made = _make(settings, units, todo, pieces, crew)
        if settings.output == STDIN and not todo:
            write_nothing(record)
    return _result(settings, units, chosen, made)


class _Source(NamedTuple):
    """The footage of a job, the boxes that are known in it, and what is done with each piece."""

    footage: list[Footage]
    boxes: Mapping[str, FootageDetections] | None
    work: Extraction


def _open_source(settings: ExtractSettings, record: Provenance) -> _Source:
    """Find the footage, and its boxes or the landmarker's model, whose checksums `record` gets."""
    footage = find_footage(settings.footage, console.warn)
    boxes: Mapping[str, FootageDetections] | None = None
    model: Path | None = None
    if settings.detections:
        found = read_detections(settings.detections)
        boxes = boxes_of(found, footage, console.warn, settings.min_score)
        footage = [each for each in footage if each.id in boxes]
        piped = settings.detections == STDIN
        record["detections"] = {} if piped else file_checksum(settings.detections)
    else:
        model = model_file(settings.landmarker, console.say)
        record["model"] = checksums(model)
    crops = CropSettings(
        size=settings.size,
        margin=settings.margin,
        min_score=settings.min_score,
        quality=settings.quality,
        keypoints=settings.with_keypoints,
    )
    work = Extraction(
        crops, model, max_hands=settings.max_hands, look=settings.look, tracks=settings.tracks
    )
    return _Source(footage, boxes, work)


def _begun(settings: ExtractSettings) -> bool:
    """Whether some of the shards are there."""
    return settings.numbered and bool(shards_of(settings.skip_done or settings.output))


def _names(units: Sequence[Unit], settings: ExtractSettings) -> list[str]:
    """The shards that are there when units are finished."""
    if settings.skip_done:
        return [settings.skip_done % unit.number for unit in units]
    return [unit.path for unit in units]


def _make(
    settings: ExtractSettings,
    units: Units,
    todo: Sequence[Unit],
    pieces: Sequence[Piece],
    crew: Crew[Piece, list[Sample] | Skipped],
) -> CropShards:
    """Write the shards of the units that are to be made."""
    rows = itertools.chain.from_iterable(unit.rows for unit in todo)
    chosen = [pieces[row] for row in rows]
    frames = [piece.frames for piece in chosen]
    crew.workers = cores.finder_count(settings.workers, sum(frames), FRAMES_PER_WORKER)
    with console.progress("extract", sum(frames), "frames") as advance:
        shards = CropShards(
            units,
            crew.answers(chosen, frames),
            advance,
            draw=settings.seed if settings.balance else None,
            strict=settings.strict,
        )
        for unit in todo:
            shards.write(unit)
    return shards


def _result(
    settings: ExtractSettings, units: Units, chosen: Sequence[Unit], made: CropShards
) -> ExtractResult:
    counts, lost = Counter(made.counts), list(made.lost)
    there = [unit for unit in chosen if units.done(unit)]
    for unit in there:
        before = units.counts(unit)
        counts += before
        if before[LOST]:
            lost.append(unit)
    del counts[TOTAL]
    each = list({unit.number: unit for unit in lost}.values())
    names = _names(each, settings) if settings.numbered else []
    return ExtractResult(counts, len(chosen), len(there), names, [])
