"""The parts of the check of a GPU: what each measures, written as JSON.

python parts.py PART FILE.json [--dry]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
BENCHMARKS, TESTS = HERE.parent, HERE.parents[1]
# Tests that a machine without a GPU skips, but for those that need numba or real footage too.
SKIPPED = ("test_device_search.py", "test_raster.py", "test_scenes.py")
Figures = dict[str, Any]


class Part(NamedTuple):
    """What measures a part, and its limit in seconds."""

    measure: Callable[[bool], Figures]
    limit_s: float

    @property
    def file(self) -> str:
        return __file__


def about(dry: bool) -> Figures:
    """The machine."""
    import torch

    versions = {"python": sys.version.split()[0], "torch": torch.__version__}
    if not torch.cuda.is_available():
        return {**versions, "gpu": "none"}
    gpu = torch.cuda.get_device_properties(0)
    return {**versions, "gpu": gpu.name, "GB": round(gpu.total_memory / 1e9, 1)}


def tests(dry: bool) -> Figures:
    """What the tests skip without a GPU."""
    if not find_spec("pytest"):
        return {"skipped": True, "why": "pytest is not installed"}
    files = [str(TESTS / name) for name in SKIPPED]
    chosen = ["-k", "cuda or gpu", *["--collect-only"] * dry]
    words = [sys.executable, "-m", "pytest", "-q", "-rfs", "-p", "no:cacheprovider", *chosen]
    done = subprocess.run([*words, *files], capture_output=True, text=True, cwd=TESTS.parent)
    print(done.stdout[-8000:], done.stderr[-2000:], sep="\n")
    if done.returncode:
        raise SystemExit(done.stdout.strip().splitlines()[-1])
    return {"said": done.stdout.strip().splitlines()[-1]}


def pretrain(size: int) -> Callable[[bool], Figures]:
    """Pre-training's images a second beside the same network on what is on the device already."""

    def measure(dry: bool) -> Figures:
        big = f"--arch resnet50 --size {size} --batch 1024 --crops 2048 --steps 24 --rounds 2"
        small = "--arch resnet18 --size 32 --batch 8 --crops 16 --steps 2 --warmup 2 --rounds 1"
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "told.json"
            words = (small if dry else big).split()
            script(BENCHMARKS / "pretraining.py", *words, "--peers", "--json", file)
            told = json.loads(file.read_text())["cells"][0]["told"]
        rates = {name: max(turn["rate"] for turn in turns) for name, turns in told.items()}
        figures = {f"{name}, images/s": round(rate) for name, rate in rates.items()}
        figures["of the limit"] = round(rates["handclr"] / rates["limit"], 3)
        figures["peak GB"] = round(told["handclr"][-1].get("device_MB", 0) / 1e3, 1)
        return figures

    return measure


def finetune(dry: bool) -> Figures:
    """Fine-tuning's, likewise."""
    big = "--arch resnet50 --head regress --size 128 --batch 256 --crops 1024 --steps 24 --rounds 2"
    small = "--arch resnet18 --head regress --size 32 --batch 8 --crops 16 --steps 2 --warmup 2"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "told.json"
        words = (f"{small} --rounds 1" if dry else big).split()
        script(BENCHMARKS / "finetuning.py", *words, "--json", file)
        rates = {name: max(rate) for name, rate in json.loads(file.read_text())["rates"].items()}
    limit, ours = rates["finetune limit"], rates["finetune"]
    return {"images/s": round(ours), "limit": round(limit), "of the limit": round(ours / limit, 3)}


def mine(rows: int) -> Callable[[bool], Figures]:
    """All of `handclr mine --engine exact-gpu`, and whether a sample of it is exact."""

    def measure(dry: bool) -> Figures:
        import numpy as np
        from mining import WALKS, walks
        from shard_helpers import write_pose

        poses = walks(2_000 if dry else rows, *WALKS["mix"], np.random.default_rng(0))
        with tempfile.TemporaryDirectory() as folder, watched() as peak:
            file = Path(folder) / "pose.npz"
            write_pose(file, poses.group, embedding=poses.embedding)
            engine = "exact-cpu" if dry else "exact-gpu"
            begin = time.perf_counter()
            handclr("mine", file, "--engine", engine, "-o", Path(folder) / "pairs.npz")
            seconds = time.perf_counter() - begin
            with np.load(Path(folder) / "pairs.npz", allow_pickle=False) as pairs:
                found = pairs["positive"][:, 0]
        embedding = poses.embedding.astype(np.float64)
        wrong = 0
        for row in np.random.default_rng(1).choice(len(found), 400):
            apart = ((embedding - embedding[row]) ** 2).sum(axis=1)
            apart[poses.group == poses.group[row]] = np.inf
            wrong += apart[found[row]] > apart.min()
        if wrong:
            raise SystemExit(f"{wrong} of 400 sampled rows are not the nearest")
        return {"seconds in all": round(seconds, 1), "sampled rows exact": 400, **peak()}

    return measure


