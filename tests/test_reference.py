"""The reference of the commands: current, complete, the same everywhere, and readable by man."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import house
import pytest
import typer
from house import ROOT
from shard_helpers import cli_env
from typer.testing import CliRunner

from handclr_cli import main
from handclr_cli.reference.manual import manual
from handclr_cli.reference.markdown import markdown
from handclr_cli.reference.texts import ENVIRONMENT, environment
from handclr_cli.reference.tree import Page, Parameter, pages, read_parser

TOP = read_parser()
PAGES = list(pages(TOP))
COMMANDS = [page for page in PAGES if not page.commands]
EXAMPLES = [line for page in PAGES for _, lines in page.examples for line in lines]
ELSEWHERE = {
    "COLUMNS": "40",
    "HOME": "/nowhere",
    "HANDCLR_CACHE": "/nowhere",
    "HANDCLR_LANDMARKER": "/nowhere/hand.task",
    "LANG": "de_DE.UTF-8",
    "NO_COLOR": "1",
    "SLURM_CPUS_PER_TASK": "3",
    "TERM": "dumb",
}


def test_the_reference_is_that_of_the_parser_on_any_machine(tmp_path: Path) -> None:
    (tmp_path / "handclr-gone.1").write_text("of a command that is no more")
    command = [sys.executable, "-m", "handclr_cli.reference", "commands.md", "."]
    subprocess.run(command, cwd=tmp_path, env=cli_env(ELSEWHERE), check=True)
    made = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    kept = [ROOT / "docs" / "commands.md", *(ROOT / "man").iterdir()]
    assert {path.name: path.read_text(encoding="utf-8") for path in kept} == made, "run make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.file)
def test_the_reference_has_the_options_of_the_help(page: Page) -> None:
    shown = CliRunner().invoke(main.app, [*page.words[1:], "--help"]).output
    options = shown.partition("\nOptions:\n")[2].partition("\nCommands:\n")[0]
    listed = re.findall(r"^  (-.*?)(?:  |$)", options, re.M)
    names = {tuple(re.findall(r"(?<![\w-])--?[a-z][\w-]*", line)) for line in listed}
    assert {option.names for option in page.options} == names


@pytest.mark.parametrize("line", EXAMPLES)
def test_an_example_parses(line: str) -> None:
    calls = calls_of(line)
    assert calls
    for arguments in calls:
        group: Any = typer.main.get_command(main.app)
        while hasattr(group, "commands"):
            name = arguments.pop(0)
            group = group.commands[name]
        group.make_context(name, arguments)


def calls_of(line: str) -> list[list[str]]:
    """The words of each call of handclr in a pipeline."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|>;")
    lexer.whitespace_split = True
    calls: list[list[str]] = [[]]
    for word in lexer:
        if word in "|>;":
            calls.append([])
        else:
            calls[-1].append(word)
    found = []
    for words in calls:
        for name in {"handclr", "handclr_cli"} & {*words[:1], *words[4:5]}:
            found.append(words[words.index(name) + 1 :])
    return found


# They map shards too, but none that a server sends: what they have written, or what they list.
OWN_SHARDS = {"import", "inspect", "demo"}


def test_a_command_lists_the_variables_that_it_reads() -> None:
    needs = house.needs()

    def reaching(target: str) -> set[str]:
        found, todo = set[str](), {target}
        while todo:
            found |= todo
            todo = {name for name, others in needs.items() if others & todo} - found
        commands = {name.partition(".")[2] for name in found if house.room(name) == "commands"}
        return {name.strip("_") for name in commands} & {page.words[1] for page in COMMANDS}

    indexing = reaching("contract.index") - OWN_SHARDS
    finding = reaching("footage.model_file") | {"demo"}  # whose stages do
    landmarker = {page.words[1] for page in COMMANDS if page.has("--landmarker")}
    assert landmarker == finding - {"demo"} and indexing >= {"pretrain", "finetune"}
    readers = {"HANDCLR_CACHE": indexing | finding, "HANDCLR_LANDMARKER": finding}
    readers |= {"HANDCLR_OFFLINE": finding, "HANDCLR_SHARD_CACHE_GB": indexing}
    for page in COMMANDS:
        read = {name for name, commands in readers.items() if page.words[1] in commands}
        assert environment(page).keys() == {*read, "NO_COLOR"}, page.name
    assert environment(TOP) == ENVIRONMENT


def test_every_command_has_an_example_of_its_own() -> None:
    lacking = []
    for page in COMMANDS:
        lines = [line for _, lines in page.examples for line in lines]
        if not any(f"{page.words[-1]} " in line for line in lines):
            lacking.append(page.name)
    assert lacking == []


AWKWARD = Page(
    words=("toy",),
    usage="[OPTIONS] X",
    about=("Turn *.tar into a|b.", ".csv or 'x', by \\n, <b>, [this](link) or `that`."),
    examples=(("Of quotes:", ("toy '^(.*)/' --of \"a-b\" ~/x",)),),
    arguments=(),
    options=(
        Parameter(
            names=("--of",),
            value="A|B",
            choices=(),
            about="An *, a | and a _ bare.",
            default="2 * b",
        ),
    ),
    commands=(),
)


def test_markdown_keeps_what_it_would_read_as_its_own() -> None:
    text = markdown(replace(TOP, commands=(replace(AWKWARD, words=("toy", "x")),)))
    assert "Turn `*.tar` into <code>a&#124;b</code>." in text
    assert r"`.csv` or 'x', by `\n`, `<b>`, \[this\](link) or \`that\`." in text
    row = r"| <code>--of A&#124;B</code> | An \*, a \| and a \_ bare. | 2 \* b |"
    assert f"\n{row}\n" in text


@pytest.mark.skipif(not shutil.which("groff"), reason="needs groff")
def test_man_pages_keep_what_roff_would_read_as_its_own() -> None:
    text = set_by("groff", "-man", "-ww", "-Tascii", "-P-cbou", page=manual(AWKWARD, TOP))
    assert "toy - turn *.tar into a|b" in text
    assert ".csv or 'x', by \\n, <b>, [this](link) or `that`." in text
    assert "toy '^(.*)/' --of \"a-b\" ~/x" in text
    assert re.search(r"--of A\|B\n +An \*, a \| and a _ bare. \[default: 2 \* b\]", text)


@pytest.mark.skipif(not shutil.which("man"), reason="needs man")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.file)
def test_man_has_nothing_to_warn_of(page: Page) -> None:
    set_by("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", "-", page=manual(page, TOP))
    if shutil.which("groff"):
        text = set_by("groff", "-man", "-ww", "-Tascii", "-P-cbou", page=manual(page, TOP))
        assert max(map(len, text.splitlines())) <= 80


def set_by(*command: str, page: str) -> str:
    """A man page as a program sets it, which must have nothing to say of it."""
    done = subprocess.run(command, input=page, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout
