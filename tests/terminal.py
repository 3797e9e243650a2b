"""A shell in a terminal, and what the completion of a line makes of it."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

# Keys that a shell of these tests has been told: show the line, which is emptied.
SHOW = "\x18d"
_ANSWER = re.compile(rb"<<(.*?)>>", re.S)
_WAIT_S = 30.0


class Terminal:
    """A shell that has printed `<<ready>>`, and prints `<<the line>>` at SHOW."""

    def __init__(self, command: Sequence[str], folder: Path, env: Mapping[str, str]) -> None:
        self._master, slave = pty.openpty()
        try:
            self._process = subprocess.Popen(
                command,
                **dict.fromkeys(("stdin", "stdout", "stderr"), slave),
                cwd=folder,
                env=env,
                start_new_session=True,
            )
        finally:
            os.close(slave)
        self.shown = ""
        assert self._answer() == "ready"

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def line_after(self, keys: str) -> str:
        """The line that keys make; `shown` is all that the terminal shows meanwhile."""
        os.write(self._master, f"{keys}{SHOW}".encode())
        return self._answer()

    def _answer(self) -> str:
        seen, end = b"", time.monotonic() + _WAIT_S
        while not (match := _ANSWER.search(seen)):
            ready, _, _ = select.select([self._master], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"the shell says no more than {seen!r}"
            seen += os.read(self._master, 65536)
        self.shown = seen.decode(errors="replace")
        return match[1].decode()