def synth(dry: bool) -> Figures:
    """Frames that the renderer draws a second, on the GPU and on one core."""
    import torch

    from handclr_cli.synth.scenes import Scene
    from handclr_cli.synth.worlds import WILD

    figures, frames = {}, 2 if dry else 32
    for device in ["cpu", *["cuda"] * torch.cuda.is_available()]:
        scene = Scene(WILD, 0, 1, (360, 480), frames=frames, device=device)
        scene.render([0])
        begin = time.perf_counter()
        for frame in range(frames):
            scene.render([frame]).colour.cpu()
        figures[f"{device}, frames/s"] = round(frames / (time.perf_counter() - begin), 1)
    return figures


def measure_models(dry: bool) -> Figures:
    """`evaluate` and `predict` of crops with a ResNet-50, as commands, start and all."""
    import torch
    from labelled_helpers import labelled_sample, write_labelled

    from handclr_cli.learning.encoder import Encoder
    from handclr_cli.learning.pose import PoseNet
    from handclr_cli.learning.posemodel import MeanPose, save_payload

    count, arch, size = (16, "resnet18", 32) if dry else (20_000, "resnet50", 128)
    hand = labelled_sample(0).keypoints3d
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as folder, watched() as peak:
        crops, model = Path(folder) / "crops.tar", Path(folder) / "model.pt"
        write_labelled(crops, count)
        network = PoseNet(Encoder(arch), head="regress")
        torch.save(save_payload(network, size, MeanPose(hand - hand[0], 0.09)), model)
        for name in ("evaluate", "predict"):
            begin = time.perf_counter()
            handclr(name, crops, "--model", model, "-o", Path(folder) / f"{name}.npz")
            figures[f"{name}, crops/s"] = round(count / (time.perf_counter() - begin))
        return {**figures, **peak()}


def train(dry: bool) -> Figures:
    """A minute of real training on synthetic hands, whose loss must fall."""
    with tempfile.TemporaryDirectory() as folder, watched() as peak:
        crops, run = Path(folder) / "crops.tar", Path(folder) / "run"
        count, size, arch = (8, 32, "resnet18") if dry else (2_000, 128, "resnet50")
        handclr("synth", "labelled", "--count", count, "--size", "160", "-o", crops)
        words = ["--method", "peclr", "--arch", arch, "--size", size, "--batch", min(count, 512)]
        length = ["--epochs", "2"] if dry else ["--epochs", "1000", "--time-limit", "60"]
        handclr("pretrain", crops, *words, *length, "--warmup-epochs", "1", "--run", run)
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        rates = [line["images_per_s"] for line in lines if "images_per_s" in line]
        losses = [line["loss"] for line in lines if "loss" in line]
        first, last = losses[0], sum(losses[-20:]) / len(losses[-20:])
        if not dry and not last < 0.9 * first:
            raise SystemExit(f"the loss went from {first:.3f} to {last:.3f}")
        said = {"steps": len(losses), "loss": f"{first:.3f} to {last:.3f}"}
        return {**said, "images/s": round(max(rates)), **peak()}


def script(path: Path, *words: object) -> None:
    """Run a benchmark to its end."""
    done = subprocess.run([sys.executable, path, *map(str, words)])
    if done.returncode:
        raise SystemExit(f"{path.name} ended with {done.returncode}")


def handclr(*words: object) -> None:
    """Run a command to its end; that of a limit of time is one."""
    done = subprocess.run([sys.executable, "-m", "handclr_cli", *map(str, words)])
    if done.returncode not in (0, 75):
        raise SystemExit(f"handclr {words[0]} ended with {done.returncode}")


@contextmanager
def watched() -> Iterator[Callable[[], Figures]]:
    """What calls tell of the most memory of the GPU that was in use meanwhile, by all processes."""
    used, over = [0], Event()

    def watch() -> None:
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        while not over.wait(0.25):
            try:
                done = subprocess.run(query, capture_output=True, text=True, check=True)
                used.append(int(done.stdout.split()[0]))
            except (OSError, subprocess.CalledProcessError, ValueError):
                return

    Thread(target=watch, daemon=True).start()
    try:
        yield lambda: {"peak GB": round(max(used) / 1e3, 1)} if len(used) > 1 else {}
    finally:
        over.set()


PARTS = {
    "about": Part(about, 30),
    "tests": Part(tests, 90),
    "mine-200000": Part(mine(200_000), 30),
    "mine-2000000": Part(mine(2_000_000), 60),
    "pretrain-128": Part(pretrain(128), 75),
    "pretrain-224": Part(pretrain(224), 90),
    "finetune": Part(finetune, 60),
    "models": Part(measure_models, 45),
    "synth": Part(synth, 20),
    "train": Part(train, 110),
}


def main() -> None:
    name, file, *dry = sys.argv[1:]
    sys.path.append(str(TESTS))
    figures = PARTS[name].measure(bool(dry))
    Path(file).write_text(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
