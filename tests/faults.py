"""$ python tests/faults.py: every command on a full disk, without its streams and so on, a table.

test_faults.py holds that each ends with exit code 1 or 2 and one line, and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import warm
from labelled_helpers import write_labelled
from shard_helpers import cli_env, crops, write_pose, write_shard

from handclr_cli.contract.npz import as_keys
from handclr_cli.contract.shards import read_samples
from handclr_cli.learning.encoder import Encoder
from handclr_cli.learning.pose import PoseNet
from handclr_cli.learning.posemodel import MeanPose, save_payload

TRAIN = "--arch resnet18 --size 32 --batch 4 --epochs 1 --device cpu --workers 0"
# {i} is the folder of inputs, {o} that of outputs; what is in <> is missing in one of the runs.
COMMANDS = {
    "extract": "extract {i}/<film.png> --detections {i}/boxes.csv --workers 0 -o {o}/x.tar",
    "keypoints": "keypoints {i}/<hands.tar> --workers 0 -o {o}/x.tar",
    "pca": "pca {i}/<hands.tar> --dim 2 -o {o}/x.npz",
    "mine": "mine {i}/<pose.npz> -o {o}/x.npz",
    "pretrain": f"pretrain {{i}}/<labelled.tar> --method simclr {TRAIN} --run {{o}}/run",
    "finetune": f"finetune {{i}}/labelled.tar --encoder {{i}}/<model.pt> {TRAIN} --run {{o}}/run",
    "evaluate": "evaluate {i}/labelled.tar --predictions {i}/<predictions.npz> -o {o}/x.npz",
    "predict": "predict {i}/labelled.tar --model {i}/<model.pt> --device cpu --workers 0 "
    "-o {o}/x.npz",
    "predict film": "predict {i}/<film.png> --workers 0 -o {o}/x.csv --overlay {o}/x.mp4 "
    "--page {o}/x.html",
    "inspect": "inspect {i}/<hands.tar> --sheet {o}/x.png",
    "import": "import hand100m {i}/<annotations.json> --root {i} --workers 0 -o {o}/x.tar",
    "synth labelled": "synth labelled --count 2 --size 64 --workers 1 -o {o}/x.tar",
    "synth footage": "synth footage {o}/films --videos 1 --frames 2 --width 64 --height 64 "
    "--workers 1",
    "demo": "demo {o}/demo --quick",
}
# These write files, and need no standard output.
NO_STDOUT = ("pretrain", "finetune", "synth footage", "demo")
FAULTS = ("full disk", "read-only folder", "missing input", "closed output")


class Ended(NamedTuple):
    """How a command ended: its code, its lines, and what it left in the folder of outputs."""

    code: int
    lines: list[str]
    left: list[str]

    @property
    def errors(self) -> list[str]:
        """The lines that say what is wrong."""
        return [line for line in self.lines if line.startswith("handclr: error: ")]


def make_inputs(folder: Path) -> None:
    """Write what the commands read."""
    write_shard(folder / "hands.tar", crops())
    write_labelled(folder / "labelled.tar", 8)
    write_pose(folder / "pose.npz", [0, 0, 1, 1, 2, 2])
    keys = as_keys([sample.key for sample in read_samples([str(folder / "labelled.tar")])])
    hands = np.random.default_rng(0).normal(0, 0.05, (len(keys), 21, 3)).astype(np.float32)
    np.savez(folder / "predictions.npz", key=keys, keypoints3d=hands)
    mean = MeanPose(np.zeros((21, 3), np.float32), 0.09)
    network = PoseNet(Encoder("resnet18"), head="regress")
    torch.save(save_payload(network, 32, mean), folder / "model.pt")
    for name in ("film.png", "film_0000.png"):
        cv2.imwrite(str(folder / name), np.full((64, 96, 3), 128, np.uint8))
    (folder / "boxes.csv").write_text("image,x0,y0,x1,y1,hand\nfilm.png,10,10,50,50,left\n")
    image = {"id": 0, "file_name": "film_0000.png", "width": 96, "height": 64}
    hand = {"image_id": 0, "hand_id": 0, "boxes": [10, 10, 50, 50], "left_right": "Right"}
    found = {"images": [image], "annotations": [hand | {"keypoint_25d": [0.5] * 63}]}
    (folder / "annotations.json").write_text(json.dumps(found))


def can_mount() -> bool:
    """Whether a file system may be mounted here."""
    done = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return done.returncode == 0 and os.geteuid() == 0


@contextlib.contextmanager
def disk(folder: Path, fault: str) -> Iterator[Path]:
    """A folder of outputs with a fault: a disk that is full, or one that is read only."""
    folder.mkdir()
    if fault not in FAULTS[:2]:
        yield folder
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", folder], check=True)
    try:
        if fault == "full disk":
            (folder / "filler").write_bytes(bytes(8192))
        else:
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def run(name: str, fault: str, inputs: Path, scratch: Path) -> Ended:
    """Run a command with a fault."""
    line = COMMANDS[name]
    if fault == "missing input":
        line = re.sub("<(.*)>", r"gone-\1", line)
    if fault == "closed output":
        line = re.sub(r" (-o|--sheet) \{o\}\S*", "", line)
    with disk(scratch / "out", fault) as outputs:
        words = line.replace("<", "").replace(">", "").format(i=inputs, o=outputs).split()
        if fault == "closed output":
            command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "handclr_cli"]
            done = subprocess.run([*command, *words], env=cli_env(), capture_output=True)
        else:
            done = warm.run(words, b"", cli_env())
        left = [str(path.relative_to(outputs)) for path in outputs.rglob("*") if path.is_file()]
    text = done.stderr.decode("utf-8", "replace").splitlines()
    return Ended(done.returncode, text, [name for name in left if name != "filler"])


def applies(name: str, fault: str) -> bool:
    """Whether a command can have a fault."""
    if fault == "missing input":
        return "<" in COMMANDS[name]
    return fault != "closed output" or name != "demo"


def main() -> None:
    """Print the table."""
    print(f"| command | {' | '.join(FAULTS)} |\n|---|{'---|' * len(FAULTS)}")
    with tempfile.TemporaryDirectory() as folder:
        make_inputs(Path(folder))
        for name in COMMANDS:
            print(
                f"| {name} | {' | '.join(_cell(name, fault, Path(folder)) for fault in FAULTS)} |"
            )


def _cell(name: str, fault: str, inputs: Path) -> str:
    if not applies(name, fault):
        return "-"
    with tempfile.TemporaryDirectory() as scratch:
        ended = run(name, fault, inputs, Path(scratch))
    told = "; ".join(line.removeprefix("handclr: error: ") for line in ended.errors)
    told = re.sub(r"/\S*/", "", told)
    left = f", LEFT {' '.join(ended.left)}" if ended.left and ended.code else ""
    return f"{ended.code}: {told or 'done'}{left}"


if __name__ == "__main__":
    main()
