"""--log of the trainers: what TensorBoard, W&B and MLflow keep is what log.jsonl says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from labelled_helpers import TRAINING, handclr, write_labelled

from handclr_cli import main as front
from handclr_cli.choices import TrackerName
from handclr_cli.contract.errors import HandclrError, Preempted, UsageError
from handclr_cli.learning import trackers
from handclr_cli.learning.run import Run
from handclr_cli.learning.trackers import KINDS, check_trackers, opened_trackers

NAMES = [str(name) for name in TrackerName]
CONFIG = {"stage": "pretrain", "arguments": {"lr": 0.5, "method": "peclr"}, "history": []}
# By step, the numbers under their names.
Curves = dict[int, dict[str, float]]


@pytest.fixture(scope="module", autouse=True)
def _nobody_is_logged_in() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_"))]:
            patch.delenv(name)
        for name in ("NETRC", "WANDB_CONFIG_DIR"):
            patch.setenv(name, os.devnull)
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        yield


def need(name: str) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed")


def logged(run: Path) -> Curves:
    """What log.jsonl says."""
    curves: Curves = {}
    for line in (run / "log.jsonl").read_text().splitlines():
        record = json.loads(line)
        curves.setdefault(record.pop("step"), {}).update(record)
    return curves


def in_tensorboard(run: Path) -> Curves:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    assert "config/text_summary" in found.Tags()["tensors"]
    curves: Curves = {}
    for name in found.Tags()["scalars"]:
        events = found.Scalars(name)
        assert len({event.step for event in events}) == len(events), f"doubled steps of {name}"
        for event in events:
            curves.setdefault(event.step, {})[name] = event.value
    return curves


def wandb_records(run: Path) -> Iterator[Any]:
    """The records of the files that W&B keeps, oldest first: logs as LevelDB has them."""
    from wandb.proto.wandb_internal_pb2 import Record

    block, head = 1 << 15, 7
    for path in sorted((run / "wandb").glob("offline-run-*/*.wandb")):
        data, at, parts = path.read_bytes(), 7, b""
        while at + head <= len(data):
            if (left := block - at % block) < head:
                at += left
                continue
            size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
            parts += data[at + head : at + head + size]
            at += head + size
            if kind in (1, 4):  # whole, or the last part
                yield Record.FromString(parts)
                parts = b""


def in_wandb(run: Path) -> Curves:
    """The curves; a step that is sent again, as one that was lost is, has to be the same."""
    curves: Curves = {}
    for record in wandb_records(run):
        items = {
            item.key or item.nested_key[0]: json.loads(item.value_json)
            for item in record.history.item
        }
        named = {name: value for name, value in items.items() if not name.startswith("_")}
        if named:
            assert curves.setdefault(items["_step"], named) == named
    return curves


def in_mlflow(run: Path) -> Curves:
    client, (found,) = mlflow_runs(run)
    curves: Curves = {}
    for name in found.data.metrics:
        history = client.get_metric_history(found.info.run_id, name)
        assert len({metric.step for metric in history}) == len(history), f"doubled steps of {name}"
        for metric in history:
            curves.setdefault(metric.step, {})[name] = metric.value
    return curves


def mlflow_runs(run: Path) -> tuple[Any, list[Any]]:
    """A client, and the runs of the folder."""
    from mlflow import MlflowClient

    client = MlflowClient((run / "mlflow").resolve().as_uri())
    experiment = client.get_experiment_by_name("handclr")
    return client, client.search_runs([experiment.experiment_id])


def mlflow_run(run: Path) -> Any:
    (found,) = mlflow_runs(run)[1]
    return found


READERS = {"tensorboard": in_tensorboard, "wandb": in_wandb, "mlflow": in_mlflow}


def assert_same(curves: Curves, expected: Curves) -> None:
    assert curves.keys() == expected.keys()
    for step, numbers in expected.items():
        assert curves[step] == pytest.approx(numbers, rel=1e-6), step


# The time is over before the first step.
AT_ONCE = "from handclr_cli import main, options; options.seconds_of = lambda _: 0.0; main.main()"
OPTIONS = ("--method", "peclr", "--batch", 4, "--epochs", 2, *TRAINING)


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled(tmp_path_factory.mktemp("shards") / "hands.tar", 8)


@pytest.fixture(scope="module")
def tracked(shard: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that is stopped after its first step, and goes on, logged everywhere."""
    for name in NAMES:
        need(name)
    run = tmp_path_factory.mktemp("tracked") / "my run"
    words = ("pretrain", shard, "--run", run, *OPTIONS)
    logging = [word for name in NAMES for word in ("--log", name)]
    command = [sys.executable, "-c", AT_ONCE, *map(str, (*words, *logging)), "--time-limit", "0:01"]
    stopped = subprocess.run(command, capture_output=True, timeout=300, check=False)
    assert (stopped.returncode, stopped.stdout) == (75, b"") and mlflow_run(
        run
    ).info.status == "KILLED"
    done = handclr(*words, *logging)
    assert done.stdout.decode() == f"{run}/encoder.pt\n"
    said = done.stderr.decode().splitlines()
    (line,) = [line for line in said if not line.startswith("pretrain:")]
    assert line.startswith("log wandb: offline, as there is no key (wandb login)")
    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_training_that_is_stopped_goes_on_in_the_same_curves(name: str, tracked: Path) -> None:
    expected = logged(tracked)
    assert list(expected) == [1, 2, 3, 4] and {"loss", "lr", "epoch"} <= expected[1].keys()
    assert_same(READERS[name](tracked), expected)


@pytest.mark.slow
def test_a_run_is_named_configured_and_ended(tracked: Path) -> None:
    config = json.loads((tracked / "config.json").read_text())
    found = mlflow_run(tracked)
    assert found.info.status == "FINISHED" and found.info.run_name == "my run"
    assert found.data.params["arguments.method"] == "peclr"
    assert found.data.params["recipe.lr"] == str(config["recipe"]["lr"])
    records = list(wandb_records(tracked))
    runs = [record.run for record in records if record.run.run_id]
    named = {(one.run_id, one.display_name, one.project) for one in runs}
    assert named == {(runs[0].run_id, "my run", "handclr")}
    sent = {item.key: json.loads(item.value_json) for item in runs[-1].config.update}
    assert sent["arguments"] == config["arguments"] and sent["seed"] == 0
    codes = [record.exit.exit_code for record in records if record.HasField("exit")]
    assert codes == [75, 0]


@pytest.mark.slow
def test_the_weights_are_those_of_a_training_that_is_not_tracked(
    tracked: Path, shard: Path, tmp_path: Path
) -> None:
    handclr("pretrain", shard, "--run", tmp_path / "plain", *OPTIONS)
    encoder, other = (
        torch.load(run / "encoder.pt", weights_only=True) for run in (tracked, tmp_path / "plain")
    )
    assert encoder.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in encoder.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_steps_that_a_kill_took_are_there_once(name: str, tmp_path: Path) -> None:
    """Steps 4 and 5 are logged, lost with the state of step 3, and logged again."""
    need(name)
    folder = tmp_path / "run"
    records = [{"step": step, "epoch": 0, "loss": 1 / step} for step in range(1, 8)]
    measured = {"step": 7, "epoch": 0, "probe": 0.25}

    def opened(first: int, until: int) -> None:
        with opened_trackers([name], folder) as there:
            run = Run(folder, CONFIG, trackers=there)
            run.forget_after(first - 1)
            run.track(first)
            run.log(records[first - 1 : until])
            if until == 7:
                run.log([measured])

    opened(1, 5)
    opened(4, 7)
    expected = logged(folder)
    assert expected[7] == {"epoch": 0, "loss": 1 / 7, "probe": 0.25}
    assert_same(READERS[name](folder), expected)


@pytest.mark.slow
def test_a_run_that_is_begun_anew_is_another(tmp_path: Path) -> None:
    need("mlflow")
    for fresh in (False, True):
        with opened_trackers(["mlflow"], tmp_path) as there:
            run = Run(tmp_path, CONFIG, fresh, trackers=there)
            run.begin()
            run.track(1)
            run.log([{"step": 1, "loss": 1.0 + fresh}])
    losses = sorted(found.data.metrics["loss"] for found in mlflow_runs(tmp_path)[1])
    assert losses == [1.0, 2.0]


