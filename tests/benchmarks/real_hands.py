r"""Fine-tune on real labelled hands from several encoders; test on other images of the same set,
and on another set.

    handclr extract videos/ --fps 5 --look once --no-tracks | handclr keypoints -o real.tar
    handclr pca real.tar synthetic.tar -o pose.npz && handclr mine pose.npz -o pairs.npz
    handclr pretrain synthetic.tar --pairs synthetic.npz --arch resnet18 --size 64 --batch 128 \
        --epochs 6 --run runs/first
    handclr pretrain real.tar synthetic.tar --pairs pairs.npz --arch resnet18 --size 64 \
        --batch 128 --epochs 3 --init runs/first/encoder.pt --run runs/handclr
    handclr import freihand FreiHAND/ -o freihand.tar
    handclr import freihand FreiHAND/ --split eval -o test.tar
    handclr import dexycb DexYCB/ --split all -o dexycb.tar
    python tests/benchmarks/real_hands.py --train freihand.tar --test test.tar dexycb.tar \
        --run runs/real --encoders random runs/handclr/encoder.pt --options --head regress

Each cell is one `handclr finetune` of as many steps as every other, gone on with where it stopped,
and an `handclr evaluate` on each test set. An error is that of the seeds' mean, its interval that
of the test images: joints after root and reference-bone alignment, mm, 95 %, by bootstrap.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np

from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.npz import read_npz
from handclr_cli.hand.alignment import joint_errors_mm

RESAMPLES = 2000


def main() -> None:
    arguments = parse()
    samples = len(ShardIndex([str(arguments.train)]))
    rows = []
    for encoder, fraction in product(arguments.encoders, arguments.fractions):
        seeds = range(arguments.seeds)
        runs = [cell(arguments, encoder, fraction, seed, samples) for seed in seeds]
        for test in arguments.test:
            found = [evaluate(run, test, arguments) for run in runs]
            rows.append((name_of(encoder), fraction, test.stem, *summary(found)))
    crops = f"{samples} labelled crops of {arguments.train.stem}"
    print(f"\n{crops}, {arguments.steps} steps of {arguments.batch}\n")
    print("| encoder | labels | tested on | MPJPE | 95 % | of the seeds | mean pose |")
    print("|---|--:|---|--:|--:|--:|--:|")
    for encoder, fraction, test, error, interval, errors, chance in rows:
        words = [encoder, f"{fraction:.0%}", test, f"{error:.1f}"]
        words.append(f"{interval[0]:.1f} to {interval[1]:.1f}")
        words.append(", ".join(f"{one:.1f}" for one in errors))
        print("|", " | ".join([*words, f"{chance:.1f}"]), "|")


def cell(
    arguments: argparse.Namespace, encoder: str, fraction: float, seed: int, samples: int
) -> Path:
    """Fine-tune one model; gives its run directory."""
    run = arguments.run / f"{name_of(encoder)}-{fraction:g}-{seed}"
    batch = min(arguments.batch, max(1, round(fraction * samples)))
    epochs = max(1, round(arguments.steps / (max(1, round(fraction * samples)) // batch)))
    options = {"encoder": encoder, "fraction": fraction, "seed": seed, "run": run}
    options |= {"arch": arguments.arch}
    options |= {"size": arguments.size, "batch": batch, "epochs": epochs, "save-every": 200}
    if not (run / "model.pt").exists():
        handclr("finetune", arguments.train, *flags(options), *arguments.options)
    return run


def evaluate(run: Path, test: Path, arguments: argparse.Namespace) -> tuple[np.ndarray, float]:
    """Errors (N, 21) of a model on a test set after root and bone, mm, and what the mean pose has
    there.
    """
    output, report = run / f"{test.stem}.npz", run / f"{test.stem}.json"
    if not report.exists():
        report.write_bytes(handclr("evaluate", test, "--model", run / "model.pt", "-o", output))
    arrays, _ = read_npz(str(output), "predictions")
    told = json.loads(report.read_text())
    errors = joint_errors_mm(arrays["keypoints3d"], arrays["truth3d"], "root+bone")
    return errors, told["mean_pose_of_training_set"]["root+bone"]["mpjpe_mm"]


def summary(
    found: list[tuple[np.ndarray, float]],
) -> tuple[float, tuple[float, float], list[float], float]:
    """MPJPE over seeds and images, its interval over images, that of each seed, and the mean
    pose's.
    """
    seeds = [float(errors.mean()) for errors, _ in found]
    images = np.mean([errors.mean(axis=1) for errors, _ in found], axis=0)
    drawn = np.random.default_rng(0).integers(len(images), size=(RESAMPLES, len(images)))
    low, high = np.percentile(images[drawn].mean(axis=1), (2.5, 97.5))
    return float(images.mean()), (low, high), seeds, float(np.mean([chance for _, chance in found]))


def name_of(encoder: str) -> str:
    return Path(encoder).parent.name if "/" in encoder else encoder


def flags(options: dict[str, object]) -> list[object]:
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def handclr(*words: object) -> bytes:
    line = [sys.executable, "-m", "handclr_cli", *map(str, words)]
    return subprocess.run(line, stdout=subprocess.PIPE, check=True).stdout


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, nargs="+", required=True)
    parser.add_argument("--run", type=Path, default=Path("runs/real"))
    parser.add_argument(
        "--encoders", nargs="+", default=["random"], help="random, imagenet or files"
    )
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.1, 1.0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument(
        "--options", nargs=argparse.REMAINDER, default=[], help="the rest: for finetune"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
