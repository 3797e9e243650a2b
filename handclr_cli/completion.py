"""What the shells complete: the words and the files that a command line may go on with.

The scripts in `completions` ask as typer has fish ask: of the three answers that is the one without
syntax of its shell. A line of the answer is a word, with a tab and its help where it has one, or a
pattern of the files that the shell is to look for: `*.npz`, `*/` for folders, `*` for any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import typer
from typer.completion import completion_init

from .contract.claims import Reads, Word, Writes

_FILES = {"bash": "handclr.bash", "zsh": "_handclr", "fish": "handclr.fish"}

# Without typer's options for completion, which install scripts that know no files, nobody does so.
completion_init()


class Offer(NamedTuple):
    """What typer takes for an item; `value` is the whole line, with the help.

    Of a help apart, typer would have rich take the markup out: rich is slow to import.
    """

    value: str
    help: None = None
    type: str = "plain"


def print_script(context: typer.Context, shell: str | None) -> str | None:
    """Print the script of a shell, where one is named, and exit."""
    if shell is not None and not context.resilient_parsing:
        typer.echo((_folder() / _FILES[shell]).read_text(encoding="utf-8"), nl=False)
        raise typer.Exit()
    return shell


def _folder() -> Path:
    """Where the scripts are: installed they lie in the package, in a checkout beside it."""
    package = Path(__file__).parent
    installed = package / "completions"
    return installed if installed.is_dir() else package.parent / "completions"


def as_offers(items: Iterable[Any]) -> list[Offer]:
    """Items of typer: names of commands and options."""
    return [Offer(f"{item.value}\t{' '.join((item.help or '').split())}") for item in items]


def complete_value(
    param: Any, marks: Callable[[], dict[str, Sequence[Any]]]
) -> Callable[[Any, str], list[Offer]]:
    """What completes the value of a parameter: its choices, and what its mark allows."""
    choices = param.shell_complete

    def complete(context: Any, incomplete: str) -> list[Offer]:
        words = [str(item.value) for item in choices(context, incomplete)]
        patterns: list[str] = []
        for mark in marks().get(param.name, ()):
            if isinstance(mark, Reads | Word):
                words += [word for word in mark.words if word.startswith(incomplete)]
            if isinstance(mark, Reads | Writes):
                patterns += _patterns(mark)
        return [Offer(line) for line in (*words, *patterns)]

    return complete


def _patterns(mark: Reads | Writes) -> list[str]:
    """Which files a name may go on to; folders always, as a file may lie in them."""
    ends: tuple[str, ...] = ()
    if isinstance(mark, Writes):
        ends = ("/",) if mark.whole or mark.files else ()
    elif mark.ends:
        ends = mark.ends
    elif mark.suffix and not mark.deep:
        ends = (mark.suffix,)
    return [f"*{end}" for end in dict.fromkeys((*ends, "/"))] if ends else ["*"]
