"""The house keeps its own rules: generated texts are current, rooms know nothing of the
front door.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import house
import pytest
from house import PACKAGE, ROOT

from handclr_cli.contract.document import rewrite

ROOMS = [
    path
    for path in PACKAGE.rglob("*.py")
    if path.parent not in (PACKAGE, PACKAGE / "commands", PACKAGE / "reference")
]


def test_the_tables_of_the_format_are_those_of_the_declaration() -> None:
    page = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
    assert "keypoints2d.npy" in page and rewrite(page) == page, "run make docs"


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
    shared = {"__init__", "trainers"}
    commands = {path.stem for path in (PACKAGE / "commands").glob("*.py")} - shared
    stages = {"extract", "keypoints", "pca", "mine", "pretrain", "finetune", "evaluate"}
    assert commands == stages | {"import_", "predict", "inspect", "synth", "demo"}
    missing = [
        name for name in commands if not (ROOT / "tests" / f"test_{name.strip('_')}.py").exists()
    ]
    assert not missing


# From the ground up; what stands on one floor stands side by side, without an arrow between.
FLOORS = (
    {"console", "choices", "contract"},
    {"hand", "work"},
    {"footage", "similarity", "datasets", "learning", "evaluation", "synth"},
    {"report", "inspection"},
    {"prediction"},
    {"commands"},
    {"main"},
    {"__main__", "reference"},
)
# Of the front door of the terminal; what lies at the front door of Python is no floor.
BESIDE = {"parsing", "options", "completion", "__init__"}
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def test_no_files_need_each_other() -> None:
    assert house.circles(house.needs()) == []


def test_arrows_run_downwards_only() -> None:
    floor = {name: number for number, rooms in enumerate(FLOORS) for name in rooms}
    assert {house.room(name) for name in house.modules()} == floor.keys() | BESIDE
    upwards = []
    for name, others in house.needs().items():
        for other in others:
            here, there = house.room(name), house.room(other)
            if here in BESIDE or here == there:
                continue
            if there in BESIDE:
                allowed = here in ("commands", "main", "reference") and there != "__init__"
            else:
                allowed = floor[there] < floor[here]
            if not allowed:
                upwards.append(f"{name} -> {other}")
    assert upwards == []


def test_a_room_knows_no_options() -> None:
    found = []
    for path in ROOMS:
        for line, text in house.texts(ast.parse(path.read_text(encoding="utf-8"))):
            is_pip = path.name == "model_file.py" and text in PIP
            if re.search(r"(?<!-)--[a-z]", text) and not is_pip:
                found.append(f"{path.relative_to(PACKAGE)}:{line}: {text}")
    assert found == []


# Of another program: what pip is called with.
PIP = {
    *("--python-version=3.12", "--implementation=cp", "--abi=cp312"),
    *("--platform=manylinux_2_28_x86_64", "--quiet", "--disable-pip-version-check"),
    *("--no-deps", "--only-binary=:all:", "--dest"),
}


def test_a_statement_has_one_comprehension() -> None:
    crowded = []
    for name, path in house.modules().items():
        for statement in house.statements(ast.parse(path.read_text(encoding="utf-8"))):
            parts = house.own_expressions(statement)
            if sum(isinstance(part, COMPREHENSIONS) for part in parts) > 1:
                crowded.append(f"{name}:{statement.lineno}")
    assert crowded == []


# Public names of more than one function or class, beside the commands, which are named as typed.
SHARED = {
    "mine": "arrays as `handclr.mine` takes them, or a span of a pool: one work, called by two",
}


def test_one_name_is_one_thing() -> None:
    homes: dict[str, list[str]] = {}
    for name, path in house.modules().items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            is_public = isinstance(node, house.DEFINED) and not node.name.startswith("_")
            if is_public and house.room(name) != "commands":
                homes.setdefault(node.name, []).append(name)
    assert {name for name, files in homes.items() if len(files) > 1} == SHARED.keys()


def test_a_file_is_no_longer_than_a_room_should_be() -> None:
    lengths = {name: path.read_text().count("\n") for name, path in house.modules().items()}
    assert {name: length for name, length in lengths.items() if length > 350} == {}


def test_a_file_of_tests_imports_no_other() -> None:
    found = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            found += [f"{path.name}: {name}" for name in names if name.startswith("test_")]
    assert found == []


def test_settings_have_a_sentence_for_each_field() -> None:
    lacking = []
    for name, path in house.modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Settings") and node.bases:
                decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
                assert decorators == ["dataclass(frozen=True, kw_only=True)"], node.name
                lacking += [f"{name}.{node.name}.{field}" for field in _undescribed(node)]
    assert lacking == []


def _undescribed(node: ast.ClassDef) -> list[str]:
    """The fields of a class without a text below them."""
    found = []
    for statement, below in zip(node.body, [*node.body[1:], ast.Pass()], strict=True):
        if not isinstance(statement, ast.AnnAssign) or "ClassVar" in ast.unparse(
            statement.annotation
        ):
            continue
        described = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        if not described:
            found.append(ast.unparse(statement.target))
    return found


# Elsewhere than in `atomic_write`, what writes does so to a file of that, or to no final name.
WRITERS = {
    "console": {"open wb", "fdopen w"},  # to nowhere, and standard error
    "contract.document": {"write_text"},  # make docs
    "contract.npz": {"np.savez"},  # to a file that is open
    "contract.output": {"open wb", "open a", "os.open", "os.replace"},
    "contract.temporary": {"open x+b", "open xb", "os.open"},
    "hand.film": {"open w"},  # to the name of a temporary file
    "footage.model_file": {"ZipFile w"},  # to a file that is open
    "learning.run": {"torch.save"},
    "learning.tracker_kinds": {"SummaryWriter"},  # to a new name each time
    "main": {"os.open"},  # to nowhere
    "reference.__main__": {"write_text"},  # make docs
    "report.curves": {"print_png"},  # to a file that is open
    "synth.video_file": {"VideoWriter"},  # to the name of a temporary file
    "synth.layout_files": {"open wb", "np.savez_compressed", "os.replace"},  # a temporary folder
    "work.ending": {"os.open", "open w"},  # to nowhere
    "work.worker": {"os.open"},  # to nowhere
}


def test_files_are_written_under_temporary_names() -> None:
    found = {}
    for name, path in house.modules().items():
        if writes := set(house.writers(ast.parse(path.read_text(encoding="utf-8")))):
            found[name] = writes
    assert found == WRITERS


@pytest.mark.parametrize(
    "line",
    [
        *("open(path, 'w')", "open(path, mode='ab')", "Path(path).open('x')", "path.open(mode)"),
        *("path.write_text('')", "cv2.imwrite(path, image)", "figure.savefig(path)"),
        *("torch.save(state, path)", "np.save(path, array)", "os.rename(a, b)", "a.rename(b)"),
        *("a.replace(b)", "shutil.copyfile(a, b)", "os.open(path, os.O_CREAT)", "a.touch()"),
        *("zipfile.ZipFile(path, 'w')", "np.savez(path)", "cv2.VideoWriter(path, 0, 1, (1, 1))"),
        *("av.open(path, 'w')", "av.open(path, mode='w')"),
    ],
)
def test_what_writes_is_seen(line: str) -> None:
    assert list(house.writers(ast.parse(line)))


@pytest.mark.parametrize(
    "line",
    [
        "open(path)",
        "av.open(path)",
        "open(path, 'rb')",
        "path.open()",
        "a.replace('b', 'c')",
        "replace(a)",
    ],
)
def test_what_reads_is_not(line: str) -> None:
    assert not list(house.writers(ast.parse(line)))


def test_the_pins_with_hashes_are_those_without() -> None:
    found = []
    for name in ("constraints.txt", "constraints-hashes.txt"):
        text = (ROOT / name).read_text(encoding="utf-8")
        pins = re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.M)
        found.append({re.sub(r"[-_.]+", "-", pin.lower()): version for pin, version in pins})
    assert found[0] == found[1], "run the command in the head of constraints-hashes.txt"
    assert re.search(r"\\\n +--hash=sha256:[0-9a-f]{64}", text) and "://" not in text
