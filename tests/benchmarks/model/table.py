r"""What the model that comes with handclr is off by, beside MediaPipe and the mean pose.

    handclr import freihand FreiHAND/ --split eval -o freihand.tar
    handclr import dexycb DexYCB/ --split all -o dexycb.tar
    handclr synth labelled --world lab --count 500 --seed 77 -o lab.tar
    handclr synth labelled --world wild --count 500 --seed 77 -o wild.tar
    python tests/benchmarks/model/table.py freihand.tar dexycb.tar lab.tar wild.tar

Each figure is of `handclr evaluate SET --model MODEL`: MPJPE in mm with its 95 % interval, after
root, root and bone, and Procrustes alignment. What follows a colon names that which the intervals
draw.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

WAYS = {
    "MediaPipe's world landmarks": ("--model", "mediapipe"),
    "handclr's model": (),
    "handclr's model, of the crop alone": ("--alone",),
}
ALIGNMENTS = ("root", "root+bone", "procrustes")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", metavar="TAR[:FIELD]")
    parser.add_argument("--model", help="another model.pt in the place of handclr's")
    options = parser.parse_args()
    print("| set | predicted by | found | root | root and bone | Procrustes |")
    print("|---|---|--:|--:|--:|--:|")
    for named in options.sets:
        path, _, unit = named.partition(":")
        for name, words in WAYS.items():
            own = ("--model", options.model) if options.model and "mediapipe" not in words else ()
            report = evaluated(path, unit or "sample", *own, *words)
            found = report.get("hands_found", {"samples": report["samples"]})["samples"]
            print_row(path, name, found, report["model"])
        print_row(path, "the mean pose", report["samples"], report["mean_pose_of_training_set"])


def evaluated(path: str, unit: str, *words: str) -> dict[str, Any]:
    line = [sys.executable, "-m", "handclr_cli", "evaluate", path, "--resample-by", unit, *words]
    done = subprocess.run(line, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def print_row(path: str, name: str, found: int, scores: dict[str, Any]) -> None:
    cells = [path, name, f"{found:,}"]
    for alignment in ALIGNMENTS:
        low, high = scores[alignment]["mpjpe_mm_interval"]
        cells.append(f"{scores[alignment]['mpjpe_mm']:.1f} [{low:.1f}, {high:.1f}]")
    print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
