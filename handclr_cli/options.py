"""The options and arguments that commands share, declared once."""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
from collections.abc import Sequence
from typing import Annotated

import typer

from . import choices, console
from .contract.claims import Reads, Word, Writes
from .contract.errors import HandclrError, UsageError
from .contract.inputs import STDIN, expand_inputs
from .contract.output import refuse_closed, refuse_terminal
from .contract.shipped import SHIPPED
from .contract.stores import is_store
from .parsing import read_config

# Marks of the options that name a model or an encoder.
MODEL = Reads(ends=(".pt",), words=(SHIPPED, choices.MEDIAPIPE))
ENCODER = Reads(ends=(".pt", ".pth"), words=("random", "imagenet", SHIPPED))
# The most threads or hands that torch, hnswlib and MediaPipe take a number for.
INT32 = 2**31 - 1
# Of hands that are small, dark or blurred; some of them will be no hands.
LOW_SCORE = 0.3


def _set_quiet(value: bool) -> bool:
    console.State.quiet = console.State.quiet or value
    return value


def _set_debug(value: bool) -> bool:
    console.State.debug = console.State.debug or value
    return value


Config = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        callback=read_config,
        is_eager=True,
        help=(
            "TOML with options as keys, or the config.json of a run; the command line overrides it."
        ),
        show_default=False,
    ),
    Reads(ends=(".toml", ".json")),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", callback=_set_quiet, help="Print warnings and errors only.")
]
Debug = Annotated[
    bool, typer.Option("--debug", callback=_set_debug, help="Show tracebacks and native logs.")
]
Seed = Annotated[
    int,
    typer.Option(
        min=0,
        max=2**64 - 1,
        help="Seed of all random choices; the same seed gives the same result.",
    ),
]

Shards = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SHARDS",
        help="Tar files, folders of them, globs, {000..041} ranges, URLs, or - for standard input.",
        show_default=False,
    ),
    Reads(".tar"),
]
OutputTar = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Tar to write; crops-%06d.tar writes numbered shards, - is standard output.",
    ),
    Writes("tar"),
]
OutputNpz = Annotated[
    str,
    typer.Option("--output", "-o", metavar="FILE", help="NPZ to write; - is standard output."),
    Writes("npz"),
]
ShardSize = Annotated[int, typer.Option(min=1, help="Samples per numbered shard.")]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="Replace numbered shards that were made with other options or inputs."
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Fail at the first input that cannot be used.")
]
Landmarker = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        envvar="HANDCLR_LANDMARKER",
        help="MediaPipe's hand_landmarker.task; downloaded once if it is not given.",
        show_default=False,
    ),
    Reads(ends=(".task",)),
]
Alone = Annotated[
    bool,
    typer.Option(
        "--alone",
        help="Predict from the crops alone; by default handclr's model also uses the landmarks "
        "that MediaPipe finds in them.",
    ),
]
CropSize = Annotated[int, typer.Option(min=16, max=4096, help="Side of the crops in pixels.")]
Margin = Annotated[
    float,
    typer.Option(
        min=1.0, max=10.0, help="Side of the crop divided by the longer side of the hand."
    ),
]
Quality = Annotated[int, typer.Option(min=1, max=100, help="JPEG quality of the crops.")]
Report = Annotated[
    str | None,
    typer.Option(
        metavar="JSON", help="Write the numbers of the summary, and more.", show_default=False
    ),
    Writes("json"),
]
Part = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        help="Do part I of N only, counted from 0; in a Slurm array "
        "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT.",
        show_default=False,
    ),
    Word(),
]
MinSideScore = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=1.0,
        help="Leave out crops with a lower side_score, which says how sure it is that the hand is "
        "left or right; crops without it are kept.",
    ),
]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda or cuda:N."), Word(("auto", "cpu", "cuda"))
]
Precision = Annotated[
    choices.PrecisionName,
    typer.Option(help="Precision of the forward passes; auto: bf16 on CUDA, else fp32."),
]
Arch = Annotated[choices.Arch, typer.Option(help="Depth of the ResNet.")]
Optimizer = Annotated[choices.OptimizerName, typer.Option(help="Optimizer of the weights.")]
Cache = Annotated[
    choices.Cache, typer.Option(help="Where decoded crops are kept; auto chooses by their size.")
]
Compile = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="Compile the model with torch.compile.",
        show_default="on CUDA",
    ),
]
TimeLimit = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help=(
            "Save and exit with 75 after this time, written as for sbatch: "
            "90 (minutes), 3:55:00, 1-12:00:00; 0: no limit."
        ),
        show_default=False,
    ),
    Word(),
]
Finders = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        help="Processes that find hands; 0: in this process.",
        show_default="the cores",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only print which shards are missing.")]
