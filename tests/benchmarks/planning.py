r"""How long each task of an array job plans, and how many videos it opens, on a slow file system.

    python tests/benchmarks/planning.py --videos 30000 --delay 5 --tasks 8 --json planning.json

Makes so many copies of one film of three seconds, 1,000 to a folder, and runs the dry run of
`extract --part I/N --skip-done` over them; each open of a video takes --delay milliseconds longer,
by a library that is loaded before all others (Linux, gcc). without: a task that opens one video
after the other, and keeps nothing. first: a task that finds no headers, and keeps them. next: one
that finds them. together: --tasks of them at once, which find none; the seconds are those of the
slowest. Videos opened are those of all tasks, over the number of videos. Ratios are to `without` of
the same run. Ends with an error where the plans differ.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from films import H264, film

from handclr_cli.footage.model_file import model_file

TREE = Path(__file__).resolve().parents[2]
# Two of each video: for its first bytes, and by FFmpeg.
OPENS = 2
ONE_BY_ONE = "import sys; from handclr_cli.footage import headers; headers.MANY = sys.maxsize"
SLOW = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
static long opens;
static void slow(const char *path) {
  const char *part = getenv("SLOW_PART"), *us = getenv("SLOW_US");
  if (!part || !us || !strstr(path, part)) return;
  __sync_fetch_and_add(&opens, 1);
  struct timespec pause = {0, 1000L * atol(us)};
  nanosleep(&pause, 0);
}
#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    static int (*real)(const char *, int, ...); \
    if (!real) real = dlsym(RTLD_NEXT, #name); \
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
    slow(path); \
    return real(path, flags, mode); \
  }
OPEN(open)
OPEN(open64)
__attribute__((destructor)) static void tell(void) {
  const char *log = getenv("SLOW_LOG");
  FILE *file = log ? fopen(log, "a") : 0;
  if (!file) return;
  fprintf(file, "%ld\n", opens);
  fclose(file);
}
"""


@dataclass
class Task:
    """What one task took, or several; how many opens of videos they made, and what they printed."""

    seconds: float
    opens: int
    missing: bytes


@dataclass(frozen=True)
class Place:
    """The folder of the videos, the library, the delay in milliseconds, the landmarker's model."""

    folder: Path
    library: Path
    delay: float
    model: Path

    def tasks(self, cache: str, count: int = 1, begin: str = "pass") -> Task:
        """Run so many tasks at once, whose cache is this; each begins with some Python."""
        log = self.folder / "log"
        log.unlink(missing_ok=True)
        environment = {
            **os.environ,
            **{"PYTHONPATH": str(TREE), "OMP_NUM_THREADS": "1", "HANDCLR_CACHE": cache},
            **{"SLOW_PART": "videos/", "SLOW_US": f"{1000 * self.delay:.0f}"},
            **{"SLOW_LOG": str(log), "LD_PRELOAD": str(self.library)},
        }
        words = [sys.executable, "-c", f"{begin}; from handclr_cli.main import main; main()"]
        words += ["extract", "--dry-run", "--skip-done", "hands-%06d.tar", "videos/", "-q"]
        words += ["--landmarker", str(self.model)]
        started_s = time.perf_counter()
        started = [
            subprocess.Popen(
                [*words, "--part", f"{part}/{count}"],
                cwd=self.folder,
                env=environment,
                stdout=subprocess.PIPE,
            )
            for part in range(count)
        ]
        told = [process.communicate()[0] for process in started]
        took = time.perf_counter() - started_s
        if any(process.returncode for process in started):
            sys.exit("extract --dry-run failed")
        opens = sum(map(int, log.read_text().split()))
        return Task(took, opens, b"".join(told))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=30_000)
    parser.add_argument("--delay", type=float, default=5.0, help="milliseconds")
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--folder", type=Path, help="where the copies are made")
    parser.add_argument("--json", type=Path, help="write all numbers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        folder = Path(made)
        place = Place(folder, library(folder), options.delay, model_file(None, print))
        copies(folder, options.videos)
        found = {
            "without": place.tasks(os.devnull, begin=ONE_BY_ONE),
            "first": place.tasks(str(folder / "cache")),
            "next": place.tasks(str(folder / "cache")),
            "together": place.tasks(str(folder / "another"), options.tasks),
        }
    numbers = {}
    for name, task in found.items():
        share = task.opens / OPENS / options.videos
        ratio = task.seconds / found["without"].seconds
        print(f"{name}: {task.seconds:.1f} s, {ratio:.3f} of without; videos opened {share:.3f}")
        numbers[name] = {"seconds": task.seconds, "ratio": ratio, "opened": share}
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=2) + "\n")
    if len({task.missing for task in found.values()}) > 1:
        sys.exit("the tasks have different plans")


def library(folder: Path) -> Path:
    """The library that makes opens slow."""
    path = folder / "slow.so"
    line = ["gcc", "-O2", "-shared", "-fPIC", "-x", "c", "-o", str(path), "-", "-ldl"]
    subprocess.run(line, input=SLOW.encode(), check=True)
    return path


def copies(folder: Path, count: int) -> None:
    """So many videos, each a file of its own."""
    one = film(folder / "one.mp4", 30, 10, *H264)
    for number in range(count):
        target = folder / "videos" / f"{number // 1000:03d}" / f"{number:06d}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(one, target)


if __name__ == "__main__":
    main()