class Told:
    """A tracker that writes down what it is told, and may fail."""

    def __init__(self, failing: str = "") -> None:
        self.failing, self.heard = failing, list[Any]()

    def begin(self, config: Any, first: int) -> None:
        self._hear("begin", first)

    def log(self, points: Sequence[Any]) -> None:
        self._hear("log", *points)

    def close(self, code: int) -> None:
        self._hear("close", code)

    def _hear(self, method: str, *what: Any) -> None:
        self.heard.append((method, *what))
        if method == self.failing:
            raise OSError(28, "No space left on device")


@pytest.mark.parametrize("failing", ["begin", "log", "close"])
def test_a_tracker_that_fails_is_one_warning(
    failing: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad, good = Told(failing), Told()
    monkeypatch.setitem(KINDS, "wandb", lambda folder: bad)
    monkeypatch.setitem(KINDS, "mlflow", lambda folder: good)
    with opened_trackers(["wandb", "mlflow"], tmp_path) as there:
        run = Run(tmp_path, CONFIG, trackers=there)
        run.track(1)
        for step in (1, 2):
            run.log([{"step": step, "loss": 0.5}])
    points = [("log", (step, {"loss": 0.5})) for step in (1, 2)]
    assert good.heard == [("begin", 1), *points, ("close", 0)]
    until = ["begin", "log", "", "close"].index(failing) + 1
    assert bad.heard == [*good.heard[:until], *good.heard[max(until, 3) :]]
    assert capsys.readouterr().err == (
        "handclr: warning: log wandb: [Errno 28] No space left on device; "
        "nothing more is logged there\n"
    )
    assert list(logged(tmp_path)) == [1, 2]


def test_a_tracker_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    released = threading.Event()
    hanging = Told()
    monkeypatch.setattr(hanging, "begin", lambda config, first: released.wait(60))
    monkeypatch.setitem(KINDS, "wandb", lambda folder: hanging)
    monkeypatch.setattr(trackers, "BEGIN_S", 0.05)
    monkeypatch.setattr(trackers, "END_S", 0.05)
    with opened_trackers(["wandb"], tmp_path) as there:
        there.begin(CONFIG, 1)
        there.log([{"step": 1, "loss": 1.0}])
    released.set()
    warning = "log wandb: not ended within 0.05 s; nothing more is logged there\n"
    assert capsys.readouterr().err == f"handclr: warning: {warning}"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Preempted("stopped"), 75),
        (HandclrError("full"), 1),
        (KeyboardInterrupt(), 130),
        (SystemExit(143), 143),
        (ValueError(), 1),
    ],
)
def test_a_tracker_is_told_how_the_process_ends(
    error: BaseException, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    monkeypatch.setitem(KINDS, "wandb", lambda folder: told)
    with pytest.raises(type(error)), opened_trackers(["wandb"], tmp_path) as there:
        there.begin(CONFIG, 1)
        raise error
    assert told.heard == [("begin", 1), ("close", code)]
    with pytest.raises(type(error)), opened_trackers(["wandb"], tmp_path):
        raise error
    assert len(told.heard) == 2  # as the second has not begun


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
@pytest.mark.parametrize("name", NAMES)
def test_a_library_that_is_not_there_is_one_line(
    name: str, command: str, shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    method = ("--method", "peclr") if command == "pretrain" else ()
    words = [command, str(shard), "--run", str(tmp_path / "run"), "--log", name, *method]
    with pytest.raises(UsageError) as caught:
        typer.main.get_command(front.app).main(words, prog_name="handclr", standalone_mode=False)
    expected = f"--log {name}: not installed here; pip install 'handclr[{name}]'"
    assert str(caught.value) == expected
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_logged_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="log comet: not one of tensorboard, wandb, mlflow"):
        check_trackers(["comet"])
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "comet").mkdir()  # as a run directory has wandb/, without a package in it
    monkeypatch.setitem(KINDS, "comet", lambda folder: Told())
    with pytest.raises(UsageError, match="log comet: not installed here"):
        check_trackers(["comet"])
    need("mlflow")
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")
    with pytest.raises(UsageError, match="log mlflow: the database of MLFLOW_TRACKING_URI needs"):
        check_trackers(["mlflow"])
