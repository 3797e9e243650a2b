r"""Fine-tuning throughput beside its limit: images a second, in turn.

    python tests/benchmarks/finetuning.py --arch resnet18 --size 64 --batch 32 \
        --rounds 3 --json finetuning.json

limit: the network of handclr with its head, placed, compiled and cast as there, on random images
that are on the device already; forward, the sum of the outputs, backward, step. Nothing that trains
this network so can be faster. handclr: the command itself, from labelled crops in shards, without
saves at the ends of epochs; crops that --cache keeps are there before the first step. Without
SHARDS, crops of 224 px are drawn and labelled with random hands.

Turns, warm-up and memory are as in pretraining.py, which this is run beside.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from argparse import Namespace
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pretraining
import torch
from placement_hands import hands
from pretraining import Turns, instrument, lasting, process, say, settle

from handclr_cli.contract.fields import KEYPOINTS_2D, KEYPOINTS_3D, encode_array
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.inputs import expand_inputs
from handclr_cli.contract.provenance import provenance
from handclr_cli.contract.shards import ShardOutput
from handclr_cli.learning.encoder import build_encoder
from handclr_cli.learning.finetune_job import FinetuneSettings, run_finetune
from handclr_cli.learning.finetuning import PoseObjective
from handclr_cli.learning.hardware import pick_precision, to_device
from handclr_cli.learning.heads import HEADS
from handclr_cli.learning.optim import build_optimizer, parameter_groups
from handclr_cli.learning.pose import PoseNet
from handclr_cli.work.cores import worker_count

LIMIT, OURS = "finetune limit", "finetune"


def main() -> None:
    options = parse()
    rates: dict[str, list[float]] = {LIMIT: [], OURS: []}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        options.folder = folder
        options.shards = expand_inputs(options.shards or [draw_labelled(folder, options)])
        turns = {name: stack.enter_context(process(name, options)) for name in rates}
        for number in range(options.rounds):
            for name, turn in turns.items():
                told = turn()
                rates[name].append(told["rate"] / 2)  # which counts two views to a pair
                rate = f"{rates[name][-1]:,.0f} images/s {told.get('cache', '')}"
                say(f"round {number + 1}: {name} {rate}")
    share = np.median(np.array(rates[OURS]) / np.array(rates[LIMIT]))
    limit, ours = (f"{np.median(rates[name]):,.0f}" for name in rates)
    title = f"{options.arch}, {options.head}, {options.size} px"
    print(f"{title}: {ours} of {limit} images/s, {share:.3f} of the limit")
    if options.json:
        about = {"options": vars(options), "rates": rates}
        options.json.write_text(json.dumps(about, indent=2, default=str) + "\n")


def parse() -> Namespace:
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
    settle(options)
    return options


def limit(turns: Turns, options: Namespace, device: torch.device) -> None:
    autocast = pick_precision(options.precision, device)
    network = PoseNet(build_encoder(options.arch), head=options.head)
    model = to_device(network, device, options.compile).train()
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
    """The job of the command, measured."""
    instrument(turns, PoseObjective)
    names = ("arch", "head", "size", "batch", "cache", "precision", "workers", "device")
    same = {name: getattr(options, name) for name in names}
    with tempfile.TemporaryDirectory(dir=options.folder) as run:
        where = {"shards": options.shards, "run": run, "compiled": options.compile}
        run_finetune(FinetuneSettings(**where, **lasting(options), **same))


def draw_labelled(folder: str, options: Namespace) -> str:
    """Drawn crops, labelled with hands that they do not show."""
    source = Path(folder, "crops")
    source.mkdir()
    pretraining.draw_crops(str(source), Namespace(crops=options.crops, batch=[options.batch]))
    index = ShardIndex(expand_inputs([str(source)]))
    drawn = hands(np.random.default_rng(0), len(index))
    poses = drawn.relative + drawn.wrist[:, None]
    with ShardOutput(f"{folder}/labelled-%03d.tar", provenance("synth", {})) as output:
        for sample, points, pose in zip(index, drawn.pixels, poses, strict=True):
            sample.members[KEYPOINTS_2D.suffix] = encode_array(KEYPOINTS_2D, points)
            sample.members[KEYPOINTS_3D.suffix] = encode_array(KEYPOINTS_3D, pose)
            output.write(sample)
    return f"{folder}/labelled-*.tar"


# Contestants are processes that import this file under another name.
pretraining.CONTESTANTS |= {LIMIT: limit, OURS: ours}

if __name__ == "__main__":
    sys.exit(main())
