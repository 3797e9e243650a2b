"""One walk over the parser: what there is to say of each command.

Nothing in it depends on the machine, the terminal or the environment.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer

from ..main import app
from ..parsing import VALUES, Command


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """An argument or an option, as help shows it."""

    names: tuple[str, ...]
    """Of an option as typed, the short one first; of an argument its one name."""
    value: str
    """What stands for the value; empty of a switch."""
    choices: tuple[str, ...]
    """The words to choose from, where `value` says no more than that."""
    about: str
    """The help, with what the parser knows beside it: range, variable, repetition."""
    default: str
    """The value without the option, in words; empty where there is none to speak of."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """A command or a group of commands."""

    words: tuple[str, ...]
    """What is typed to call it: handclr, import, freihand."""
    usage: str
    """What follows these words."""
    about: tuple[str, ...]
    """Paragraphs of the help, the first in one sentence; without the examples."""
    examples: tuple[tuple[str, tuple[str, ...]], ...]
    """Lines for a shell, with what the help says before them, or nothing."""
    arguments: tuple[Parameter, ...]
    options: tuple[Parameter, ...]
    commands: tuple[Page, ...]
    """Of a group."""

    @property
    def name(self) -> str:
        """As typed."""
        return " ".join(self.words)

    @property
    def file(self) -> str:
        """As a man page is called."""
        return "-".join(self.words)

    def text(self) -> str:
        """Everything that is said of it."""
        shown = [line for _, lines in self.examples for line in lines]
        said = [parameter.about for parameter in (*self.arguments, *self.options)]
        return "\n".join([*self.about, *shown, *said])

    def has(self, option: str) -> bool:
        """Whether it has an option."""
        return any(option in parameter.names for parameter in self.options)


def read_parser() -> Page:
    """The page of handclr, with those of all commands."""
    return _page(typer.main.get_command(app), ("handclr",))


def pages(top: Page) -> Iterator[Page]:
    """A page and all below it."""
    yield top
    for page in top.commands:
        yield from pages(page)


def _page(command: Any, words: tuple[str, ...]) -> Page:
    inner = getattr(command, "commands", {})
    about, examples = _read_help(command.help)
    return Page(
        words=words,
        usage=" ".join(["[OPTIONS]", *_usage(command)]),
        about=about,
        examples=examples,
        arguments=_parameters(command, "argument"),
        options=(*_parameters(command, "option"), HELP),
        commands=tuple(_page(one, (*words, name)) for name, one in inner.items()),
    )


# Not among the parameters of every version of the parser.
HELP = Parameter(
    names=("-h", "--help"), value="", choices=(), about="Show the help and exit.", default=""
)


def _parameters(command: Any, kind: str) -> tuple[Parameter, ...]:
    found = [param for param in command.params if param.param_type_name == kind]
    return tuple(_parameter(command, param) for param in found if not param.hidden)


def _usage(command: Any) -> Iterator[str]:
    """What follows the options in a usage line."""
    if hasattr(command, "commands"):
        yield "COMMAND ..."
    for param in command.params:
        if param.param_type_name == "argument":
            name = param.metavar or param.name.upper()
            yield (name if param.required else f"[{name}]") + ("..." if param.nargs < 0 else "")


def _read_help(text: str) -> tuple[tuple[str, ...], tuple[tuple[str, tuple[str, ...]], ...]]:
    """Paragraphs and examples of a help text; a paragraph that ends in a colon is of the latter."""
    about: list[str] = []
    examples: list[tuple[str, tuple[str, ...]]] = []
    before = ""
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        paragraph = " ".join(block.split())
        if re.match(r"(handclr|torchrun) ", paragraph):
            if examples and not before:
                before, lines = examples.pop()
                paragraphs = (*lines, paragraph)
            else:
                paragraphs = (paragraph,)
            examples.append((before, paragraphs))
            before = ""
        elif paragraph.endswith(":"):
            before = paragraph
        else:
            about.append(paragraph)
    return tuple(about), tuple(examples)


def _parameter(command: Any, param: Any) -> Parameter:
    kind: Any = str
    declared = param
    if isinstance(command, Command):
        kind = _bare(get_type_hints(command.function)[param.name])
        marks = command.marks()[param.name]
        declared = next(mark for mark in marks if isinstance(mark, typer.models.ParameterInfo))
    is_option = param.param_type_name == "option"
    is_switch = is_option and param.is_flag
    choices = get_args(kind) if get_origin(kind) is Literal and not param.metavar else ()
    value = param.metavar or ("|".join(choices) or VALUES.get(kind.__name__.lower(), "VALUE"))
    names = (*param.opts, *param.secondary_opts) if is_option else (value,)
    return Parameter(
        names=tuple(sorted(names, key=lambda name: name.startswith("--"))),
        value=value if is_option and not is_switch else "",
        choices=choices,
        about=" ".join([declared.help, *_notes(param, declared)]),
        default=_default(param),
    )


def _bare(hint: Any) -> Any:
    """A type without its None."""
    inner = get_args(hint)
    return inner[0] if type(None) in inner else hint


def _notes(param: Any, declared: Any) -> Iterator[str]:
    """What the parser knows of a parameter beside its help."""
    if getattr(param, "multiple", False) and "repeated" not in declared.help:
        yield "May be repeated."
    low, high = getattr(declared, "min", None), getattr(declared, "max", None)
    if low is not None and high is not None:
        yield f"From {_number(low)} to {_number(high)}."
    elif low not in (None, 0, 1):
        yield f"At least {_number(low)}."
    if param.envvar:
        yield f"Environment variable: {param.envvar}."


def _number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _default(param: Any) -> str:
    """The default as shown: said in words, or the value."""
    if param.required:
        return "required" if param.param_type_name == "option" else ""
    if isinstance(param.show_default, str):
        return param.show_default
    if param.default is None or not param.show_default:
        return ""
    if isinstance(param.default, bool):
        switches = param.opts if param.default else param.secondary_opts
        return switches[0] if param.secondary_opts else ""
    return _number(param.default)
