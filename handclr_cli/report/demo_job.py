"""The job of `handclr demo`: run its stages one after another, then write a page about them."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .. import console
from ..contract.settings import Settings
from ..work.stages import Book, Stage, command_line, plan_of, run_stage
from .artefacts import Artefacts, ModelArtefacts, StageRun

PAGE = "report.html"


def _read_plan() -> dict[str, Any]:
    text = Path(__file__).with_name("demo_plan.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


_PLAN = _read_plan()
STAGES = tuple(
    Stage(name=stage["name"], line=stage["line"], makes=tuple(stage["makes"]))
    for stage in _PLAN["stages"]
)
SCALE: dict[str, Any] = _PLAN["scale"]
QUICK: dict[str, Any] = _PLAN["quick"]


@dataclass(frozen=True, kw_only=True)
class DemoSettings(Settings):
    """Where `run_demo` works, and at what scale."""

    folder: Path
    """A new folder, or the folder of a demo to continue."""
    quick: bool = False
    """The smallest scale that runs all stages; its numbers mean nothing."""
    extra: Sequence[str] = ()
    """Words added to each command that is run, such as the one that makes it quiet."""


class DemoResult(NamedTuple):
    """What `run_demo` did: the page it wrote, its stages, and how many were finished before."""

    page: Path
    stages: list[StageRun]
    before: int


def run_demo(settings: DemoSettings) -> DemoResult:
    """Run the stages that are not finished yet, then write the page about all of them.

    Raises UsageError where the folder holds something else than a demo, HandclrError where a stage
    fails: what is finished is kept.

    >>> from pathlib import Path
    >>> import handclr_cli as handclr
    >>> settings = handclr.DemoSettings(folder=Path("demo"), quick=True)
    >>> handclr.run_demo(settings).page  # doctest: +SKIP
    PosixPath('demo/report.html')
    """
    home = Path(settings.folder)
    book = Book(home)
    plan = plan_of(STAGES, QUICK if settings.quick else SCALE)
    waiting = book.waiting(plan)
    runs = []
    for number, (stage, line) in enumerate(plan, 1):
        title, typed = f"[{number}/{len(plan)}] {stage.name}", command_line(line, home)
        console.say("")
        if stage in waiting:
            console.say(title)
            console.say(typed, whole=True)
            run_stage(book, stage, line, settings.extra)
        else:
            console.say(f"{title}: finished before, in {book.seconds(stage):.0f} s")
        runs.append(StageRun(stage.name, typed, book.seconds(stage)))
    # Only now: it loads libraries that would take memory from the stages.
    from .demo_page import write_report

    write_report(home / PAGE, artefacts(home), runs)
    return DemoResult(home / PAGE, runs, len(plan) - len(waiting))


def artefacts(home: Path) -> Artefacts:
    """What the page shows, under the names that the stages give."""
    return Artefacts(
        hands=home / "hands.tar",
        truth=home / "footage" / "truth",
        pose=home / "pose.npz",
        pairs=home / "pairs.npz",
        pairs_report=home / "pairs.json",
        pretraining=home / "pretrain",
        train=home / "train.tar",
        test=home / "test.tar",
        models=(
            _model(home, "pretrained", "with pre-training"),
            _model(home, "scratch", "from scratch"),
        ),
    )


def _model(home: Path, name: str, label: str) -> ModelArtefacts:
    return ModelArtefacts(label, home / name, home / f"{name}.npz", home / f"{name}.json")
