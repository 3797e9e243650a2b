"""The house keeps its own rules: generated texts are current, rooms know nothing of the
front door.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from handclr_cli.contract.document import rewrite

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "handclr_cli"
ROOMS = [
    path for path in PACKAGE.rglob("*.py") if path.parent not in (PACKAGE, PACKAGE / "commands")
]


def test_the_readme_tables_are_those_of_the_declaration() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "keypoints2d.npy" in readme and rewrite(readme) == readme, "run make docs"


@pytest.mark.parametrize(
    ("shell", "name"), [("bash", "handclr.bash"), ("zsh", "_handclr"), ("fish", "handclr.fish")]
)
def test_completions_are_those_of_the_parser(shell: str, name: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("handclr")],
        env={**os.environ, "_HANDCLR_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == (ROOT / "completions" / name).read_text(encoding="utf-8"), "run make docs"


@pytest.mark.parametrize("path", ROOMS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_neither_typer_nor_a_command(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"^\s*(import|from) (typer|\.*commands|\.*options)\b", text, re.M)


def test_mediapipe_is_imported_in_one_place() -> None:
    found = [
        path.name
        for path in PACKAGE.rglob("*.py")
        if re.search(r"^\s*(import|from) mediapipe", path.read_text(), re.M)
    ]
    assert found == ["landmarker.py"]


def test_every_command_has_a_file_and_a_test() -> None:
    commands = {path.stem for path in (PACKAGE / "commands").glob("*.py")} - {"__init__"}
    stages = {"extract", "keypoints", "pca", "mine", "pretrain", "finetune", "evaluate"}
    assert commands == stages | {"import_", "predict", "inspect", "synth", "demo"}
    missing = [
        name for name in commands if not (ROOT / "tests" / f"test_{name.strip('_')}.py").exists()
    ]
    assert not missing
