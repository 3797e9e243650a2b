"""Standard error: progress, warnings, the summary line; standard output is for data only."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

PLAIN_INTERVAL_S = 30.0
# In characters, as all of a training's line but its smaller numbers is to fit into 80.
BAR_WIDTH = 16
# Of a line of messages, in characters; the middle of a longer one is left out.
LONGEST = 500


class State:
    """What the options -q and --debug have set for this process."""

    quiet = False
    debug = False
    # One of several processes, and not the one that speaks for them.
    muted = False
    stderr: TextIO | None = None
    # How the command that runs writes a setting and a value.
    option: Callable[[str, Any], str] | None = None


def stderr() -> TextIO:
    """The stream for messages; it stays ours when native libraries are silenced."""
    return State.stderr or sys.stderr


def printable(text: str) -> str:
    """Text with all but visible characters and spaces escaped.

    A name in a file may hold commands for a terminal, line ends, or marks that turn the direction.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def shortened(text: str, most: int = LONGEST) -> str:
    """Text without its middle, where it is longer than `most`: the end says what to do."""
    if len(text) <= most:
        return text
    kept = most - len(" ... ")
    return f"{text[: kept - kept // 2]} ... {text[len(text) - kept // 2 :]}"


def one_line(message: str) -> str:
    """A message as it is printed: one line, escaped, of LONGEST characters at most."""
    return shortened(printable(re.sub(r"\s*\n\s*", " ", message.strip())))


def json_text(value: Any) -> str:
    """Indented JSON for a terminal or a pipe: what is not visible is escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return "".join(
        char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text
    )


def called(setting: str, value: Any) -> str:
    """A setting with a value as the user writes it: an option, or a keyword outside a command."""
    return State.option(setting, value) if State.option else f"{setting}={value}"


def say(message: str, whole: bool = False) -> None:
    """Print a line on standard error, unless -q; a `whole` one is not cut, however long."""
    if not (State.quiet or State.muted):
        line = printable(message)
        print(line if whole else shortened(line), file=stderr(), flush=True)


def warn(message: str) -> None:
    """Print a warning in one line, even with -q: something was skipped or is not as asked."""
    if State.muted:
        return
    print(f"handclr: warning: {one_line(message)}", file=stderr(), flush=True)


def silence_native_libraries() -> None:
    """Send what C++ libraries print to file descriptor 2 to nowhere; keep Python's own messages.

    MediaPipe, TensorFlow Lite, FFmpeg and OpenCV log there, from threads of their own and at exit.
    --debug leaves them alone.
    """
    if State.debug or State.stderr is not None:
        return
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    sys.stderr.flush()
    State.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    sys.stderr = State.stderr
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)


Advance = Callable[..., None]


@contextlib.contextmanager
def progress(
    label: str, total: int | None = None, unit: str = "samples", done: int = 0
) -> Iterator[Advance]:
    """Show the progress of a loop, unless -q.

    A bar on a terminal, a plain line every 30 s elsewhere. Yields a function to call with the
    number of steps made and, as keywords, what to show beside the bar. `done` steps were made by an
    earlier process and say nothing of this one's speed.
    """
    if State.quiet or State.muted:
        yield lambda steps=1, **shown: None
    elif stderr().isatty() and os.environ.get("TERM") != "dumb":
        with _bar(label, total, unit, done) as advance:
            yield advance
    else:
        yield _plain_lines(label, total, unit, done)


@contextlib.contextmanager
def _bar(label: str, total: int | None, unit: str, done: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    # What is shown beside takes what the others leave.
    rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(BAR_WIDTH),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn(unit, markup=False),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[shown]}", markup=False, table_column=rest),
    )
    screen = Console(file=stderr())
    with Progress(*columns, console=screen, transient=True, expand=True) as bar:
        task = bar.add_task(label, total=total, completed=done, shown="")

        def advance(steps: int = 1, **shown: Any) -> None:
            bar.advance(task, steps)
            if shown:
                bar.update(task, shown=_shown(shown))

        yield advance


def _plain_lines(label: str, total: int | None, unit: str, done: int) -> Advance:
    begin = last = time.monotonic()
    first = done

    def advance(steps: int = 1, **shown: Any) -> None:
        nonlocal done, last
        done += steps
        now = time.monotonic()
        if now - last < PLAIN_INTERVAL_S:
            return
        last = now
        of = ""
        if total and done > first:
            left_s = (total - done) * (now - begin) / (done - first)
            of = f" of {total:,}, {_clock(left_s)} left"
        say(f"{label}: {done:,} {unit}{of} {_shown(shown)}".rstrip())

    return advance


def _shown(shown: dict[str, Any]) -> str:
    told = " ".join(f"{name.replace('_', ' ')} {value}" for name, value in shown.items())
    return printable(told)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def plural(count: int, noun: str) -> str:
    """`1 crop`, `12,345 crops`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
