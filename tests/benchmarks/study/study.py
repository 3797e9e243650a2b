"""The paper's comparison in small, end to end, on data that anybody can make again; every cell is a
handclr command.

    python tests/benchmarks/study/study.py runs/study          # all of it; run again to go on
    python tests/benchmarks/study/study.py runs/study --list   # what is done and what is not
    python tests/benchmarks/study/study.py runs/study --jobs 2 # small trainings share the cores
    python tests/benchmarks/study/study.py runs/study --only '*/handclr/*' --dry-run
    python tests/benchmarks/study/tables.py runs/study         # docs/results.md

In-the-wild footage is filmed by `synth`, its hands are found and their keypoints told by MediaPipe,
pairs are mined of these; encoders are pre-trained by every method on the same crops for as many
steps, fine-tuned on fractions of the labels of one studio for as many steps, and tested on people
of another studio and in the wild. What is done is noted in RUN/done with its command, and what the
command said in RUN/log. `scale.py` has the sizes. `--only '*/1/*'` is all of seed 1: a folder's
runs are of one processor, and all of a seed of one folder. RUN/real may be a folder, or a link to
one, with films in `videos` and labelled images laid out as their sets are in `freihand` and
`dexycb`; without it what is real is left out.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import count
from pathlib import Path
from threading import Lock

from plan import PROCESSOR, Cell, chain, models
from scale import REAL, SCALES

DONE_WITH_SKIPS = 3


def main() -> None:
    arguments = parse()
    root, scale = arguments.run, SCALES[arguments.scale]
    real = (root / REAL).exists()
    wanted = [model for model in models(scale) if real or not model.needs_real]
    chains = [leading_to(arguments.only, chain(scale, root, model, real)) for model in wanted]
    chosen = list(dict.fromkeys(cell for cells in chains for cell in cells))
    todo = [cell for cell in chosen if not cell.done(root)]
    if arguments.list:
        waiting = {cell.name for cell in todo}
        for cell in chosen:
            print("    " if cell.name in waiting else "done", cell.name)
    elif arguments.dry_run:
        print("\n".join(cell.line for cell in todo))
    else:
        keep_to_one_processor(root)
        follow_all(chains, {cell.name for cell in todo}, root, arguments.jobs)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--scale", choices=SCALES, default="cpu")
    parser.add_argument(
        "--jobs", type=int, default=1, help="cells to run at a time, which share the cores"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=["*"],
        help="patterns of the names of cells; what they need is run too",
    )
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--dry-run", action="store_true", help="print the commands")
    return parser.parse_args()


def keep_to_one_processor(root: Path) -> None:
    """Note the processor; one folder's runs are of one kind, since another rounds differently."""
    note, here = root / PROCESSOR, processor()
    if note.exists() and note.read_text().strip() != here:
        sys.exit(f"{note}: was begun on another processor than {here}; name another folder")
    root.mkdir(parents=True, exist_ok=True)
    note.write_text(here + "\n")


def processor() -> str:
    """What the system calls the processor, the best of what networks use of it, and its cores."""
    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"model name\s*: (.*)", told)
    best = next((flag for flag in ("amx_bf16", "avx512_bf16", "avx2") if flag in told), "")
    called = [name[1] if name else platform.machine(), best, f"{os.cpu_count()} cores"]
    return ", ".join(filter(None, called))


def leading_to(patterns: Sequence[str], chain: Iterable[Cell]) -> list[Cell]:
    """A chain up to the last cell that is asked for; nothing of a chain without one."""
    cells, last = list(chain), 0
    for number, cell in enumerate(cells, 1):
        if any(fnmatch.fnmatch(cell.name, pattern) for pattern in patterns):
            last = number
    return cells[:last]


def follow_all(chains: list[list[Cell]], todo: set[str], root: Path, jobs: int) -> None:
    """Run what is to be done of every chain in its order, of `jobs` chains at a time; what several
    need once.
    """
    locks, numbers = {name: Lock() for name in todo}, count(1)
    cores = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))} if jobs > 1 else {}

    def follow(chain: list[Cell]) -> None:
        for cell in chain:
            if cell.name in todo:
                with locks[cell.name]:
                    if not cell.done(root):
                        said = f"{next(numbers)} of {len(todo)}: {cell.name}"
                        print(said, file=sys.stderr, flush=True)
                        run(cell, root, os.environ | cores)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for future in as_completed([pool.submit(follow, chain) for chain in chains]):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def run(cell: Cell, root: Path, environment: dict[str, str]) -> None:
    """Run a command, and note that it ended well and how long it took."""
    log, note = (root / kind / cell.name for kind in ("log", "done"))
    for path in (log, note, *(word for word in cell.words if isinstance(word, Path))):
        path.parent.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    with log.open("a") as said:
        print(f"$ {cell.line}", file=said, flush=True)
        script = str(Path(__file__).parent / cell.program)
        program = ["-m", "handclr_cli"] if cell.program == "handclr" else [script]
        command = [sys.executable, *program, *map(str, cell.words)]
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, env=environment
        )
        print(f"{time.monotonic() - begin:.1f} s, exit code {ended.returncode}", file=said)
    if ended.returncode not in (0, DONE_WITH_SKIPS):
        sys.exit(f"{cell.name} ended with exit code {ended.returncode}; {log} has what it said")
    if cell.output:
        cell.output.write_bytes(ended.stdout)
    note.write_text(cell.line + "\n")


if __name__ == "__main__":
    main()