Workers = Annotated[
    int | None,
    typer.Option(min=0, help="Processes that decode images.", show_default="the cores, at most 16"),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=INT32,
        help="CPU threads that compute; a run that is resumed keeps those it began with.",
        show_default="the cores that are idle",
    ),
]

RunFolder = Annotated[
    str,
    typer.Option("--run", "-o", metavar="DIR", help="Run directory; created if it does not exist."),
    Writes(whole=True),
]
SaveEvery = Annotated[
    int,
    typer.Option(min=1, help="Steps between saves; ends of epochs too, at most every 10 s."),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Start anew where the run directory already holds a run.")
]


def sources(named: Sequence[str] | None, suffix: str = ".tar") -> list[str]:
    """What the inputs stand for, one by one; none and a pipe on standard input are `-`."""
    return expand_inputs(named or [], suffix)


def read_once(*names: str | None) -> None:
    """Raise UsageError where standard input is named twice."""
    if names.count(STDIN) > 1:
        raise UsageError("standard input (-) can be read only once")


def keep_stdout_for(what: str, **files: str | None) -> None:
    """Raise UsageError where a file, named by its setting, is to go to standard output too."""
    for setting, path in files.items():
        if path == STDIN:
            raise UsageError(f"standard output is for the {what}; name a file", setting=setting)


def prepare_output(output: str) -> None:
    """Refuse a terminal; let a closed pipe end this filter at once, as any Unix filter (141)."""
    if output == "-":
        refuse_terminal()
        end_with_pipe()


def prepare_files(*paths: str | None) -> None:
    """Raise before the work where there is no folder for an output."""
    named = [path for path in paths if path not in (None, "-") and not is_store(path)]
    files = [path for path in named if os.path.isfile(path) or not os.path.exists(path)]
    for path in files:
        if not os.path.isdir(os.path.dirname(os.path.realpath(path))):
            raise HandclrError(f"cannot write {path}: no such folder")


def need_stdout() -> None:
    """Refuse a closed standard output; let a closed pipe end this command at once (141)."""
    refuse_closed()
    end_with_pipe()


def end_with_pipe() -> None:
    """Let the system end this process when the reader of its standard output has gone."""
    with contextlib.suppress(AttributeError, ValueError):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def list_missing(stage: str, paths: Sequence[str], of: int) -> None:
    """Print the shards that a part of a job still lacks."""
    refuse_closed()
    for path in paths:
        typer.echo(path)
    console.say(f"{stage}: {len(paths):,} of {console.plural(of, 'shard')} missing")


def warn_of_no_hand(
    output: str, min_score: float, every: int | None = 1, look: choices.LookName = "tiles"
) -> None:
    """Warn that no hand was found, with the options that find more and are not set so already."""
    asked = "" if every == 1 else " --every 1"
    asked += "" if look == "tiles" else " --look tiles"
    asked += "" if min_score <= LOW_SCORE else f" --min-score {LOW_SCORE}"
    hint = f"; where there are hands, try{asked}" if asked else ""
    console.warn(f"no hand was found; the output holds no {output}{hint}")


def skipped_exit(skipped: int) -> None:
    """End with exit code 3 where inputs were skipped."""
    if skipped:
        raise typer.Exit(3)


def seconds_of(time: str | None) -> float:
    """Seconds of a time as Slurm writes it: minutes, m:s, h:m:s, d-h, d-h:m, d-h:m:s.

    Infinite where there is none, or one of zero, which Slurm takes for none.
    """
    if time is None:
        return math.inf
    match = re.fullmatch(r"(?:(\d{1,9})-)?(\d{1,9})(?::(\d{1,9}))?(?::(\d{1,9}))?", time)
    if not match:
        raise UsageError(
            f"--time-limit {time}: not a time such as 90 (minutes), 3:55:00 or 1-12:00:00"
        )
    days, first, second, third = (int(part or 0) for part in match.groups())
    if match[1] or match[4]:
        return 86400 * days + 3600 * first + 60 * second + third or math.inf
    return 60 * first + second or math.inf
