"""The check of a GPU runs its other parts when one fails, and tells why. (.ci/run runs all parts in
small.)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from house import ROOT

CHECK = ROOT / "tests" / "benchmarks" / "gpu"
PARTS = """\
import json, subprocess, sys, time
from pathlib import Path
from typing import NamedTuple

class Part(NamedTuple):
    measure: object
    limit_s: float
    file: str = __file__

def good(dry): return {"rate": 3}
def bad(dry): raise SystemExit("no such luck")
def hangs(dry):
    child = subprocess.Popen(["sleep", "600"])
    Path(sys.argv[2]).with_suffix(".pid").write_text(str(child.pid))
    time.sleep(600)
def absent(dry): return {"skipped": True, "why": "not here"}

PARTS = {
    "good": Part(good, 20), "bad": Part(bad, 20), "hangs": Part(hangs, 3),
    "absent": Part(absent, 20), "after": Part(good, 20),
}
if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(PARTS[sys.argv[1]].measure(True)))
"""


@pytest.mark.slow
def test_what_fails_or_hangs_costs_no_other_part(tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text(PARTS)
    (tmp_path / "check.py").write_text((CHECK / "check.py").read_text())
    begin, out = time.monotonic(), tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "check.py", out, "--dry"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    told = json.loads((out / "check.json").read_text())["parts"]
    assert done.returncode == 1 and time.monotonic() - begin < 30
    statuses = {name: part["status"] for name, part in told.items()}
    assert statuses == {
        "good": "done",
        "bad": "failed",
        "hangs": "failed",
        "absent": "skipped",
        "after": "done",
    }
    assert told["good"]["rate"] == told["after"]["rate"] == 3
    assert told["bad"]["why"] == "no such luck" and told["hangs"]["why"] == "ended after 3 s"
    assert "| bad | failed |" in done.stdout and "rate: 3" in done.stdout
    child = (out / "hangs.pid").read_text()
    assert not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text()
