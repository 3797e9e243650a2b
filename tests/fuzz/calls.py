"""A command line called in this process, as the front door would, and what came of it."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from typer.main import get_command

from handclr_cli import console
from handclr_cli.contract.errors import HandclrError
from handclr_cli.main import app

CODES = (0, 1, 2, 3)


class Told(NamedTuple):
    """How a command ended: its exit code, its line, and what should not have been."""

    code: int
    line: str
    finding: str = ""


def call(words: Sequence[str]) -> Told:
    """Run a command line here; anything but an error that a user can act on is a finding."""
    console.State.quiet = True
    try:
        with _captured(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = get_command(app).main(list(words), prog_name="handclr", standalone_mode=False)
        return _checked(Told(code if isinstance(code, int) else 0, ""))
    except HandclrError as error:
        return _checked(Told(error.exit_code, str(error)))
    except SystemExit as error:
        return Told(int(error.code or 0), "")
    except OSError as error:
        return Told(1, f"{error.filename}: {error.strerror or error}")
    except Exception as error:
        if hasattr(error, "format_message"):
            return Told(2, str(error.format_message()))
        place = traceback.extract_tb(error.__traceback__)[-8:]
        where = " < ".join(f"{os.path.basename(at.filename)}:{at.lineno}" for at in reversed(place))
        return Told(1, "", f"unexpected {type(error).__name__}: {str(error)[:150]} ({where})")


def _checked(told: Told) -> Told:
    if told.code not in CODES:
        return told._replace(finding=f"exit code {told.code}")
    return told


@contextlib.contextmanager
def _captured() -> Iterator[None]:
    """Let standard output and error go nowhere, and restore them."""
    older = sys.stdin, sys.stdout, sys.stderr, console.State.stderr
    nowhere = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    sys.stdin, sys.stdout, sys.stderr = io.TextIOWrapper(io.BytesIO()), nowhere, nowhere
    # As if native libraries were silenced already.
    console.State.stderr = nowhere
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr, console.State.stderr = older
