"""The reference as man pages, one of each command."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from ..contract.version import __version__
from .texts import environment, exit_codes, files, typeset
from .tree import Page, Parameter, pages

SOURCE_WIDTH = 78
EXAMPLE_WIDTH = 70
# What roff would set as something else: quotes that it curls, hyphens that it may break at.
ESCAPES = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}


def manual(page: Page, top: Page) -> str:
    """The man page of a command, in roff; without a date, so that it is the same everywhere."""
    name = _literal(page.file)
    lines = ['.\\" Written by "make docs", from the parser of the command line.']
    lines += [f'.TH {name.upper()} 1 "" "handclr {__version__}" "handclr manual"', ".nh", ".ad l"]
    lines += [".SH NAME", f"{name} \\- {_text(_uncapitalised(page.about[0]))}"]
    lines += [".SH SYNOPSIS", f".B {_literal(page.name)}", _usage(page.usage)]
    lines += [".SH DESCRIPTION", *_paragraphs(page.about)]
    lines += _section("COMMANDS", [(_bold(one.name), one.about[0]) for one in page.commands])
    lines += _section("ARGUMENTS", [(_values(one.names[0]), one.about) for one in page.arguments])
    lines += _section("OPTIONS", [(_option(one), _meaning(one)) for one in page.options])
    codes = {str(code): text for code, text in exit_codes(page).items()}
    lines += _definitions("EXIT STATUS", codes)
    lines += _definitions("ENVIRONMENT", environment(page))
    lines += _definitions("FILES", files(page))
    lines += _examples(page)
    lines += [".SH SEE ALSO", _see_also(page, top)]
    return "\n".join(lines) + "\n"


def _section(title: str, entries: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Entries with their tags set already."""
    if entries:
        yield f".SH {title}"
    for tag, text in entries:
        yield from (".TP", tag, _paragraph(text))


def _definitions(title: str, entries: Mapping[str, str]) -> Iterator[str]:
    return _section(title, [(_bold(name), text) for name, text in entries.items()])


def _paragraphs(about: Sequence[str]) -> list[str]:
    return "\n.PP\n".join(map(_paragraph, about)).splitlines()


def _examples(page: Page) -> Iterator[str]:
    for number, (before, lines) in enumerate(page.examples):
        yield ".PP" if number else ".SH EXAMPLES"
        if before:
            yield from (_paragraph(before), ".PP")
        yield from (".EX", "\n\n".join(_literal(_folded(line)) for line in lines), ".EE")


def _folded(line: str) -> str:
    """A command over lines that go on with a backslash, where it is long."""
    lines = [""]
    for part in re.split(r" (?=-|\| )", line):
        if lines[-1] and len(lines[-1]) + 1 + len(part) > EXAMPLE_WIDTH:
            lines.append(f"    {part}")
        else:
            lines[-1] = f"{lines[-1]} {part}" if lines[-1] else part
    return " \\\n".join(lines)


def _see_also(page: Page, top: Page) -> str:
    """The pages above, those below, and those of the commands that it names."""
    others = [one for one in pages(top) if one != page]
    above = [one for one in others if page.words[: len(one.words)] == one.words]
    named = [one for one in others if re.search(rf"\b{one.name}\b", page.text())]
    shown = [*above, *page.commands, *(one for one in named if not one.commands)]
    return ",\n".join(f"{_bold(one.file)}(1)" for one in dict.fromkeys(shown))


def _option(option: Parameter) -> str:
    value = _values(option.value, are_literal=bool(option.choices))
    return f"{', '.join(map(_bold, option.names))} {value}".strip()


def _values(value: str, are_literal: bool = False) -> str:
    """What stands for a value: in italics what is to be replaced, in bold what is typed."""
    parts = re.split(r"([| ])", value)
    font = "B" if are_literal else "I"
    return "".join(part if part in "| " else f"\\f{font}{_literal(part)}\\fR" for part in parts)


def _meaning(option: Parameter) -> str:
    if option.default == "required":
        return f"{option.about} Required."
    return f"{option.about} [default: {option.default}]" if option.default else option.about


def _usage(usage: str) -> str:
    return re.sub(r"[A-Z][A-Z.]*\w", lambda match: f"\\fI{_literal(match[0])}\\fR", usage)


def _paragraph(text: str) -> str:
    """Lines that roff fills; a dot or a quote at the start of one would be a request."""
    lines = textwrap.wrap(_text(text), SOURCE_WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join(f"\\&{line}" if line[0] in ".'" else line for line in lines)


def _text(text: str) -> str:
    return typeset(text, _bold, lambda part: part.replace("\\", "\\e"))


def _bold(text: str) -> str:
    return f"\\fB{_literal(text)}\\fR"


def _literal(text: str) -> str:
    """Text as typed."""
    return "".join(ESCAPES.get(letter, letter) for letter in text)


def _uncapitalised(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:].rstrip(".")
