"""The options that commands share: times, batches, and the file that sets them."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from handclr_cli import console, options
from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.learning import schedule
from handclr_cli.work import cores

HOUR = 3600


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        (None, math.inf),
        ("90", 90 * 60),
        ("0", math.inf),
        ("0:00", math.inf),
        ("00:00:00", math.inf),
        ("0-0", math.inf),
        ("0:01", 1),
        ("12:34", 12 * 60 + 34),
        ("3:55:00", 3 * HOUR + 55 * 60),
        ("100:00:00", 100 * HOUR),
        ("1-12", 36 * HOUR),
        ("1-12:30", 36 * HOUR + 1800),
        ("2-00:00:05", 48 * HOUR + 5),
    ],
)
def test_a_time_is_written_as_for_slurm(time: str | None, seconds: float) -> None:
    assert options.seconds_of(time) == seconds


@pytest.mark.parametrize(
    "time", ["", "abc", "-5", "1h", "1:", ":30", "1:2:3:4", "1-", "1.5", " 5", "5\n", "9" * 400]
)
def test_what_is_no_time_is_refused(time: str) -> None:
    with pytest.raises(UsageError, match="not a time such as 90"):
        options.seconds_of(time)


@pytest.mark.parametrize(
    ("batch", "rows", "parts", "expected"),
    [(4, 10, 1, 4), (4, 3, 1, 3), (8, 10, 2, 8), (8, 7, 2, 6), (256, 9, 4, 8)],
)
def test_a_batch_is_cut_to_what_there_is(
    batch: int,
    rows: int,
    parts: int,
    expected: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(console.State, "muted", False)
    monkeypatch.setattr(console.State, "stderr", None)
    assert schedule.batch_within(batch, rows, "pairs", parts) == expected
    said = capsys.readouterr().err
    assert ("is cut to" in said) == (expected < batch) and said.count("\n") <= 1


@pytest.mark.parametrize(
    ("batch", "rows", "parts", "error"),
    [
        (4, 1, 1, HandclrError),
        (4, 0, 1, HandclrError),
        (4, 3, 2, HandclrError),
        (6, 100, 4, UsageError),
        (4, 100, 3, UsageError),
        (4, 100, 4, UsageError),
    ],
)
def test_a_batch_that_cannot_be_is_refused(
    batch: int, rows: int, parts: int, error: type[HandclrError]
) -> None:
    with pytest.raises(error) as caught:
        schedule.batch_within(batch, rows, "pairs", parts)
    assert type(caught.value) is error


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    count = cores.cores()
    assert 1 <= count <= (os.cpu_count() or 1)
    assert cores.worker_count(0) == 0 and cores.worker_count(40, 8) == 40
    assert cores.worker_count(None, 10**6) == 1 and cores.worker_count(None) == min(count, 16)


def test_a_long_job_has_a_process_of_its_own_on_one_core_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cores, "cores", lambda: 1)
    assert [cores.finder_count(None, frames, 100) for frames in (0, 199, 200, 10**6)] == [
        0,
        0,
        1,
        1,
    ]
    monkeypatch.setattr(cores, "cores", lambda: 4)
    assert [cores.finder_count(None, frames, 100) for frames in (199, 200, 399, 10**6)] == [
        0,
        2,
        3,
        4,
    ]
    assert cores.finder_count(0, 10**6, 100) == 0 and cores.finder_count(7, 0, 100) == 7


def test_what_slurm_gives_a_task_is_not_shared_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)), raising=False)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert cores.cores() == 1 and cores.worker_count(None, 4) == 1
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "many")
    assert cores.cores() <= 12


def test_the_warm_up_is_shorter_than_the_run() -> None:
    assert schedule.warmup_within(None, 50) == 5 and schedule.warmup_within(0.0, 1) == 0
    with pytest.raises(UsageError, match="must be less than the 3 epochs"):
        schedule.warmup_within(3, 3)


def configured(*arguments: str) -> dict[str, Any]:
    """What a command of a few options gets."""
    app, got = typer.Typer(), {}

    @app.command("toy")
    def toy(
        shards: options.Shards = None,
        epochs: Annotated[int, typer.Option(min=1)] = 100,
        learning_rate: Annotated[float | None, typer.Option()] = None,
        pairs: Annotated[list[str] | None, typer.Option()] = None,
        freeze: Annotated[bool, typer.Option("--freeze")] = False,
        compiled: options.Compile = None,
        seed: options.Seed = 0,
        fresh: options.Fresh = False,
        config: options.Config = None,
    ) -> None:
        got.update(locals())

    typer.main.get_command(app).main(list(arguments), prog_name="toy", standalone_mode=False)
    return got


@pytest.fixture
def toml(tmp_path: Path) -> Any:
    def write(text: str, name: str = "run.toml") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def test_a_file_sets_the_options_and_the_command_line_overrides_it(toml: Any) -> None:
    path = toml('epochs = 7\n"learning-rate" = 0.5\npairs = ["a", "b"]\nfreeze = true\nseed = 3\n')
    got = configured("--config", path, "x.tar")
    assert (got["epochs"], got["learning_rate"], got["pairs"], got["freeze"]) == (
        7,
        0.5,
        ["a", "b"],
        True,
    )
    assert got["seed"] == 3 and got["shards"] == ["x.tar"] and got["compiled"] is None
    for order in (
        ("--config", path, "--epochs", "2"),
        ("--epochs", "2", "--config", path, "--pairs", "c"),
    ):
        got = configured(*order)
        assert got["epochs"] == 2 and got["learning_rate"] == 0.5
    assert got["pairs"] == ["c"]


def test_the_configuration_of_a_run_is_a_file_of_options(toml: Any) -> None:
    record = {
        "stage": "toy",
        "arguments": {"epochs": 7, "learning_rate": None},
        "seed": 5,
        "history": [],
    }
    got = configured("--config", toml(json.dumps(record), "config.json"))
    assert got["epochs"] == 7 and got["seed"] == 5 and got["learning_rate"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = 7\nepoch = 1\nwat = 2", "toy has no option epoch"),
        ('shards = ["x.tar"]', "toy has no option shards"),
        ("fresh = true", "toy has no option fresh"),
        ("epochs = = 3", "Invalid"),
    ],
)
def test_an_option_that_there_is_not_is_named(text: str, message: str, toml: Any) -> None:
    with pytest.raises(UsageError, match=f"--config .*run.toml: .*{message}"):
        configured("--config", toml(text))
    with pytest.raises(HandclrError, match=r"cannot read .*none\.toml: No such file"):
        configured("--config", toml("").replace("run", "none"))


@pytest.mark.parametrize(
    "text", ['epochs = "many"', "epochs = 0", 'learning_rate = "fast"', 'freeze = "perhaps"']
)
def test_a_value_of_another_type_is_refused_as_on_the_command_line(text: str, toml: Any) -> None:
    with pytest.raises(Exception, match="Invalid value|Input should") as caught:
        configured("--config", toml(text))
    assert f"--{text.split(' ')[0].replace('_', '-')}" in caught.value.format_message()  # type: ignore[attr-defined]


def test_one_value_may_stand_for_a_list(toml: Any) -> None:
    assert configured("--config", toml('pairs = "a.npz"'))["pairs"] == ["a.npz"]


def test_options_have_the_names_of_the_command_line(toml: Any) -> None:
    assert configured("--config", toml("compile = false"))["compiled"] is False


@pytest.mark.parametrize("text", ["[1]", "3", '"epochs"', "null"])
def test_json_that_is_no_table_is_refused(text: str, toml: Any) -> None:
    with pytest.raises(UsageError):
        configured("--config", toml(text, "config.json"))
