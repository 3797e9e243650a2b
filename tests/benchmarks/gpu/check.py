"""Run the parts of the check of a GPU, each in a process of its own under a limit of its own; what
fails or takes too long costs no other part.

    tests/benchmarks/gpu/check.sh OUT [--dry] [--only PART ...]

Writes OUT/PART.json as each ends, OUT/PART.log with what it said, at the end OUT/check.json, and
prints a table. The exit code is 1 where a part failed. `--dry` is everything in small on a
processor, as on a machine without the libraries that training and evaluation do not need.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from parts import PARTS, Part

# All of it, of which a part may use what is left.
WHOLE_S = 480
# What a bare machine has none of, and what refuses it, so that a dry run is as there.
LACKING = ("mediapipe", "hnswlib", "webdataset", "numba", "av", "jinja2", "matplotlib", "yaml")
REFUSING = f"""\
import sys
class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {LACKING!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Lacking())
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    env, until = environment(options.out, options.dry), time.monotonic() + WHOLE_S
    told = {}
    for name in options.only:
        limit = min(PARTS[name].limit_s, until - time.monotonic())
        print(f"{name}: at most {limit:.0f} s", file=sys.stderr, flush=True)
        told[name] = run(name, PARTS[name], options, env, limit)
    text = json.dumps({"dry": options.dry, "parts": told}, indent=2)
    (options.out / "check.json").write_text(text + "\n")
    print(table(told))
    sys.exit(any(part["status"] == "failed" for part in told.values()))


def environment(out: Path, dry: bool) -> dict[str, str]:
    """The environment of the parts."""
    env = {**os.environ, "HANDCLR_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    if dry:
        folder = out / "bare"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(REFUSING)
        env["PYTHONPATH"] = f"{folder.resolve()}:{env['PYTHONPATH']}"
        env["CUDA_VISIBLE_DEVICES"] = ""
    return env


def run(
    name: str, part: Part, options: argparse.Namespace, env: dict[str, str], limit_s: float
) -> dict[str, Any]:
    """Run a part; its status, seconds, and what it measured."""
    file, log, begin = options.out / f"{name}.json", options.out / f"{name}.log", time.monotonic()
    file.unlink(missing_ok=True)
    words = [sys.executable, part.file, name, str(file), *["--dry"] * options.dry]
    with log.open("wb") as said:
        process = subprocess.Popen(words, stdout=said, stderr=said, env=env, start_new_session=True)
        try:
            status = "failed" if process.wait(max(1, limit_s)) else "done"
        except subprocess.TimeoutExpired:
            status = "failed"
            said.write(f"ended after {limit_s:.0f} s\n".encode())
        finally:
            # Also what it started, which may hold the GPU's memory.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    measured = json.loads(file.read_text()) if file.exists() else {}
    if status == "failed":
        measured["why"] = last_line(log)
    elif measured.pop("skipped", None):
        status = "skipped"
    return {"status": status, "seconds": round(time.monotonic() - begin, 1), **measured}


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no word"


def table(told: dict[str, dict[str, Any]]) -> str:
    """What was measured, a line for each figure."""
    rows = ["| part | status | s | |", "|---|---|--:|---|"]
    for name, part in told.items():
        figures = [f"{key}: {value}" for key, value in part.items() if key not in _COLUMNS]
        rows.append(f"| {name} | {part['status']} | {part['seconds']} | {'; '.join(figures)} |")
    return "\n".join(rows)


_COLUMNS = ("status", "seconds")

if __name__ == "__main__":
    main()
