"""The reference as one page of Markdown, for GitHub and for MkDocs."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from .texts import ENVIRONMENT, EXIT_CODES, typeset
from .tree import Page, Parameter, pages

WIDTH = 128
HEAD = """\
# Commands

<!-- Written by `make docs`, from the parser of the command line. -->

`handclr COMMAND --help` prints the same in a terminal; so does `man handclr-COMMAND`, where the man
pages are installed.
"""


def markdown(top: Page) -> str:
    """All commands, each with its arguments, options and examples."""
    commands = [page for page in pages(top) if not page.commands]
    shared = _shared(commands)
    parts = [HEAD, _overview(commands), "## Options of every command"]
    parts += [_options(shared), "Options of `handclr` itself, without a command:"]
    parts += [_options([option for option in top.options if option not in shared])]
    for page in list(pages(top))[1:]:
        parts += _section(page, shared)
    codes = {f"{code}": text for code, text in EXIT_CODES.items()}
    parts += ["## Exit codes", _table("code", codes)]
    parts += ["## Environment variables", _table("variable", ENVIRONMENT)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _shared(commands: Sequence[Page]) -> list[Parameter]:
    """The options that all commands have, and say the same of."""
    found = list(commands[0].options)
    for page in commands[1:]:
        found = [option for option in found if option in page.options]
    return found


def _overview(commands: Sequence[Page]) -> str:
    links = [f"| [{page.name}](#{page.file}) | {_text(page.about[0])} |" for page in commands]
    return "\n".join(["| command | what it does |", "|---|---|", *links])


def _section(page: Page, shared: Sequence[Parameter]) -> Iterator[str]:
    yield f"{'#' * len(page.words)} {page.name}"
    yield from (_wrapped(_text(paragraph)) for paragraph in page.about)
    if page.commands:
        return
    yield f"```text\n{page.name} {page.usage}\n```"
    if page.examples:
        yield "<!-- not run: examples of the help, run elsewhere -->\n" + _examples(page)
    yield from (_wrapped(f"{_code(one.names[0])}: {_text(one.about)}") for one in page.arguments)
    yield _options([option for option in page.options if option not in shared])


def _examples(page: Page) -> str:
    blocks = []
    for before, lines in page.examples:
        blocks.append("\n".join([*([f"# {before}"] if before else []), *lines]))
    return "```bash\n" + "\n\n".join(blocks) + "\n```"


def _options(options: Sequence[Parameter]) -> str:
    """A table of options, with a column of defaults where there are some."""
    head = ("option", "meaning", "default")
    rows = [(_names(option), _meaning(option), _default(option)) for option in options]
    columns = 3 if any(default for _, _, default in rows) else 2
    return "\n".join("| " + " | ".join(row[:columns]) + " |" for row in (head, ("---",) * 3, *rows))


def _names(option: Parameter) -> str:
    """The names as typed, the last with what stands for its value."""
    value = "NAME" if option.choices else option.value
    *others, last = option.names
    return ", ".join(map(_code, [*others, f"{last} {value}".strip()]))


def _meaning(option: Parameter) -> str:
    if not option.choices:
        return _text(option.about)
    return f"{_text(option.about)} One of {', '.join(map(_code, option.choices))}."


def _table(head: str, rows: Mapping[str, str]) -> str:
    lines = [f"| {head} | meaning |", "|---|---|"]
    return "\n".join(
        [*lines, *(f"| {_code(name)} | {_text(text)} |" for name, text in rows.items())]
    )


def _default(option: Parameter) -> str:
    is_value = option.default and " " not in option.default and option.default != "required"
    return _code(option.default) if is_value else _text(option.default)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _text(text: str) -> str:
    return typeset(text, _code, _escaped)


def _code(text: str) -> str:
    """Text as typed; in tables of some readers a pipe between backticks is none."""
    if "|" not in text:
        return f"`{text}`"
    return f"<code>{text.replace('&', '&amp;').replace('<', '&lt;').replace('|', '&#124;')}</code>"


def _escaped(text: str) -> str:
    return re.sub(r"[\\`*_\[\]|]", r"\\\g<0>", text).replace("<", "&lt;")
