r"""Pre-training throughput beside its limit and beside what is usually written: images a second, in
turn.

    python tests/benchmarks/pretraining.py --arch resnet18 --size 64 --batch 64 256 \
        --rounds 5 --json pretraining.json

limit: the network of handclr, placed, compiled and cast as there, on random images that are on the
device already; forward, a loss of one product, backward, step. Nothing that trains this network so
can be faster. handclr: the command itself, from crops in shards. Saves at the ends of epochs are
left out. Crops that --cache keeps are there before the first step, as in every epoch but the first;
--cache none is the first epoch. plain: a DataLoader, Pillow, torchvision.transforms.v2 crop by crop
on the CPU, the same network in the default memory order and not compiled, NT-Xent as one product
and a cross entropy, the same optimiser. lightly: the loop of its SimCLR example with its transform,
head, loss and SGD; left out where it is not installed.

Both peers have the crops as JPEG bytes in memory, as many workers, bfloat16 where handclr has it on
CUDA, and an epoch that does not end. An image is a view: a pair is two. Without SHARDS, crops of
224 px are drawn: ellipses, noise.

Each contestant is a process of its own, stopped with its workers while another has its turn. A turn
is --warmup steps (2 batches for each worker lie ready when it begins, so at least as many), then
--steps, rounded up to a multiple of the workers because their batches arrive in bursts; the device
is waited for at both ends of those alone. Ratios are medians over the rounds. Memory is the peak of
the main process; of the GPU's, of what PyTorch had in the measured steps.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from importlib.metadata import distributions
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import cv2
import numpy as np
import torch
from pretraining_peers import adamw, lightly, plain, steps_of
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from handclr_cli import console
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.inputs import expand_inputs
from handclr_cli.contract.provenance import provenance
from handclr_cli.contract.sample import Sample, sample_key
from handclr_cli.contract.shards import ShardOutput
from handclr_cli.learning import loop, setup
from handclr_cli.learning.hardware import pick_device, pick_precision, to_device
from handclr_cli.learning.pretrain_job import PretrainSettings, run_pretrain
from handclr_cli.learning.pretraining import METHODS, ContrastiveModel, Objective
from handclr_cli.learning.store import CropStore
from handclr_cli.work.cores import worker_count

LIMIT, OURS = "limit", "handclr"
COLUMNS = (
    *("images/s", "least to most", "of the limit", "handclr / it"),
    *("of the peak", "MB", "MB of the GPU"),
)
PACKAGES = ("torch", "torchvision", "lightly", "opencv-contrib-python", "pillow", "numpy")

Told = dict[str, Any]
say = partial(print, file=sys.stderr, flush=True)


def main() -> None:
    parser = parser_of()
    options = parser.parse_args()
    settle(options)
    flops = network_flops(options.arch, options.size)
    title = f"{options.arch} at {options.size} px: {flops / 1e9:.3g} GFLOP an image"
    print(f"{title}, forward and backward\n")
    print("| pairs | contestant |", " | ".join(COLUMNS), "|")
    print("|--:|---|" + "--:|" * len(COLUMNS), flush=True)
    cells: list[Told] = []
    with tempfile.TemporaryDirectory() as folder:
        options.folder = folder
        options.shards = expand_inputs(options.shards or [draw_crops(folder, options)])
        crops = len(ShardIndex(options.shards))
        if crops < max(options.batch):
            parser.error(f"--batch {max(options.batch)}: there are {crops} crops")
        for batch in options.batch:
            cells.append(measure(Namespace(**{**vars(options), "batch": batch})))
            print_rows(cells[-1], flops, options.peak_tflops * 1e12)
            if options.json:
                about = {"options": vars(options), "flops": flops}
                write_json(options.json, PACKAGES, **about, cells=cells)


def settle(options: Namespace) -> None:
    """Steps of the warm-up, and steps that end with a burst of batches."""
    options.warmup = 2 * options.workers + 3 if options.warmup is None else options.warmup
    options.steps += -options.steps % max(1, options.workers)


def write_json(path: Path, packages: Container[str], **numbers: Any) -> None:
    """Write numbers, and what they were measured with."""
    versions = {one.name: one.version for one in distributions() if one.name in packages}
    about = {"versions": versions, "cores": os.cpu_count(), **numbers}
    path.write_text(json.dumps(about, indent=2, default=str) + "\n")


def parser_of() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shards", nargs="*", help="crops; drawn where none are named")
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256], help="pairs")
    parser.add_argument("--method", choices=METHODS, default="peclr")
    parser.add_argument("--pairs", help="NPZ, for the methods that need it")
    parser.add_argument(
        "--peers", nargs="*", choices=["plain", "lightly"], default=["plain", "lightly"]
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction)
    parser.add_argument("--cache", default="auto")
    parser.add_argument("--workers", type=int, default=worker_count(None))
    parser.add_argument("--warmup", type=int, help="steps; default: 3 more than lie ready")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--crops", type=int, default=2000, help="drawn")
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="of a GPU: bf16, dense")
    parser.add_argument("--json", type=Path, help="write all numbers")
    return parser


def measure(options: Namespace) -> Told:
    """Let all contestants train on batches of this many pairs; gives what each told, round by
    round.
    """
    told: dict[str, list[Told]] = {}
    with ExitStack() as stack:
        turns = {}
        for name in (LIMIT, OURS, *options.peers):
            if name == "lightly" and not find_spec("lightly"):
                say("lightly: left out, it is not installed")
                continue
            turns[name], told[name] = stack.enter_context(process(name, options)), []
        for number in range(options.rounds):
            for name, turn in turns.items():
                told[name].append(turn())
                rate = f"{told[name][-1]['rate']:,.0f} images/s"
                say(f"round {number + 1}, {options.batch} pairs: {name} {rate}")
    return {"batch": options.batch, "told": told}


@contextmanager
def process(name: str, options: Namespace) -> Iterator[Callable[[], Told]]:
    """A contestant in a process group of its own, ready; called, it has its turn, and is stopped
    after it.
    """
    spawn = get_context("spawn")
    pipe, theirs = spawn.Pipe()
    child = spawn.Process(target=contest, args=(name, options, theirs))
    child.start()
    theirs.close()

    def hear() -> Told:
        try:
            told = dict(pipe.recv())
        except EOFError:
            child.join()
            raise SystemExit(f"{name}: ended with {child.exitcode}") from None
        os.killpg(child.pid, signal.SIGSTOP)
        return told

    def turn() -> Told:
        os.killpg(child.pid, signal.SIGCONT)
        pipe.send(None)
        return hear()

    try:
        hear()
        yield turn
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.kill()
        child.join()


def contest(name: str, options: Namespace, pipe: Connection) -> None:
    """Be a contestant: train, a turn at a time, until it is ended."""
    # With the workers to come, and in the starter's session: its end is that of a stopped group.
    os.setpgid(0, 0)
    device = pick_device(options.device)
    CONTESTANTS[name](Turns(pipe, device, options), options, device)


class Turns:
    """Called as each step begins: waits for a turn, and measures the steps of it that follow the
    warm-up.
    """

    def __init__(self, pipe: Connection, device: torch.device, options: Namespace) -> None:
        self.pipe, self.device = pipe, device
        self.warmup, self.steps = options.warmup, options.steps
        self.images = 2 * options.batch * options.steps
        self.left, self.begin = 0, math.nan
        self.notes: Told = {}

    def __call__(self) -> None:
        if self.left == 0:
            rate = self.images / (self._now() - self.begin)
            self.pipe.send({"rate": rate, **self.notes, **self._memory()})
            self.pipe.recv()
            self.left = self.warmup + self.steps
        if self.left == self.steps:
            self.begin = self._now()
            if self.device.type == "cuda":
                # cuDNN has tried out algorithms in the first step.
                torch.cuda.reset_peak_memory_stats(self.device)
        self.left -= 1

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _memory(self) -> Told:
        told: Told = {"MB": getrusage(RUSAGE_SELF).ru_maxrss / 1024}
        if self.device.type == "cuda":
            told |= {"device": torch.cuda.get_device_name(self.device)}
            told |= {"device_MB": torch.cuda.max_memory_allocated(self.device) / 2**20}
            torch.cuda.empty_cache()  # for the others
        return told


def limit(turns: Turns, options: Namespace, device: torch.device) -> None:
    autocast = pick_precision(options.precision, device)
    network = ContrastiveModel.build(options.arch, "random", 0)
    model = to_device(network, device, options.compile).train()
    optimizer = adamw(model, options.batch)
    images = torch.randn(2 * options.batch, 3, options.size, options.size, device=device)
    images = images.to(memory_format=torch.channels_last)
    slopes = torch.randn(2 * options.batch, 128, device=device)
    while True:
        turns()
        with autocast():
            latent = model(images)
        (latent.float() * slopes).mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def ours(turns: Turns, options: Namespace, device: torch.device) -> None:
    """The job of the command, measured."""
    instrument(turns, Objective)
    names = ("method", "arch", "size", "batch", "cache", "precision", "workers", "device")
    same = {name: getattr(options, name) for name in names}
    with tempfile.TemporaryDirectory(dir=options.folder) as run:
        pairs = [options.pairs] if options.pairs else []
        where = {"shards": options.shards, "run": run, "pairs": pairs, "compiled": options.compile}
        run_pretrain(PretrainSettings(**where, **lasting(options), **same))


def instrument(turns: Turns, objective: Any) -> None:
    """Measure a trainer in this process, in which nothing else is to run: each step waits for its
    turn, nothing is saved at the ends of epochs, and the crops to be kept are decoded before.

    Functions of handclr are replaced, since it has no hooks and needs none but here.
    """
    differentiate, choose, build = objective.__call__, setup.choose_cache, CropStore.__init__

    def timed(self: Any, batch: Any) -> dict[str, Tensor]:
        turns()
        return differentiate(self, batch)

    def noted(*arguments: Any, **named: Any) -> str:
        turns.notes["cache"] = cache = choose(*arguments, **named)
        return cache

    def filled(
        crops: CropStore, index: ShardIndex, side: int, keep: Sequence[int] | np.ndarray = ()
    ) -> None:
        build(crops, index, side, keep)
        for row in keep:
            crops[row]

    objective.__call__, setup.choose_cache, CropStore.__init__ = timed, noted, filled
    loop.EPOCH_SAVE_INTERVAL_S, console.State.quiet = math.inf, True


def lasting(options: Namespace) -> dict[str, int]:
    """Settings of a run that does not end before the last round; an epoch has a step or more."""
    return {"epochs": steps_of(options), "save_every": 10**9}


CONTESTANTS = {LIMIT: limit, OURS: ours, "plain": plain, "lightly": lightly}


def draw_crops(folder: str, options: Namespace) -> str:
    """Shards of crops of some 10 KB."""
    random, side = np.random.default_rng(0), 224
    with ShardOutput(f"{folder}/crops-%03d.tar", provenance("synth", {})) as output:
        for number in range(max(options.crops, *options.batch)):
            colours = random.integers(30, 220, (6, 6, 3), np.uint8)
            image = cv2.resize(colours, (side, side), interpolation=cv2.INTER_CUBIC)
            for _ in range(12):
                centre = random.integers(0, side, 2).tolist()
                axes = random.integers(8, 60, 2).tolist()
                turn, colour = int(random.integers(180)), random.integers(0, 256, 3).tolist()
                cv2.ellipse(image, centre, axes, turn, 0, 360, colour, cv2.FILLED, cv2.LINE_AA)
            noise = cv2.randn(np.empty(image.shape, np.int16), (0, 0, 0), (2, 2, 2))
            image = cv2.add(image, noise, dtype=cv2.CV_8U)
            jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
            output.write(Sample(sample_key("drawn", number, "right"), {"jpg": jpeg}))
    return folder


def network_flops(arch: str, size: int) -> float:
    """Multiplications and additions of an image forward and backward, counted by PyTorch."""
    model = ContrastiveModel.build(arch, "random", 0).to("meta")
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(2, 3, size, size, device="meta")).sum().backward()
    return counter.get_total_flops() / 2


def print_rows(cell: Told, flops: float, peak: float) -> None:
    """The rows of one batch size."""
    rates = {}
    for name, rounds in cell["told"].items():
        rates[name] = np.array([told["rate"] for told in rounds])
    for name, rate in rates.items():
        first, last = cell["told"][name][0], cell["told"][name][-1]
        label = f"{name}, cache {first['cache']}" if "cache" in first else name
        words = [f"{np.median(rate):,.0f}", f"{rate.min():,.0f} to {rate.max():,.0f}"]
        words += [f"{np.median(rate / rates[LIMIT]):.3f}", f"{np.median(rates[OURS] / rate):.2f}"]
        words += [f"{np.median(rate) * flops / peak:.1%}" if "device" in first else ""]
        words += [f"{last['MB']:,.0f}"]
        words += [f"{last['device_MB']:,.0f}" if "device" in first else ""]
        print(f"| {cell['batch']} | {label} |", " | ".join(words), "|", flush=True)


if __name__ == "__main__":
    main()
