"""The whole command `handclr mine` on millions of poses, in parts: time, memory, and exactness.

    python tests/benchmarks/mining_scale.py --rows 1000000 10000000 --parts 8 --take 1

N poses as mining.py makes them are written as pose files of a million, and `handclr mine --part
I/P` is run for the first `--take` parts, as an array job would. The seconds of all parts are P
times those of a part. Each part reads the pool and builds the search anew, so parts of P cost more
together than one run of the whole. Of the positives of each part some are compared with what a
search over all pairs in float64 finds, to the last bit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from extraction import HANDCLR
from mining import WALKS, Task, walks
from mining_peers import AXES, nearest

from handclr_cli.contract.npz import write_npz
from handclr_cli.contract.provenance import provenance
from handclr_cli.similarity.exact import Tiles
from handclr_cli.similarity.neighbours import EmbeddedPoses

ROWS_OF_A_FILE = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 2_000_000])
    parser.add_argument("--regime", choices=WALKS, default="dup")
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--take", type=int, default=1)
    parser.add_argument("--checked", type=int, default=400, help="rows compared with all others")
    parser.add_argument("--json", type=Path, help="write all numbers")
    options = parser.parse_args()
    print("| poses | parts | seconds of a part | of all | peak MB | exact of checked |")
    print("|--:|--:|--:|--:|--:|--:|", flush=True)
    told = [measured(rows, options) for rows in options.rows]
    for one, other in pairwise(told):
        growth = np.log(other["all"] / one["all"]) / np.log(other["rows"] / one["rows"])
        print(f"\nfrom {one['rows']:,} to {other['rows']:,}: grows as N^{growth:.2f}")
    if options.json:
        options.json.write_text(json.dumps(told, indent=2) + "\n")


def measured(rows: int, options: argparse.Namespace) -> dict[str, float]:
    """Mine some of the parts of so many poses, and print what it took."""
    poses = walks(rows, *WALKS[options.regime], np.random.default_rng(0))
    taken = np.linspace(0, options.parts - 1, options.take).round().astype(int)
    seconds, peaks, right, checked = [], [], 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "pose", poses)
        for part in taken:
            pairs = folder / f"{part}.npz"
            took, peak = mined(folder / "pose", f"{part}/{options.parts}", pairs)
            seconds.append(took)
            peaks.append(peak)
            asked, found = sample(pairs, options.checked // options.take)
            truth = nearest(Tiles(poses), poses.take(asked)).squared[:, 0]
            right += round(Task(poses, asked, truth).recall(found) * len(asked))
            checked += len(asked)
            pairs.unlink()
    told = {"rows": rows, "part": float(np.mean(seconds)), "MB": max(peaks)}
    told |= {"all": told["part"] * options.parts, "right": right, "checked": checked}
    words = [f"{rows:,}", str(options.parts), f"{told['part']:.0f}", f"{told['all']:,.0f}"]
    print("|", " | ".join([*words, f"{told['MB']:,.0f}", f"{right} of {checked}"]), "|", flush=True)
    return told


def write(folder: Path, poses: EmbeddedPoses) -> None:
    """Pose files of a million rows; each has the videos of its own rows."""
    folder.mkdir()
    axes = {
        "components": np.eye(AXES, 42),
        "mean": np.zeros(42),
        "explained_variance_ratio": np.full(AXES, 1 / AXES),
    }
    for first in range(0, len(poses.group), ROWS_OF_A_FILE):
        group = poses.group[first : first + ROWS_OF_A_FILE]
        video, video_id = np.unique(group, return_inverse=True)
        keys = [b"v%07d/%09d_r" % (at, first + row) for row, at in enumerate(group.tolist())]
        arrays = {
            **{"key": np.array(keys), "video": np.array([b"v%07d" % at for at in video])},
            **{"video_id": video_id.astype(np.int32), **axes},
            "embedding": poses.embedding[first : first + ROWS_OF_A_FILE],
        }
        record = provenance("pca", {"dim": AXES})
        write_npz(str(folder / f"{first:09d}.npz"), "pose", arrays, record)


def mined(pose: Path, part: str, output: Path) -> tuple[float, float]:
    """Seconds and peak memory in MB of the command for one part."""
    command = [*HANDCLR, "mine", "-q", pose, "--part", part, "-o", output]
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"mine {part}: exit code {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def sample(pairs: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the pool (C,) and their positives (C,), drawn from a file of pairs."""
    with np.load(pairs) as arrays:
        key, target, positive = (arrays[name] for name in ("key", "target", "positive"))
    some = np.random.default_rng(0).choice(len(key), min(count, len(key)), replace=False)
    return row_numbers(key[some]), row_numbers(target[positive[some, 0]])


def row_numbers(keys: np.ndarray) -> np.ndarray:
    return np.array([int(name.split(b"/")[1].split(b"_")[0]) for name in keys.tolist()])


if __name__ == "__main__":
    main()
