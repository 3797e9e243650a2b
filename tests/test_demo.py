"""$ handclr demo: its plan, the runner with programs made up for it, and the whole of it on the
smallest scale.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from shard_helpers import ROOT, cli_env, error_line, run_cli

from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.main import app
from handclr_cli.report.demo_job import PAGE, QUICK, SCALE, STAGES
from handclr_cli.work import stages
from handclr_cli.work.stages import Book, Lines, Stage, command_line, plan_of, run_stage

# What stands in for handclr: `make FILE TEXT` appends to a file, as a trainer goes on; `save FILE`
# keeps its standard input; `wait FILE` writes which signal ended it.
PROGRAM = """
import signal, sys, time
from pathlib import Path
verb, *words = sys.argv[1:]
if verb == "make":
    Path(words[0]).parent.mkdir(exist_ok=True)
    with open(words[0], "a") as file:
        file.write(words[1] + "\\n")
elif verb == "say":
    print(*words)
elif verb == "yes":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    while True:
        sys.stdout.write("yes\\n" * 10_000)
elif verb == "save":
    Path(words[0]).write_text(sys.stdin.read())
elif verb == "exit":
    sys.exit(int(words[0]))
elif verb == "wait":
    def end(number, frame):
        Path(words[0]).write_text(signal.Signals(number).name)
        sys.exit(75)
    signal.signal(signal.SIGTERM, end)
    Path(words[0]).write_text("waiting")
    time.sleep(60)
"""
DRIVER = """
import sys
from pathlib import Path
from handclr_cli.work import ending, stages
stages.PROGRAM = (sys.executable, sys.argv[1])
stages.GRACE_S = 0.2
ending.end_on_signals()
stage = stages.Stage("long", "wait {dir}/first | wait {dir}/second > {dir}/out", ("first",))
book = stages.Book(Path(sys.argv[2]))
[(stage, line)] = stages.plan_of([stage], {})
book.waiting([(stage, line)])
stages.run_stage(book, stage, line)
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    monkeypatch.setattr(stages, "PROGRAM", (sys.executable, str(path)))
    return path


def chain(**numbers: str) -> Lines:
    """Three stages, of which the last reads what the first makes and the second stands aside."""
    words = {"first": "1", "second": "2", "third": "3", **numbers}
    table = (
        Stage("first", "make {dir}/one/file {first}", ("one/file",)),
        Stage("second", "make {dir}/two {second}", ("two",)),
        Stage("third", "make {dir}/three {third} {dir}/one/file", ("three",)),
    )
    return plan_of(table, words)


def run(folder: Path, plan: Lines) -> list[str]:
    """Run what is to be run, as the demo does; returns its names."""
    book = Book(folder)
    waiting = book.waiting(plan)
    for stage, line in plan:
        if stage in waiting:
            run_stage(book, stage, line)
    return [stage.name for stage in waiting]


def test_what_a_stage_reads_is_made_before_by_one_stage() -> None:
    made: dict[str, str] = {}
    for stage, line in plan_of(STAGES, SCALE):
        assert not stage.tops & made.keys()
        read = {word.removeprefix("{dir}/") for word in line if word.startswith("{dir}/")}
        for name in read:
            assert Path(name).parts[0] in made.keys() | stage.tops, (stage.name, name)
        made.update(dict.fromkeys(stage.tops, stage.name))
    assert SCALE.keys() == QUICK.keys()


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
@pytest.mark.slow
def test_every_command_of_the_demo_is_one_of_ours(stage: Stage, tmp_path: Path) -> None:
    [(stage, line)] = plan_of([stage], SCALE)
    for typed in command_line(line, tmp_path).partition(" > ")[0].split(" | "):
        command, words = typer.main.get_command(app), shlex.split(typed)[1:]
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        command.make_context("handclr", words)


def test_a_printed_line_does_in_a_shell_what_it_says(program: Path, tmp_path: Path) -> None:
    folder = tmp_path / "it's a folder"
    stage = Stage("pipe", "say 'two words' | save {dir}/saved > {dir}/out", ("saved", "out"))
    [(_, line)] = plan_of([stage], {})
    folder.mkdir()
    function = f'handclr() {{ {shlex.join(stages.PROGRAM)} "$@"; }}\n'
    subprocess.run(["sh", "-c", function + command_line(line, folder)], check=True)
    assert (folder / "saved").read_text() == "two words\n" and (folder / "out").read_text() == ""
    other = tmp_path / "other"
    run(other, [(stage, line)])
    assert [(other / name).read_bytes() for name in stage.makes] == [
        (folder / name).read_bytes() for name in stage.makes
    ]


