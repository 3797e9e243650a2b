"""Fine-tuning throughput beside its limit: images a second, in turn.

    python tests/benchmarks/finetuning.py --arch resnet18 --size 64 --batch 32 --rounds 3 --json finetuning.json

limit: the network of handclr with its head, placed, compiled and cast as there, on random images
that are on the device already; forward, the sum of the outputs, backward, step. Nothing that trains
this network so can be faster. handclr: the command itself, from labelled crops in shards, without
saves at the ends of epochs; crops that --cache keeps are there before the first step. Without
SHARDS, crops of 224 px with random labels are drawn.

Turns, warm-up and memory are as in pretraining.py, which this is run beside.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from argparse import Namespace
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pretraining
import torch
from pretraining import Turns, process, say, steps_of
from torch import Tensor

from handclr_cli import console
from handclr_cli.commands.finetune import finetune
from handclr_cli.contract import fields
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.inputs import expand_inputs
from handclr_cli.contract.provenance import provenance
from handclr_cli.contract.shards import ShardOutput
from handclr_cli.learning import loop, store
from handclr_cli.learning.encoder import build_encoder
from handclr_cli.learning.finetuning import PoseObjective
from handclr_cli.learning.hardware import pick_precision, place
from handclr_cli.learning.heads import HEADS
from handclr_cli.learning.optim import build_optimizer, parameter_groups
from handclr_cli.learning.pose import PoseNet
from handclr_cli.work.cores import worker_count

LIMIT, OURS = "finetune limit", "finetune"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shards", nargs="*", help="labelled crops; drawn where none are named")
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--head", choices=HEADS, default="detnet")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction)
    parser.add_argument("--cache", default="auto")
    parser.add_argument("--workers", type=int, default=worker_count(None))
    parser.add_argument("--warmup", type=int, help="steps; default: 3 more than lie ready")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--crops", type=int, default=1000, help="drawn")
    parser.add_argument("--json", type=Path, help="write all numbers")
    options = parser.parse_args()
    options.warmup = 2 * options.workers + 3 if options.warmup is None else options.warmup
    options.steps += -options.steps % max(1, options.workers)
    rates: dict[str, list[float]] = {LIMIT: [], OURS: []}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        options.folder, options.shards = (
            folder,
            expand_inputs(options.shards or [draw_labelled(folder, options)]),
        )
        turns = {name: stack.enter_context(process(name, options)) for name in rates}
        for number in range(options.rounds):
            for name, turn in turns.items():
                told = turn()
                rates[name].append(told["rate"] / 2)  # which counts two views to a pair
                say(
                    f"round {number + 1}: {name} {rates[name][-1]:,.0f} images/s"
                    f" {told.get('cache', '')}"
                )
    share = np.median(np.array(rates[OURS]) / np.array(rates[LIMIT]))
    limit, ours = (f"{np.median(rates[name]):,.0f}" for name in rates)
    print(
        f"{options.arch}, {options.head}, {options.size} px: {ours} of {limit} images/s,"
        f" {share:.3f} of the limit"
    )
    if options.json:
        options.json.write_text(
            json.dumps({"options": vars(options), "rates": rates}, indent=2, default=str) + "\n"
        )


def limit(turns: Turns, options: Namespace, device: torch.device) -> None:
    autocast = pick_precision(options.precision, device)
    model = place(
        PoseNet(build_encoder(options.arch), head=options.head), device, options.compile
    ).train()
    optimizer = build_optimizer("adamw", parameter_groups([model], 0.0), 1e-3)
    images = torch.randn(options.batch, 3, options.size, options.size, device=device)
    images = images.to(memory_format=torch.channels_last)
    while True:
        turns()
        with autocast():
            outputs = model(images)
        torch.stack([part.float().mean() for part in outputs]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def ours(turns: Turns, options: Namespace, device: torch.device) -> None:
    """The command, but for when steps begin, saves within, and when the crops to be kept are
    decoded.
    """
    differentiate, choose, build = (
        PoseObjective.__call__,
        store.choose_cache,
        store.CropStore.__init__,
    )

    def timed(objective: PoseObjective, batch: Any) -> dict[str, Tensor]:
        turns()
        return differentiate(objective, batch)

    def noted(*arguments: Any) -> str:
        turns.notes["cache"] = cache = choose(*arguments)
        return cache

    def filled(crops: store.CropStore, index: ShardIndex, side: int, keep: bool = False) -> None:
        build(crops, index, side, keep)
        for row in range(len(crops) if keep else 0):
            crops[row]

    PoseObjective.__call__, store.choose_cache, store.CropStore.__init__ = timed, noted, filled
    loop.EPOCH_SAVE_INTERVAL_S, console.State.quiet = math.inf, True
    names = ("arch", "head", "size", "batch", "cache", "precision", "workers", "device")
    same = {name: getattr(options, name) for name in names}
    with tempfile.TemporaryDirectory(dir=options.folder) as run:
        lasting = {"epochs": steps_of(options), "save_every": 10**9}  # of one step or more
        finetune(options.shards, run=run, compiled=options.compile, **same, **lasting)


def draw_labelled(folder: str, options: Namespace) -> str:
    """Drawn crops with random labels."""
    source = Path(folder, "crops")
    source.mkdir()
    pretraining.draw_crops(
        str(source), options=Namespace(crops=options.crops, batch=[options.batch])
    )
    random = np.random.default_rng(0)
    with ShardOutput(f"{folder}/labelled-%03d.tar", provenance("synth", {})) as output:
        for sample in ShardIndex(expand_inputs([str(source)])):
            points, pose = random.uniform(20, 200, (21, 2)), random.normal(0, 0.05, (21, 3))
            sample.members[fields.KEYPOINTS_2D.suffix] = fields.encode_array(
                fields.KEYPOINTS_2D, points
            )
            sample.members[fields.KEYPOINTS_3D.suffix] = fields.encode_array(
                fields.KEYPOINTS_3D, pose
            )
            output.write(sample)
    return f"{folder}/labelled-*.tar"


# Contestants are processes that import this file under another name.
pretraining.CONTESTANTS |= {LIMIT: limit, OURS: ours}

if __name__ == "__main__":
    sys.exit(main())
