r"""Make the model that comes with handclr, from nothing but footage of hands.

    python tests/benchmarks/model/make.py work/ --videos videos/

Each step is a handclr command that is left out where its output is there, so that the same line
goes on where it was stopped: synthetic hands (`synth labelled --world any`), what the landmarker
finds in them and in the footage, pairs of near poses, contrastive pre-training of the encoder on
both, fine-tuning with 3D labels of synthetic hands and 2D ones of the footage, and the weights at
16 bits. No labelled real image is read. With --small all of it takes a minute and is worth nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import torch

from handclr_cli.contract.output import atomic_write

WORLD = ("--world", "any", "--seed", 101, "--size", 160, "--quality", 92)
SHARD = 1000


def main() -> None:
    options = parse()
    options.folder.mkdir(parents=True, exist_ok=True)
    synthetic = [labelled(options, number) for number in range(options.crops // SHARD or 1)]
    footage = step(
        options.folder / "footage.tar",
        *("extract", *options.videos, "--fps", 10, "--with-keypoints", "-o"),
    )
    encoder = pretrained(options, [*synthetic, footage]) if options.pretrain else "random"
    run = options.folder / "finetune"
    model = step(
        run / "model.pt",
        *("finetune", *synthetic, footage, "--head", "guided", "--encoder", encoder),
        *("--arch", "resnet18", "--size", options.size, "--batch", options.batch),
        *("--epochs", options.epochs, "--mix", 0.1, "--rotation", 180, "--precision", "bf16"),
        *("--lr", options.lr, "--weight-decay", 0.01, "--run"),
        output=run,
    )
    halve(model, options.folder / "hand.pt")


def labelled(options: argparse.Namespace, number: int) -> Path:
    """A thousand synthetic crops with 3D labels and what the landmarker finds in them."""
    count, name = min(SHARD, options.crops), f"{number:03d}.tar"
    plain = step(
        options.folder / f"synthetic-{name}",
        *("synth", "labelled", *WORLD, "--first", number * SHARD, "--count", count, "-o"),
    )
    return step(options.folder / f"hands-{name}", "keypoints", "--keep-empty", plain, "-o")


def pretrained(options: argparse.Namespace, shards: list[Path]) -> Path:
    """An encoder trained on pairs of near poses from different videos."""
    poses = step(options.folder / "poses.npz", "pca", *shards, "-o")
    pairs = step(options.folder / "pairs.npz", "mine", poses, "-o")
    run = options.folder / "pretrain"
    return step(
        run / "encoder.pt",
        *("pretrain", *shards, "--pairs", pairs, "--method", "handclr-soft"),
        *("--arch", "resnet18", "--size", options.size, "--batch", 128, "--precision", "bf16"),
        *("--epochs", options.pretrain, "--run"),
        output=run,
    )


def step(made: Path, *words: object, output: Path | None = None) -> Path:
    """Run handclr with what it is to make as the last word, unless that is there."""
    if not made.exists():
        line = [sys.executable, "-m", "handclr_cli", *map(str, words), str(output or made)]
        subprocess.run(line, check=True)
    return made


def halve(model: Path, half: Path) -> None:
    """Write a model with its weights at 16 bits, which `load_model` reads as any other."""
    payload = torch.load(model, weights_only=True)
    for name, tensor in payload["state"].items():
        if tensor.is_floating_point():
            payload["state"][name] = tensor.half()
    with atomic_write(str(half), "checkpoint") as file:
        torch.save(payload, file)
    print(f"{half}: {half.stat().st_size / 1e6:.1f} MB")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--videos", nargs="+", type=Path, required=True, help="films, or folders")
    parser.add_argument("--crops", type=int, default=26_000, help="synthetic ones")
    parser.add_argument("--size", type=int, default=64, help="side of the input in pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=22)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--pretrain", type=int, default=3, help="epochs of pre-training")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    if options.small:
        options.crops, options.epochs, options.batch = 16, 1, 8
    return options


if __name__ == "__main__":
    main()
