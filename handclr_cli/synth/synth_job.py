"""The jobs of `handclr synth`: footage, labelled crops, and folders laid out as known data sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from .. import console
from ..choices import LayoutName, WorldName
from ..contract.errors import UsageError
from ..contract.numbering import SHARD_SIZE, is_numbered
from ..contract.provenance import provenance
from ..contract.settings import Settings
from ..contract.units import Units, even_parts, one_part
from ..work import cores
from ..work.crew import in_order
from .layouts import LAYOUTS
from .production import Crops, Portraits, Videos, scene_maker

# With fewer, starting another process takes longer than it saves.
_CROPS_PER_WORKER = 8


@dataclass(frozen=True, kw_only=True)
class SynthFootageSettings(Settings):
    """What `run_synth_footage` films, and how it cuts the crops of the truth."""

    recorded: ClassVar = ("frames", "fps", "world", "width", "height", "size", "margin", "quality")

    folder: Path
    """Folder for the videos, made if missing; their truth goes to its subfolder `truth`."""
    videos: int = 50
    """Number of videos to make."""
    frames: int = 60
    """Frames of each video."""
    fps: float = 12.0
    """Frames per second."""
    world: WorldName = "wild"
    """lab: a studio with few people; wild: many people, surroundings and cameras; any: wild, from
    every side and distance, with more objects."""
    width: int = 480
    """Width of the video in pixels, even."""
    height: int = 360
    """Height of the video in pixels, even."""
    size: int = 224
    """Side of the crops in pixels."""
    margin: float = 1.5
    """Side of a crop over the longer side of the hand."""
    quality: int = 95
    """JPEG quality of the crops, 1 to 100."""
    workers: int | None = None
    """Processes that render; None: one for each core."""
    seed: int = 0
    """Seed; the same seed gives the same videos, however many are made."""


class SynthFootageResult(NamedTuple):
    """What `run_synth_footage` did.

    The numbers of videos made, of hands in them, and of videos that were done before.
    """

    videos: int
    hands: int
    there: int


def run_synth_footage(settings: SynthFootageSettings) -> SynthFootageResult:
    """Render videos of hands with the 2D and 3D truth of every frame; keep those that are done.

    Raises UsageError where a side of the video is odd, or a video was made with other settings;
    HandclrError where its truth is damaged.

    >>> from pathlib import Path
    >>> import handclr_cli as handclr
    >>> short = {"videos": 1, "frames": 2, "width": 64, "height": 48}
    >>> settings = handclr.SynthFootageSettings(folder=Path("footage"), **short, workers=0)
    >>> handclr.run_synth_footage(settings).videos
    1
    """
    for side in ("width", "height"):
        if getattr(settings, side) % 2:
            raise UsageError("the video's format needs even sides", setting=side)
    videos = Videos(
        folder=settings.folder,
        world=settings.world,
        seed=settings.seed,
        frames=settings.frames,
        fps=settings.fps,
        size=(settings.width, settings.height),
        crops=Crops(settings.size, settings.margin, settings.quality),
        record=provenance("synth footage", settings.arguments(), seed=settings.seed),
    )
    (settings.folder / "truth").mkdir(parents=True, exist_ok=True)
    todo = [index for index in range(settings.videos) if not videos.done(index)]
    workers, hands = min(cores.worker_count(settings.workers), len(todo)), 0
    with console.progress("synth footage", len(todo), "videos") as advance:
        for made in in_order(videos.make, todo, workers):
            hands += made
            advance(1, hands=hands)
    return SynthFootageResult(len(todo), hands, settings.videos - len(todo))


@dataclass(frozen=True, kw_only=True)
class SynthLabelledSettings(Settings):
    """What `run_synth_labelled` makes: crops of single hands, right and left by turns."""

    recorded: ClassVar = ("count", "world", "size", "margin", "quality")

    output: str = "-"
    """Tar file to write; crops-%06d.tar: numbered shards; -: standard output."""
    count: int = 1000
    """Number of crops to make."""
    first: int = 0
    """Number of the first of them; a set may be made in parts."""
    world: WorldName = "lab"
    """lab: a studio with few people; wild: many people, surroundings and cameras; any: wild, from
    every side and distance, with more objects."""
    size: int = 224
    """Side of the crops in pixels."""
    margin: float = 1.5
    """Side of a crop over the longer side of the hand."""
    quality: int = 95
    """JPEG quality of the crops, 1 to 100."""
    workers: int | None = None
    """Processes that render; None: one for each core."""
    shard_size: int = SHARD_SIZE
    """Samples in each numbered shard."""
    overwrite: bool = False
    """Replace numbered shards that were made with other settings."""
    seed: int = 0
    """Seed; the same seed gives the same crops, however many are made."""

    def arguments(self) -> dict[str, Any]:
        """The recorded fields; the number of the first crop is one where it is not 0."""
        return {**super().arguments(), "first": self.first or None}


def run_synth_labelled(settings: SynthLabelledSettings) -> int:
    """Write the labelled crops that are not in numbered shards already; return their number.

    Raises UsageError where numbered shards were made otherwise and are not to be replaced.

    >>> import handclr_cli as handclr
    >>> settings = handclr.SynthLabelledSettings(output="labelled.tar", count=2, workers=1)
    >>> handclr.run_synth_labelled(settings)
    2
    """
    count, output = settings.count, settings.output
    record = provenance("synth labelled", settings.arguments(), seed=settings.seed)
    parts = even_parts(count, settings.shard_size) if is_numbered(output) else one_part(count)
    units = Units(output, record, parts, settings.overwrite)
    missing = units.missing()
    total = sum(len(unit.rows) for unit in missing)
    numbers = (settings.first + row for unit in missing for row in unit.rows)
    crops = Crops(settings.size, settings.margin, settings.quality)
    portraits = Portraits(settings.world, settings.seed, crops)
    useful = max(1, total // _CROPS_PER_WORKER)
    made = in_order(portraits.make, numbers, min(cores.worker_count(settings.workers), useful))
    with console.progress("synth labelled", total, "crops") as advance:
        for unit in missing:
            with units.write(unit) as writer:
                for _, sample in zip(unit.rows, made, strict=False):
                    writer.write(sample)
                    advance()
    return total


@dataclass(frozen=True, kw_only=True)
class SynthLayoutSettings(Settings):
    """What `run_synth_layout` makes: a folder laid out like a downloaded data set."""

    folder: Path
    """Folder to make; it may exist if it is empty."""
    layout: LayoutName
    """Data set whose file names and formats are used."""
    count: int = 1000
    """Approximate number of images; for freihand the number of poses, of four images each."""
    world: WorldName = "lab"
    """lab: a studio with few people; wild: many people, surroundings and cameras; any: wild, from
    every side and distance, with more objects."""
    seed: int = 0
    """Seed; the same seed gives the same images."""


def run_synth_layout(settings: SynthLayoutSettings) -> int:
    """Write a labelled set in the layout of a known data set; return the number of images.

    Raises UsageError where the folder is not empty.

    >>> from pathlib import Path
    >>> import handclr_cli as handclr
    >>> settings = handclr.SynthLayoutSettings(folder=Path("set"), layout="freihand", count=1)
    >>> handclr.run_synth_layout(settings)
    5
    """
    make_scene = scene_maker(settings.world, settings.seed)
    with console.progress("synth labelled", None, "images") as advance:
        return LAYOUTS[settings.layout](settings.folder, make_scene, settings.count, advance)
