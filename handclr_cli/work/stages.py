"""Stages of handclr commands, run one after another as subprocesses; finished ones are skipped."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..contract.errors import HandclrError, UsageError
from ..contract.jsontext import parse_json
from ..contract.output import atomic_write, write_json
from ..contract.version import __version__

BOOK = "demo.json"
PROGRAM = (sys.executable, "-m", "handclr_cli")
# 3: done, but some inputs were skipped; the command has said which.
DONE = (0, 3)
CLOSED_PIPE = (-13, 141)
# Ctrl-C and schedulers signal the children too; a second signal in the middle of their cleaning up
# would leave behind what they were about to remove.
GRACE_S = 2.0

Line = list[str]
Lines = list[tuple["Stage", Line]]


@dataclass(frozen=True)
class Stage:
    """A named command line and the files that it `makes`, relative to the folder.

    The line is without the word handclr: `|` connects two commands, `> FILE` takes standard output,
    {dir} is the folder, other {names} are numbers. A file or subfolder at the top of the folder is
    made by one stage.
    """

    name: str
    line: str
    makes: tuple[str, ...]

    @property
    def tops(self) -> set[str]:
        """The names at the top of the folder that are this stage's."""
        return {Path(name).parts[0] for name in self.makes}


def plan_of(stages: Sequence[Stage], numbers: Mapping[str, Any]) -> Lines:
    """Each stage with the words of its line, the numbers filled in.

    {dir} stays in the words, so that the folder can be moved.
    """
    plan = []
    for stage in stages:
        words = shlex.split(stage.line)
        plan.append((stage, [word.format(dir="{dir}", **numbers) for word in words]))
    return plan


def command_line(line: Line, folder: Path) -> str:
    """The line as it is typed in a shell."""
    commands, target = _commands(line, folder)
    typed = " | ".join(shlex.join(["handclr", *command]) for command in commands)
    return f"{typed} > {shlex.quote(target)}" if target else typed


class Book:
    """The file `demo.json` in a folder: line and seconds of each stage, no seconds if unfinished.

    Raises UsageError where the folder holds something else, and HandclrError where the file is
    damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.entries = folder, dict[str, dict[str, Any]]()
        path = folder / BOOK
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if path.exists():
                self.entries = self._usable(parse_json(path.read_text(encoding="utf-8")))
            elif any(folder.iterdir()):
                why = "neither empty nor the folder of a demo; name another one"
                raise UsageError(f"{folder}: {why}")
        except OSError as error:
            raise HandclrError(f"cannot use {folder}: {error.strerror or error}") from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            why = "damaged; remove the folder, or name another one"
            raise HandclrError(f"{path}: {why}") from error

    def waiting(self, plan: Lines) -> list[Stage]:
        """The stages to run: unfinished ones, changed ones, and all that read what these make."""
        remade: set[str] = set()
        stages = []
        for stage, line in plan:
            entry = self.entries.get(stage.name)
            touched = {Path(word).parts[1] for word in line if word.startswith("{dir}/")}
            if entry and (entry["line"] != line or touched & remade):
                del self.entries[stage.name]
                entry = None
            there = all((self.folder / name).exists() for name in stage.makes)
            if not entry or entry["seconds"] is None or not there:
                stages.append(stage)
                remade |= stage.tops
        self._save()
        return stages

    def begin(self, stage: Stage, line: Line) -> None:
        """Note that a stage runs; remove what it left before, unless it can go on from there."""
        if stage.name not in self.entries:
            for name in sorted(stage.tops):
                _remove(self.folder / name)
        self._note(stage, line, None)

    def finish(self, stage: Stage, line: Line, seconds: float) -> None:
        """Note that a stage is finished."""
        self._note(stage, line, round(seconds, 3))

    def seconds(self, stage: Stage) -> float:
        """How long a finished stage has taken."""
        return float(self.entries[stage.name]["seconds"])

    def _usable(self, book: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The entries that can be used in this folder.

        Unfinished trainings store the paths they began with, so they are left out of a renamed
        folder.
        """
        here = book["folder"] == str(self.folder)
        entries = {}
        for name, entry in book["stages"].items():
            line, seconds = list(entry["line"]), entry["seconds"]
            if here or seconds is not None:
                entries[name] = {"line": line, "seconds": seconds}
        return entries

    def _note(self, stage: Stage, line: Line, seconds: float | None) -> None:
        self.entries[stage.name] = {"line": line, "seconds": seconds}
        self._save()

    def _save(self) -> None:
        book = {"version": __version__, "folder": str(self.folder), "stages": self.entries}
        write_json(self.folder / BOOK, book, ensure_ascii=False)


def run_stage(book: Book, stage: Stage, line: Line, options: Sequence[str] = ()) -> None:
    """Run a stage's commands, with `options` for each, and note it in the book.

    Their standard error is ours, their standard output goes to the line's file or to nowhere.
    Raises HandclrError naming the stage and its command where one fails; when this process is
    interrupted, so are they.
    """
    commands, target = _commands(line, book.folder)
    book.begin(stage, line)
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(atomic_write(target, _kind(target))) if target else None
        codes = _run_connected([[*PROGRAM, *command, *options] for command in commands], output)
        failed = [code for code in codes if code not in DONE]
        if failed:
            # A command that wrote to a closed pipe failed because the one after it did.
            code = next((code for code in failed if code not in CLOSED_PIPE), failed[0])
            how = f"exit code {code}" if code > 0 else f"signal {-code}"
            typed = command_line(line, book.folder)
            raise HandclrError(
                f"the stage '{stage.name}' failed with {how}: {typed} - "
                "what is finished is kept, run handclr demo again to go on"
            )
    book.finish(stage, line, time.monotonic() - start)


def _run_connected(commands: list[list[str]], output: BinaryIO | None) -> list[int]:
    """Run commands as a pipe and return their exit codes; none outlives an interruption."""
    processes: list[subprocess.Popen[bytes]] = []
    source: Any = subprocess.DEVNULL
    try:
        for command in commands:
            last = len(processes) + 1 == len(commands)
            target: Any = subprocess.PIPE if not last else output or subprocess.DEVNULL
            processes.append(subprocess.Popen(command, stdin=source, stdout=target))
            if source is not subprocess.DEVNULL:
                source.close()
            source = processes[-1].stdout
        return [process.wait() for process in processes]
    finally:
        _end(processes)


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + GRACE_S
    for process in processes:
        try:
            process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            process.terminate()
    for process in processes:
        process.wait()


def _commands(line: Line, folder: Path) -> tuple[list[Line], str | None]:
    """The commands that a line connects, and the file that takes the output of the last."""
    words = [_in_folder(word, folder) for word in line]
    target = None
    if ">" in words:
        words, target = words[: words.index(">")], words[words.index(">") + 1]
    commands: list[Line] = [[]]
    for word in words:
        if word == "|":
            commands.append([])
        else:
            commands[-1].append(word)
    return commands, target


def _kind(target: str) -> str:
    """The kind of a file by its suffix."""
    return Path(target).suffix.removeprefix(".")


def _in_folder(word: str, folder: Path) -> str:
    return word.replace("{dir}", str(folder)) if word.startswith("{dir}") else word


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
