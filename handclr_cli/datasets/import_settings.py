"""What `run_import` is called with: one class of settings for each data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..choices import AssemblyhandsSplit, DexycbSplit, FreihandSplit
from ..contract.errors import UsageError
from ..contract.numbering import SHARD_SIZE
from ..contract.settings import Settings


@dataclass(frozen=True, kw_only=True)
class ImportSettings(Settings):
    """What all imports share; a class for each data set adds what is its own."""

    recorded: ClassVar[tuple[str, ...]] = ("size", "margin", "quality")
    data_set: ClassVar[str] = ""

    root: str
    """The folder that holds the data set, or its frames."""
    output: str = "-"
    """Tar to write; numbered shards for a pattern such as train-%06d.tar; - is standard output."""
    size: int = 224
    """Side of the crops in pixels."""
    margin: float = 1.5
    """Side of the crop over the longer side of the hand."""
    quality: int = 95
    """JPEG quality of the crops, 1 to 100."""
    check: bool = False
    """Measure how the labels agree, finished shards included, and keep some crops to draw."""
    workers: int | None = None
    """Processes that decode images; where it is None, one for each core that has enough to do."""
    part: str | None = None
    """Part I of N as I/N, from 0; all where it is None."""
    shard_size: int = SHARD_SIZE
    """Items per numbered shard."""
    overwrite: bool = False
    """Replace numbered shards that were made otherwise."""
    strict: bool = False
    """Raise for the first item whose files are broken."""


@dataclass(frozen=True, kw_only=True)
class ImportFreihandSettings(ImportSettings):
    """An import of FreiHAND; `root` is FreiHAND_pub_v2, or the folder that holds it."""

    recorded: ClassVar[tuple[str, ...]] = ("split", *ImportSettings.recorded)
    data_set: ClassVar[str] = "freihand"

    split: FreihandSplit = "train"
    """The part of the data set."""


@dataclass(frozen=True, kw_only=True)
class ImportDexycbSettings(ImportSettings):
    """An import of DexYCB; `root` is the folder of the subjects and of calibration."""

    recorded: ClassVar[tuple[str, ...]] = ("split", *ImportSettings.recorded)
    data_set: ClassVar[str] = "dexycb"

    split: DexycbSplit = "s0-train"
    """The setup and its part, or all."""


@dataclass(frozen=True, kw_only=True)
class ImportAssemblyhandsSettings(ImportSettings):
    """An import of AssemblyHands v1-1; `root` is the folder of annotations and images."""

    recorded: ClassVar[tuple[str, ...]] = ("split", *ImportSettings.recorded)
    data_set: ClassVar[str] = "assemblyhands"

    split: AssemblyhandsSplit = "train"
    """The part of the data set."""


@dataclass(frozen=True, kw_only=True)
class ImportHand100mSettings(ImportSettings):
    """An import of Hand100M; `root` is the folder of its frames, VIDEO/frame_000030.jpg.

    Raises UsageError where pairs are asked of a part.
    """

    data_set: ClassVar[str] = "hand100m"

    annotations: str
    """The JSON file of annotations."""
    pairs: str | None = None
    """NPZ file to write the published pairs to."""

    def __post_init__(self) -> None:
        if self.pairs and self.part:
            raise UsageError(
                "the pairs are of all parts; leave it out, "
                "and run once more without a part when all parts are done",
                setting="pairs",
            )
