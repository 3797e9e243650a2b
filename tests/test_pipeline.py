"""A small pipeline through every command makes the bytes, and says the words, that were recorded.

The bytes depend on the processor and on the libraries too: on another machine only names and exit
codes are compared. After a change that is meant, `python tests/pipeline.py --record`.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pipeline
import pytest
import warm


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, "NO_COLOR": "1", "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    return warm.run(words, b"", env, folder)


@pytest.mark.slow
@pytest.mark.landmarker
def test_the_bytes_are_those_that_were_recorded(tmp_path: Path) -> None:
    recorded = json.loads(pipeline.RECORDED.read_text())
    found = pipeline.checksums(tmp_path, run)
    assert found.keys() == recorded["checksums"].keys()
    codes = [(name, value[:1]) for name, value in found.items() if name.startswith("said ")]
    assert codes == [(name, recorded["checksums"][name][:1]) for name, _ in codes]
    if recorded["machine"] != pipeline.machine():
        pytest.skip("recorded on another machine, whose bytes may differ")
    assert [name for name in found if found[name] != recorded["checksums"][name]] == []
