"""Pre-train with every method on the same crops and compare what their frozen features know of the pose.

    handclr synth footage wild/ --videos 250 --frames 24 --fps 6 --width 384 --height 288
    handclr extract wild/ --fps 6 | handclr keypoints -o hands.tar
    handclr synth footage held/ --videos 30 --frames 20 --fps 5 --width 384 --height 288 --seed 9
    handclr extract held/ --fps 5 | handclr keypoints -o held.tar
    handclr pca hands.tar | handclr mine -o pairs.npz
    handclr synth labelled --count 800 --size 128 --seed 1 -o labelled.tar
    handclr synth labelled --count 400 --size 128 --seed 2 -o test.tar
    python tests/benchmarks/methods.py hands.tar --pairs pairs.npz --probe held.tar --labelled labelled.tar \
        --test test.tar --run runs/methods

Each method is one `handclr pretrain`, gone on with where it stopped. Two measures of its encoder: the probe of
`pretrain` (2D, held-out wild videos, all through the run), and at the end a ridge regression of the root-relative 3D
pose from frozen features, fitted to few and to all labelled crops of one studio and tested on other people; MPJPE in
mm. The strength of the ridge is chosen on a fifth of the labels.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from handclr_cli.benchmarks.metrics import root_relative
from handclr_cli.contract.index import ShardIndex
from handclr_cli.learning.augmentation import View, apply, to_tensor
from handclr_cli.learning.encoder import Encoder, build_encoder
from handclr_cli.learning.pretraining import METHODS
from handclr_cli.report.curves import save_figure

FEW = 80
STRENGTHS = np.logspace(-3, 4, 15)


def main() -> None:
    arguments = parse()
    for method in arguments.methods:
        pretrain(method, arguments)
    sets = [ShardIndex([str(path)]) for path in (arguments.labelled, arguments.test)]
    images, poses = zip(*(labelled(index, arguments.size) for index in sets), strict=True)
    truth = poses[1]
    chance = error(np.broadcast_to(poses[0].mean(axis=0), truth.shape), truth)
    print(
        f"\nmean pose: {chance:.1f} mm\n\n"
        f"| method | probe | 3D, {FEW} labels | 3D, {len(poses[0])} labels |\n|---|---|---|---|"
    )
    curves = {}
    for name in ("random", *arguments.methods):
        folder = arguments.run / name
        encoder = build_encoder(arguments.arch, "random" if name == "random" else folder / "encoder.pt", arguments.seed)
        train, test = (features(encoder, some) for some in images)
        scores = [ridge(train[:count], poses[0][:count], test, truth) for count in (FEW, len(train))]
        curves[name] = [] if name == "random" else probes(folder)
        last = f"{curves[name][-1][1]:.4f}" if curves[name] else ""
        print(f"| {name} | {last} | {scores[0]:.1f} | {scores[1]:.1f} |", flush=True)
    draw(curves, arguments.run / "probe.png")
    print(f"\n{arguments.run / 'probe.png'}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    for name in ("pairs", "probe", "labelled", "test", "run"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--options", nargs="*", default=[], help="others for handclr pretrain, without the dashes: undo=crop"
    )
    return parser.parse_args()


def pretrain(method: str, arguments: argparse.Namespace) -> None:
    """Train or go on; a finished run is left as it is."""
    command = [sys.executable, "-m", "handclr_cli", "pretrain", arguments.shards, "--pairs", arguments.pairs]
    command += ["--run", arguments.run / method, "--method", method, "--probe", arguments.probe, "--probe-every", 1]
    command += [
        part for name in ("arch", "size", "batch", "epochs", "seed") for part in (f"--{name}", getattr(arguments, name))
    ]
    command += [part for option in arguments.options for part in f"--{option}".split("=")]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)


def labelled(index: ShardIndex, size: int) -> tuple[torch.Tensor, np.ndarray]:
    """Crops as the encoder sees them, and their root-relative poses (N, 21, 3) in mm."""
    images = np.stack([apply(View(size), sample.image) for sample in index])
    poses = np.stack([sample.keypoints3d for sample in index]).astype(np.float64)
    return torch.from_numpy(images), 1000 * root_relative(poses)


@torch.inference_mode()
def features(encoder: Encoder, images: torch.Tensor) -> np.ndarray:
    encoder.eval()
    return torch.cat([encoder(to_tensor(part)) for part in images.split(200)]).double().numpy()


def ridge(train: np.ndarray, poses: np.ndarray, test: np.ndarray, truth: np.ndarray) -> float:
    """MPJPE of a ridge regression whose strength is chosen on the last fifth of the labels."""
    cut = len(train) - len(train) // 5
    errors = [error(fit(train[:cut], poses[:cut], strength, train[cut:]), poses[cut:]) for strength in STRENGTHS]
    return error(fit(train, poses, STRENGTHS[int(np.argmin(errors))], test), truth)


def fit(train: np.ndarray, poses: np.ndarray, strength: float, test: np.ndarray) -> np.ndarray:
    mean, spread, middle = train.mean(axis=0), train.std(axis=0) + 1e-6, poses.mean(axis=0)
    x, y = (train - mean) / spread, (poses - middle).reshape(len(poses), -1)
    # In the space of the samples: there may be fewer of them than features.
    solved = np.linalg.solve(x @ x.T + strength * np.eye(len(x)), y)
    return ((test - mean) / spread @ (x.T @ solved)).reshape(-1, *middle.shape) + middle


def error(predicted: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(predicted - truth, axis=2).mean())


def probes(folder: Path) -> list[tuple[int, float]]:
    """Epoch and probe of a run's log."""
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(record["epoch"] + 1, record["probe"]) for record in records if "probe" in record]


def draw(curves: dict[str, list[tuple[int, float]]], path: Path) -> None:
    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel="error of the probe, in hands")
    for name, points in curves.items():
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    save_figure(figure, path)


if __name__ == "__main__":
    main()