@pytest.mark.slow
def test_what_is_finished_is_not_run_again(program: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    assert run(folder, chain()) == ["first", "second", "third"]
    assert run(folder, chain()) == []
    moved = folder.rename(tmp_path / "moved")
    assert run(moved, chain()) == []
    book = json.loads((moved / "demo.json").read_text())
    assert book["stages"]["second"]["line"] == ["make", "{dir}/two", "2"]
    assert 0 < book["stages"]["second"]["seconds"] < 60
    (moved / "two").unlink()
    assert run(moved, chain()) == ["second"]


@pytest.mark.slow
def test_a_changed_stage_takes_those_after_it_along(program: Path, tmp_path: Path) -> None:
    run(tmp_path / "demo", chain())
    assert run(tmp_path / "demo", chain(first="other")) == ["first", "third"]
    # Made anew: nothing that was made otherwise is gone on from.
    assert (tmp_path / "demo" / "one" / "file").read_text() == "other\n"
    assert (tmp_path / "demo" / "three").read_text() == "3\n"
    assert run(tmp_path / "demo", chain(first="other", third="last")) == ["third"]


@pytest.mark.slow
def test_a_failure_keeps_what_is_finished(program: Path, tmp_path: Path) -> None:
    plan = chain()
    bad = Stage("bad", "make {dir}/part x | exit 5 > {dir}/bad", ("part", "bad"))
    broken = [plan[0], *plan_of([bad], {}), plan[2]]
    with pytest.raises(
        HandclrError, match=r"stage 'bad' failed with exit code 5: handclr make .*part x \| handclr"
    ):
        run(tmp_path / "demo", broken)
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == [
        "demo.json",
        "one",
        "part",
    ]
    # It was the same stage: it may go on from what it left.
    better = Stage("bad", bad.line, ("part",))
    with pytest.raises(HandclrError):
        run(tmp_path / "demo", [plan[0], *plan_of([better], {})])
    assert (tmp_path / "demo" / "part").read_text() == "x\nx\n"
    assert (tmp_path / "demo" / "one" / "file").read_text() == "1\n"


@pytest.mark.slow
def test_after_a_change_and_a_failure_nothing_old_is_left(program: Path, tmp_path: Path) -> None:
    plan = chain()
    run(tmp_path / "demo", plan)
    failing = plan_of([Stage("first", "exit 1 {dir}/one/file", ("one/file",))], {})
    with pytest.raises(HandclrError):
        run(tmp_path / "demo", [*failing, *plan[1:]])
    assert run(tmp_path / "demo", plan) == ["first", "third"]
    assert (tmp_path / "demo" / "three").read_text() == "3\n"


@pytest.mark.parametrize(
    ("line", "code"), [("yes | exit 5", 5), ("exit 4 | save {dir}/file", 4), ("exit 4 | exit 5", 4)]
)
def test_who_failed_in_a_pipe(program: Path, tmp_path: Path, line: str, code: int) -> None:
    with pytest.raises(HandclrError, match=f"exit code {code}: "):
        run(tmp_path / "demo", plan_of([Stage("pipe", line, ("file",))], {}))


def test_skipped_inputs_are_no_failure(program: Path, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    book = Book(tmp_path / "demo")
    [(stage, line)] = plan_of([Stage("skips", "exit 3", ())], {})
    run_stage(book, stage, line)
    assert book.seconds(stage) > 0


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_reaches_every_child(
    program: Path, tmp_path: Path, sent: signal.Signals
) -> None:
    folder = tmp_path / "demo"
    running = subprocess.Popen(
        [sys.executable, "-c", DRIVER, program, folder], stderr=subprocess.DEVNULL, env=cli_env()
    )
    until = time.monotonic() + 30
    while not all(
        (folder / name).exists() and (folder / name).read_text() for name in ("first", "second")
    ):
        assert time.monotonic() < until and running.poll() is None
        time.sleep(0.05)
    running.send_signal(sent)
    running.wait(20)
    assert (folder / "first").read_text() == (folder / "second").read_text() == "SIGTERM"
    assert sorted(path.name for path in folder.iterdir()) == ["demo.json", "first", "second"]
    assert json.loads((folder / "demo.json").read_text())["stages"]["long"]["seconds"] is None


def test_what_was_begun_under_another_name_begins_anew(program: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with pytest.raises(HandclrError):
        run(folder, plan_of([Stage("run", "exit 1 {dir}/run", ("run",))], {}))
    (folder / "run").write_text("half\n")
    moved = folder.rename(tmp_path / "moved")
    book = Book(moved)
    [(stage, line)] = plan_of([Stage("run", "exit 1 {dir}/run", ("run",))], {})
    assert book.waiting([(stage, line)]) == [stage]
    book.begin(stage, line)
    assert not (moved / "run").exists()


@pytest.mark.slow
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "footage").mkdir()
    with pytest.raises(UsageError, match="neither empty nor the folder of a demo"):
        Book(tmp_path)
    assert "name another one" in error_line(run_cli("demo", tmp_path), 2)
    assert [path.name for path in tmp_path.iterdir()] == ["footage"]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"folder": 1, "stages": {"first": {}}}'])
def test_a_damaged_book_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "demo.json").write_text(text)
    with pytest.raises(HandclrError, match=r"demo\.json: damaged"):
        Book(tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HandclrError, match="cannot use .*file: "):
        Book(tmp_path / "file")


@pytest.mark.slow
@pytest.mark.landmarker
def test_the_whole_demo(tmp_path: Path) -> None:
    def demo(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "handclr_cli", "demo", "my demo", "--quick", *options]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=env, timeout=900
        )

    first = demo()
    assert first.returncode == 0, first.stderr
    assert first.stdout == f"my demo/{PAGE}\n"
    for _, line in plan_of(STAGES, QUICK):
        assert f"\n{command_line(line, Path('my demo'))}\n" in first.stderr
    page = (tmp_path / "my demo" / PAGE).read_text(encoding="utf-8")
    assert "Similar hands" in page and "<span>pretrain</span>" in page
    again = demo("-q")
    assert (again.returncode, again.stdout, again.stderr) == (0, first.stdout, "")
    assert (tmp_path / "my demo" / PAGE).read_text(encoding="utf-8") == page
