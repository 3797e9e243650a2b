"""The README and the pages of docs/ as a reader sees them: their blocks of code, and the
commands in them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from handclr_cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Of blocks that are code.
LANGUAGES = {"bash", "python"}
# What is not run says why in the line before.
MARK = re.compile(r"<!-- not run: (.+?) -->\n\Z")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
# What stands for any command.
SHOWN = ("...", "COMMAND")
# Words after which a command begins, and those at which one ends.
ENDS = {"|", "||", "&&", ";", "&", "(", ")", "$(", "{", "}", "<", ">", ">>"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, its text, the line it begins at, and why it is not
    run, if it is not.
    """

    page: Path
    language: str
    text: str
    line: int
    why_not: str | None

    @property
    def is_run(self) -> bool:
        return self.language in LANGUAGES and self.why_not is None

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        why = MARK.search(text[: match.start()])
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page, match[1], match[2], line, why[1] if why else None)


def spans(page: Path) -> Iterator[str]:
    """The code within the sentences of a page, in one line each."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for span in re.findall(r"`([^`]+)`", text):
        yield " ".join(span.split())


def commands(text: str) -> Iterator[list[str]]:
    """The commands of handclr in a piece of shell, each as its words after `handclr`.

    That stands at the beginning of a command, or behind the options of one that starts others.
    """
    joined = text.replace("\\\n", " ")
    for line in joined.splitlines():
        found: list[str] | None = None
        before = ";"
        for word in [*words_of(line), ";"]:
            if found is not None and (word in ENDS or word.startswith("#")):
                yield found
                found = None
            elif found is not None:
                found.append(word)
            elif word == "handclr" and (before in ENDS or before.startswith("--")):
                found = []
            before = word


def words_of(line: str) -> list[str]:
    """The words of a line as a shell splits it, its operators for themselves."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        return list(lexer)
    except ValueError:  # a quotation that ends in another line
        return line.split()


def unknown_options(words: list[str]) -> list[str]:
    """What the parser does not know of the words of a command: its name, or options."""
    command: Any = typer.main.get_command(main.app)
    rest = list(words)
    while hasattr(command, "commands"):
        if not rest or rest[0].startswith("-") or rest[0] in SHOWN:
            return []
        name = rest.pop(0)
        if name not in command.commands:
            return [name]
        command = command.commands[name]
    known = {"-h", "--help"}
    for parameter in command.params:
        known |= {*parameter.opts, *parameter.secondary_opts}
    named = [word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)]
    return [name for name in named if name not in known]
