"""Each command on a full disk, in a folder that is read only, and without one of its inputs."""

from __future__ import annotations

from pathlib import Path

import faults
import pytest

# What is not run here, for its time, is in the table that faults.py prints.
RUN = [(name, fault) for name in faults.COMMANDS for fault in faults.FAULTS[:3]]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    faults.make_inputs(folder)
    return folder


@pytest.mark.parametrize(("name", "fault"), [pair for pair in RUN if faults.applies(*pair)])
@pytest.mark.slow
def test_a_fault_is_one_line_and_leaves_nothing(
    name: str, fault: str, inputs: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if name in ("keypoints", "predict film"):
        request.getfixturevalue("landmarker_file")
    if fault != "missing input" and not faults.can_mount():
        pytest.skip("a file system can be mounted here by root only")
    ended = faults.run(name, fault, inputs, tmp_path)
    assert ended.code in (1, 2), ended
    assert len(ended.errors) == 1 and ended.lines[-1] == ended.errors[0], ended
    assert "unexpected" not in ended.errors[0] and ended.left == []
    said = {"full disk": "No space left", "read-only folder": "Read-only", "missing input": "gone-"}
    assert said[fault] in ended.errors[0]
