"""Commands beyond typer's: settings are named by their options, options are read from files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from . import console
from .completion import Offer, as_offers, complete_value
from .contract.claims import Read, Reads, Writes, Written, refuse_conflicts
from .contract.errors import HandclrError, UsageError
from .contract.retries import shown as visible

_Function = TypeVar("_Function", bound=Callable[..., None])
Marks = Callable[[], dict[str, Sequence[Any]]]
Process = Callable[[Any, Any], Any]

# A whole number without a maximum of its own: NumPy's are of 64 bits.
MOST = 2**63 - 1
NOT_IN_FILES = ("config", "fresh")
# What help calls the values of options that have no name of their own.
VALUES = {
    "int": "N",
    "int range": "N",
    "float": "NUMBER",
    "float range": "NUMBER",
    "str": "TEXT",
    "path": "PATH",
}


def command(app: typer.Typer, name: str) -> Callable[[_Function], _Function]:
    """Declare a function as a command of an app; its options are built when it is called."""

    def declare(function: _Function) -> _Function:
        kind = cast(type[TyperCommand], partial(Command, function=function))
        app.command(name, cls=kind, help=function.__doc__)(_stand_in)
        return function

    return declare


def _stand_in() -> None:
    """What typer is given in the place of a command: it has no options to build."""


class PastParser(Exception):
    """Brings its cause past the parser, which would end the process without a word."""


@contextmanager
def _past_parser() -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, BrokenPipeError, EOFError) as error:
        raise PastParser from error


class Group(TyperGroup):
    """Commands, of which completion offers the names."""

    def make_context(self, *given: Any, **extra: Any) -> Any:
        """Read the command line; raises PastParser."""
        with _past_parser():
            return super().make_context(*given, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that is named; raises PastParser."""
        with _past_parser():
            return super().invoke(ctx)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Offer]:  # type: ignore[override]
        """The commands and options that begin so."""
        return as_offers(super().shell_complete(ctx, incomplete))


