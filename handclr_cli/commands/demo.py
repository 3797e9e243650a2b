"""$ handclr demo"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import console, options
from ..work.stages import Book, Stage, command_line, plan_of, run_stage

if TYPE_CHECKING:
    from ..report.artefacts import Artefacts

PAGE = "report.html"
# Planned for two cores without a GPU: under 5 minutes in all.
SCALE = {
    **{"videos": 16, "frames": 10, "train": 256, "test": 64, "size": 32},
    **{
        "pretrain_batch": 64,
        "pretrain_epochs": 8,
        "fraction": 1.0,
        "finetune_batch": 16,
        "finetune_epochs": 10,
    },
}
QUICK = {
    **{"videos": 4, "frames": 6, "train": 16, "test": 8, "size": 32},
    **{
        "pretrain_batch": 4,
        "pretrain_epochs": 1,
        "fraction": 0.5,
        "finetune_batch": 4,
        "finetune_epochs": 2,
    },
}
FINETUNE = (
    "--fraction {fraction} --size {size} --batch {finetune_batch} --epochs {finetune_epochs}"
    " --rotation 30"
)
STAGES = (
    Stage(
        "footage",
        "synth footage {dir}/footage --world wild --videos {videos} --frames {frames} --fps 5",
        makes=("footage/truth",),
    ),
    Stage(
        "training set",
        "synth labelled --world lab --count {train} --size 128 --seed 1 -o {dir}/train.tar",
        makes=("train.tar",),
    ),
    Stage(
        "test set",
        "synth labelled --world lab --count {test} --size 128 --seed 2 -o {dir}/test.tar",
        makes=("test.tar",),
    ),
    Stage(
        "hands",
        "extract {dir}/footage --fps 5 | keypoints -o {dir}/hands.tar",
        makes=("hands.tar",),
    ),
    Stage(
        "pose embedding",
        "pca {dir}/hands.tar --plot {dir}/variance.png -o {dir}/pose.npz",
        makes=("variance.png", "pose.npz"),
    ),
    Stage(
        "similar hands",
        "mine {dir}/pose.npz --shards {dir}/hands.tar --sheet {dir}/pairs.png "
        "--truth {dir}/footage/truth --report {dir}/pairs.json -o {dir}/pairs.npz",
        makes=("pairs.png", "pairs.json", "pairs.npz"),
    ),
    Stage(
        "pre-training",
        "pretrain {dir}/hands.tar --pairs {dir}/pairs.npz --arch resnet18 --size {size} --batch"
        " {pretrain_batch} --epochs {pretrain_epochs} --run {dir}/pretrain",
        makes=("pretrain/encoder.pt",),
    ),
    Stage(
        "fine-tuning, pre-trained",
        f"finetune {{dir}}/train.tar --encoder {{dir}}/pretrain/encoder.pt {FINETUNE} --run"
        " {dir}/pretrained",
        makes=("pretrained/model.pt",),
    ),
    Stage(
        "fine-tuning, from scratch",
        f"finetune {{dir}}/train.tar --encoder random --arch resnet18 {FINETUNE} --run"
        " {dir}/scratch",
        makes=("scratch/model.pt",),
    ),
    Stage(
        "evaluation, pre-trained",
        "evaluate {dir}/test.tar --model {dir}/pretrained/model.pt -o {dir}/pretrained.npz "
        "--plot {dir}/pretrained.png > {dir}/pretrained.json",
        makes=("pretrained.npz", "pretrained.png", "pretrained.json"),
    ),
    Stage(
        "evaluation, from scratch",
        "evaluate {dir}/test.tar --model {dir}/scratch/model.pt -o {dir}/scratch.npz "
        "--plot {dir}/scratch.png > {dir}/scratch.json",
        makes=("scratch.npz", "scratch.png", "scratch.json"),
    ),
)


def demo(
    folder: Annotated[
        str, typer.Argument(metavar="DIR", help="A new folder, or that of a demo to go on with.")
    ],
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="As little as goes through all stages; its numbers mean nothing."
        ),
    ] = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Run the whole pipeline on synthetic footage and show it on one page; print the path of
    report.html.

    handclr demo demo

    Each command is printed before it runs, for you to copy. It takes minutes on two cores without a
    GPU, and 1 GB. Run the same command again to go on after an interruption: what is finished is
    not done again.
    """
    home = Path(folder)
    book = Book(home)
    plan = plan_of(STAGES, QUICK if quick else SCALE)
    waiting = book.waiting(plan)
    for number, (stage, line) in enumerate(plan, 1):
        if stage in waiting:
            console.say(f"\n[{number}/{len(plan)}] {stage.name}\n{command_line(line, home)}")
            run_stage(book, stage, line, ["-q"] * quiet + ["--debug"] * debug)
        else:
            console.say(
                f"\n[{number}/{len(plan)}] {stage.name}: finished before, in"
                f" {book.seconds(stage):.0f} s"
            )
    from ..report.artefacts import StageRun
    from ..report.demo_page import write_report

    runs = [
        StageRun(stage.name, command_line(line, home), book.seconds(stage)) for stage, line in plan
    ]
    write_report(home / PAGE, artefacts(home), runs)
    console.say(
        f"\ndemo: {len(plan)} stages, {len(plan) - len(waiting)} of them finished before, "
        f"{sum(run.seconds for run in runs):.0f} s in all; open {home / PAGE}"
    )
    typer.echo(str(home / PAGE))


def artefacts(home: Path) -> Artefacts:
    """What the page shows, under the names that the stages give."""
    from ..report.artefacts import Artefacts, ModelArtefacts

    return Artefacts(
        hands=home / "hands.tar",
        truth=home / "footage" / "truth",
        pose=home / "pose.npz",
        pairs=home / "pairs.npz",
        pairs_report=home / "pairs.json",
        pretraining=home / "pretrain",
        train=home / "train.tar",
        test=home / "test.tar",
        models=tuple(
            ModelArtefacts(label, home / name, home / f"{name}.npz", home / f"{name}.json")
            for label, name in (("with pre-training", "pretrained"), ("from scratch", "scratch"))
        ),
    )
