"""Commands name the option of a setting at fault, show choices, and have names for values."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import numpy as np
import pytest
import typer
from shard_helpers import cli_env, error_line, run_cli
from typer.testing import CliRunner

from handclr_cli import choices, console, main, options
from handclr_cli.contract.claims import Reads, Writes
from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.parsing import Command, command


def said(setting: str, *arguments: str) -> str:
    """The line about a setting of a command of a few options."""
    app = typer.Typer()

    @command(app, "toy")
    def toy(
        shards: options.Shards = None,
        learning_rate: Annotated[float | None, typer.Option()] = None,
        compiled: options.Compile = None,
        strict: options.Strict = False,
        output: options.OutputTar = "-",
    ) -> None:
        raise UsageError("cannot be", setting=setting)

    with pytest.raises(UsageError) as caught:
        typer.main.get_command(app).main(list(arguments), prog_name="toy", standalone_mode=False)
    return str(caught.value)


@pytest.mark.parametrize(
    ("setting", "arguments", "line"),
    [
        ("learning_rate", ["--learning-rate", "0.50"], "--learning-rate 0.5: cannot be"),
        ("learning_rate", [], "--learning-rate: cannot be"),
        ("strict", ["--strict"], "--strict: cannot be"),
        ("compiled", ["--no-compile"], "--compile: cannot be"),
        ("output", ["-o", "x.tar"], "--output x.tar: cannot be"),
        ("shards", ["a.tar", "b.tar"], "SHARDS: cannot be"),
        ("with_crops", [], "--with-crops: cannot be"),
        ("", [], "cannot be"),
    ],
)
def test_a_setting_goes_by_its_option(setting: str, arguments: list[str], line: str) -> None:
    assert said(setting, *arguments) == line


def test_a_room_names_what_to_ask_for_as_the_user_writes_it() -> None:
    app, names = typer.Typer(), {"dim": 3, "every": 1, "learning_rate": 0.5}

    @command(app, "toy")
    def toy(dim: int = 14, rate: Annotated[float, typer.Option("--learning-rate")] = 0.1) -> None:
        print(*(console.called(name, value) for name, value in names.items()))

    done = CliRunner().invoke(app, ["--dim", "2"])
    assert done.stdout == "--dim 3 --every 1 --learning-rate 0.5\n"
    called = [console.called(name, value) for name, value in names.items()]
    assert called == ["dim=3", "every=1", "learning_rate=0.5"]


def test_without_a_command_a_setting_goes_by_its_name() -> None:
    assert str(HandclrError("must be at least 1", setting="top_k")) == "top_k: must be at least 1"
    assert str(HandclrError("no such file")) == "no such file"


def every_command() -> list[list[str]]:
    """The words of all commands."""
    found: list[list[str]] = []

    def visit(command: Any, words: list[str]) -> None:
        found.append(words)
        for name, inner in getattr(command, "commands", {}).items():
            visit(inner, [*words, name])

    visit(typer.main.get_command(main.app), [])
    return found


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_help_names_values_and_not_their_types(words: list[str]) -> None:
    shown = CliRunner().invoke(main.app, [*words, "--help"]).output
    assert shown.startswith("Usage:") and not re.search(r"<[a-zA-Z]", shown)
    assert all(len(line) <= 100 for line in shown.splitlines())


@pytest.mark.parametrize(
    ("words", "built"),
    [
        (["--help"], set()),
        (["import", "--help"], set()),
        (["mine", "--help"], {"mine"}),
        (["import", "dexycb", "--help"], {"dexycb"}),
    ],
)
def test_only_the_command_that_is_called_builds_its_options(
    words: list[str], built: set[str]
) -> None:
    group: Any = typer.main.get_command(main.app)
    with pytest.raises(SystemExit):
        group.main(words, prog_name="handclr")
    found, waiting = set(), [group]
    while waiting:
        inner = waiting.pop()
        waiting += getattr(inner, "commands", {}).values()
        if isinstance(inner, Command) and "params" in vars(inner):
            found.add(inner.name)
    assert found == built


GROUP: Any = typer.main.get_command(main.app)


def taking(*kinds: type) -> list[tuple[Any, ...]]:
    """The words of commands, each with a parameter that has one of these types or marks."""
    found = []
    for words in every_command():
        command: Any = GROUP
        for word in words:
            command = command.commands[word]
        for param in command.params if isinstance(command, Command) else ():
            kind, *marks = get_args(
                get_type_hints(command.function, include_extras=True)[param.name]
            )
            if {*kinds} & {kind, *get_args(kind), *map(type, marks)}:
                found.append((words, param))
    return found


def refused(words: list[str], param: Any, value: str) -> str:
    """What is said of a value; the exit code is that of wrong usage."""
    option = [name for name in param.opts if param.param_type_name == "option"][-1:]
    with pytest.raises(Exception) as caught:
        GROUP.main([*words, *option, *[value] * max(1, param.nargs)], standalone_mode=False)
    error: Any = caught.value
    assert error.exit_code == 2
    return str(error) if isinstance(error, HandclrError) else error.format_message()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "param"), taking(Reads, Writes), ids=lambda each: getattr(each, "name", None)
)
def test_an_empty_name_is_refused(words: list[str], param: Any) -> None:
    assert refused(words, param, "").endswith(": an empty name; is a variable unset?")


@pytest.mark.slow
@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
@pytest.mark.parametrize(
    ("words", "param"), taking(float), ids=lambda each: getattr(each, "name", None)
)
def test_a_number_is_finite(words: list[str], param: Any, value: str) -> None:
    assert max(param.opts, key=len) in refused(words, param, value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "param"), taking(int), ids=lambda each: getattr(each, "name", None)
)
def test_a_whole_number_is_one_that_the_libraries_take(words: list[str], param: Any) -> None:
    most = 2**31 if param.name in ("threads", "max_hands") else 10**23
    assert max(param.opts, key=len) in refused(words, param, str(most))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("lr = inf", "--lr inf: must be a finite number"),
        ("batch = 99999999999999999999", "--batch 99999999999999999999: must be at most 922337"),
        ('pairs = ["a.npz", ""]', "--pairs: an empty name"),
        ('run = ""', "--run: an empty name"),
    ],
)
def test_what_is_refused_is_refused_of_a_file_too(line: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(line)
    words = ["pretrain", "--config", str(tmp_path / "run.toml")]
    with pytest.raises(UsageError, match=f"^{said}"):
        GROUP.main(words, standalone_mode=False)


def test_the_greatest_seed_is_that_of_torch_and_hnswlib() -> None:
    import hnswlib
    import torch

    most = get_args(options.Seed)[1].max
    torch.Generator().manual_seed(most)
    hnswlib.Index("l2", 2).init_index(1, random_seed=most)
    np.random.default_rng([most, most])


@pytest.mark.slow
def test_help_shows_choices_and_a_wrong_one_is_refused_before_anything_is_read() -> None:
    shown = run_cli("mine", "--help", env={"COLUMNS": "100"}).stdout.decode()
    assert "--engine auto|exact-cpu|exact-gpu|hnsw" in shown and "POSE.NPZ  Embeddings" in shown
    line = error_line(run_cli("mine", "gone.npz", "--engine", "fast"), 2)
    assert line.startswith("Invalid value for '--engine': 'fast' is not one of 'auto', 'exact-cpu'")


@pytest.mark.slow
def test_a_wrong_choice_costs_no_heavy_import() -> None:
    code = (
        "import sys; sys.argv = ['handclr', 'pretrain', 'x.tar', '--method', 'foo']\n"
        "from handclr_cli.main import main\n"
        "try: main()\n"
        "finally: print(*[one for one in ('numpy', 'torch') if one in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=cli_env(), text=True
    )
    assert done.returncode == 2 and done.stdout.strip() == ""
    assert "'foo' is not one of" in done.stderr


def test_the_methods_and_heads_of_the_help_are_those_there_are() -> None:
    from typing import get_args

    from handclr_cli.learning.heads import HEADS
    from handclr_cli.learning.pretraining import METHODS

    assert set(get_args(choices.MethodName)) == METHODS.keys()
    assert set(get_args(choices.HeadName)) == HEADS.keys()