class Command(TyperCommand):
    """A command that names the option where a job says which of its settings is at fault.

    While it runs, `console.called` writes settings as options.

    Its options are built when they are first asked for: those of all commands take longer than
    everything else that the help of `handclr` does, which shows none of them.
    """

    def __init__(self, *, function: Callable[..., None], **attributes: Any) -> None:
        super().__init__(**attributes)
        self.function = function
        del self.params, self.callback  # of the stand-in: see __getattr__

    def __getattr__(self, name: str) -> Any:
        if name not in ("params", "callback"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        alone = typer.Typer(add_completion=False)
        alone.command()(self.function)
        built = typer.main.get_command(alone)
        params: list[Any] = built.params
        marks = cache(self.marks)
        for param in params:
            param.shell_complete = complete_value(param, marks)
            param.process_value = partial(self._usable, param, marks, param.process_value)
        self.params, self.callback = params, built.callback
        return getattr(self, name)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        outer, console.State.option = console.State.option, self._option
        try:
            self._refuse_conflicts(ctx.params)
            return super().invoke(ctx)
        except HandclrError as error:
            value = error.value or ctx.params.get(error.setting)
            error.where = self._option(error.setting, value)
            raise
        finally:
            console.State.option = outer

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Offer]:  # type: ignore[override]
        """The options that begin so."""
        return as_offers(super().shell_complete(ctx, incomplete))

    def marks(self) -> dict[str, Sequence[Any]]:
        """What the annotations of the function say of each option, beside its type."""
        hints = get_type_hints(self.function, include_extras=True)
        return {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}

    def _usable(self, param: Any, marks: Marks, process: Process, ctx: Any, given: Any) -> Any:
        """The value of a parameter; raises UsageError where no command could use it."""
        own = marks().get(param.name, ())
        if any(isinstance(mark, Reads | Writes) for mark in own) and _has_empty(given):
            self._refuse(param, None, "an empty name; is a variable unset?")
        value = process(ctx, given)
        if isinstance(value, float) and not isfinite(value):
            self._refuse(param, value, "must be a finite number")
        is_limited = any(getattr(mark, "max", None) is not None for mark in own)
        if isinstance(value, int) and not is_limited and value > MOST:
            self._refuse(param, value, f"must be at most {MOST}")
        return value

    def _refuse(self, param: Any, value: Any, why: str) -> NoReturn:
        error = UsageError(why)
        error.where = self._option(param.name, value)
        raise error

    def _refuse_conflicts(self, values: dict[str, Any]) -> None:
        """Raise UsageError where an output of the command is one of its inputs, or another kind."""
        reads: list[Read] = []
        writes: list[Written] = []
        for setting, marks in self.marks().items():
            given = values.get(setting)
            names = [given] if isinstance(given, str | Path) else given or []
            for mark in marks:
                if isinstance(mark, Reads):
                    reads += [Read(setting, str(name), mark) for name in names]
                elif isinstance(mark, Writes):
                    writes += [Written(setting, str(name), mark) for name in names]
        refuse_conflicts(reads, writes)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options of the help; values have names in place of types."""
        for title, kind in (("Arguments", "argument"), ("Options", "option")):
            params = [param for param in self.get_params(ctx) if param.param_type_name == kind]
            records = filter(None, [param.get_help_record(ctx) for param in params])
            if lines := [(_named(name, kind), about) for name, about in records]:
                with formatter.section(title):
                    formatter.write_dl(lines)

    def _option(self, setting: str, value: Any) -> str:
        """What the user calls a setting, with its value where that is a word or a number."""
        shown = ""
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            text = f"{value:g}" if isinstance(value, float) else visible(str(value))
            shown = f" {text}"
        for param in self.params:
            if param.name == setting:
                names = [name for name in param.opts if name.startswith("--")]
                return f"{max(names, key=len)}{shown}" if names else str(param.metavar or setting)
        return f"--{setting.replace('_', '-')}{shown}" if setting else ""


def _has_empty(given: Any) -> bool:
    """Whether a name, or one of several, is empty."""
    return "" in given if isinstance(given, list | tuple) else given == ""


def _named(name: str, param_kind: str) -> str:
    """A parameter as help shows it: the type in angle brackets gives way to a name."""
    name, bracket, rest = name.partition(" <")
    if not bracket or param_kind == "argument":
        return name
    kind = rest.removesuffix(">")
    return f"{name} {VALUES.get(kind, kind)}"


def read_config(context: typer.Context, path: str | None) -> str | None:
    """Make what a file says the defaults of the options; the command line overrides it."""
    if path is None or context.resilient_parsing:
        return path
    known = {name: param for param in context.command.params for name in _names(param)}
    values: dict[str, Any] = dict(context.default_map or {})
    for name, value in _read_table(path).items():
        param = known.get(name.replace("_", "-"))
        if param is None or param.name in NOT_IN_FILES:
            raise UsageError(f"--config {path}: {context.info_name} has no option {name}")
        alone = param.multiple and not isinstance(value, list)
        values[str(param.name)] = [value] if alone else value
    context.default_map = values
    return path


def _read_table(path: str) -> dict[str, Any]:
    """Options from TOML or JSON; of a run's config.json its arguments and seed."""
    import tomllib

    from .contract.jsontext import parse_json

    try:
        text = Path(path).read_text(encoding="utf-8")
        found = parse_json(text) if path.endswith(".json") else tomllib.loads(text)
    except OSError as error:
        raise HandclrError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--config {path}: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"--config {path}: holds no options")
    if isinstance(found.get("arguments"), dict):
        return {**found["arguments"], "seed": found.get("seed", 0)}
    return found


def _names(param: Any) -> list[str]:
    """What an option is called on the command line, without the dashes."""
    return [name.removeprefix("--") for name in param.opts if name.startswith("--")]
