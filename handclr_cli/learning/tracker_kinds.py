"""TensorBoard, Weights & Biases and MLflow; each loads its library when it is made."""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import console
from ..contract.output import write_json
from ..contract.provenance import loads

# What a run belongs to on a server, where nothing else is said.
PROJECT = "handclr"
# How long a server may take to take up a run, and to take what is left at its end: schedulers that
# end a job kill it soon after.
INIT_S, CLOSE_S = 20.0, 10.0
_STOPPED = (75, 130, 143)

# A step and its numbers.
Point = tuple[int, dict[str, float]]


class TensorboardTracker:
    """Event files in the folder `tensorboard` of the run."""

    def __init__(self, folder: Path) -> None:
        from torch.utils import tensorboard

        self._library = tensorboard
        self._folder = folder / "tensorboard"

    def begin(self, config: Mapping[str, Any], first: int) -> None:
        """Begin a file of events, which hides those from step `first` on in older ones."""
        self._older = threading.excepthook
        threading.excepthook = self._silent
        self._writer: Any = self._library.SummaryWriter(str(self._folder), purge_step=first)
        # Indented by four: code in Markdown.
        lines = json.dumps(config, indent=2, ensure_ascii=False).splitlines()
        self._writer.add_text("config", "\n".join(f"    {line}" for line in lines), first - 1)
        self._writer.flush()

    def log(self, points: Sequence[Point]) -> None:
        """Write points, and have them on the disk."""
        for step, numbers in points:
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, code: int) -> None:
        """Close the file."""
        try:
            self._writer.close()
        finally:
            threading.excepthook = self._older

    def _silent(self, ended: threading.ExceptHookArgs) -> None:
        """Print no traceback of the thread that writes: its error is raised here as well."""
        if not type(ended.thread).__module__.startswith("tensorboard."):
            self._older(ended)


class WandbTracker:
    """A run of Weights & Biases, its files in the folder `wandb` of the run."""

    identity = "wandb/handclr-run.json"

    def __init__(self, folder: Path) -> None:
        # Reports of crashes to its makers.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        # Another run of this process, or of one that has started it, may need the one that serves.
        self._alone = "WANDB_SERVICE" not in os.environ
        self._library: Any = wandb
        self._run: Any = None
        self._folder = folder

    def begin(self, config: Mapping[str, Any], first: int) -> None:
        """Begin a run, or go on with that of the folder."""
        mode = self._mode()
        name = _identity(self._folder / self.identity) or secrets.token_hex(4)
        _remember(self._folder / self.identity, name)
        settings = self._library.Settings(
            console="off",
            disable_git=True,
            init_timeout=INIT_S,
            finish_timeout=CLOSE_S,
            finish_timeout_raises=True,
            reinit="create_new",
            silent=not console.State.debug,
            stop_fn=lambda: console.warn("log wandb: asked to stop there; stop it here, if at all"),
        )
        self._run = self._library.init(
            dir=str(self._folder),
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=self._folder.resolve().name,
            id=name,
            mode=mode,
            # Offline there is no other part of the run to ask for.
            resume=None if mode == "offline" else "allow",
            config=dict(config),
            settings=settings,
        )

    def _mode(self) -> str:
        """online, offline or disabled, as the environment or `wandb offline` say.

        Offline where nobody is logged in: else it would ask for a key.
        """
        quiet = self._library.Settings(silent=not console.State.debug)
        mode = str(self._library.setup(settings=quiet).settings.mode)
        if mode == "online" and not self._library.login(prompt=False, verify=False):
            where = f"{self._folder}/wandb, which wandb sync sends"
            console.say(f"log wandb: offline, as there is no key (wandb login); see {where}")
            return "offline"
        return mode

    def log(self, points: Sequence[Point]) -> None:
        """Hand points to the process that sends or keeps them."""
        for step, numbers in points:
            self._run.log(numbers, step=step)

    def close(self, code: int) -> None:
        """End the run; what is not sent within CLOSE_S stays in the folder."""
        try:
            if self._run:
                self._run.finish(exit_code=code)
        finally:
            # Else done as the interpreter ends, which may then wait, or print a traceback.
            if self._alone:
                self._library.teardown(exit_code=code)


class MlflowTracker:
    """A run of MLflow, in the folder `mlflow` of the run unless MLFLOW_TRACKING_URI is set."""

    identity = "mlflow/handclr-run.json"

    def __init__(self, folder: Path) -> None:
        # It sends what it is used for to its makers, prints to standard output, and keeps nothing
        # in plain files unless told so.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        import mlflow

        if not console.State.debug:
            for name in ("mlflow", "urllib3"):
                logging.getLogger(name).setLevel(logging.ERROR)
        self._library: Any = mlflow
        self._folder = folder
        self._last: dict[str, int] = {}

    def begin(self, config: Mapping[str, Any], first: int) -> None:
        """Begin a run, or go on with that of the folder after the steps that it has."""
        own = (self._folder / "mlflow").resolve().as_uri()
        uri = os.environ.get("MLFLOW_TRACKING_URI") or own
        self._client: Any = self._library.MlflowClient(uri)
        found = self._opened()
        self._run = found.info.run_id
        there = found.data.params
        params = [
            self._library.entities.Param(*pair) for pair in _flat(config) if pair[0] not in there
        ]
        self._client.log_batch(self._run, params=params)
        for name in found.data.metrics:
            history = self._client.get_metric_history(self._run, name)
            self._last[name] = max(metric.step for metric in history)

    def _opened(self) -> Any:
        """The run of the folder, set to run again, or a new one."""
        name = _identity(self._folder / self.identity)
        try:
            if name:
                self._client.update_run(name, status="RUNNING")
                return self._client.get_run(name)
        except self._library.MlflowException as error:  # of another server
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        found = self._client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else self._client.create_experiment(experiment)
        made = self._client.create_run(number, run_name=self._folder.resolve().name)
        _remember(self._folder / self.identity, made.info.run_id)
        return made

    def log(self, points: Sequence[Point]) -> None:
        """Send points in one request, without those that the run has."""
        now, metrics = int(time.time() * 1000), []
        metric = self._library.entities.Metric
        for step, numbers in points:
            for name, value in numbers.items():
                if step > self._last.get(name, 0):
                    metrics.append(metric(name, value, now, step))
        self._client.log_batch(self._run, metrics=metrics)

    def close(self, code: int) -> None:
        """End the run as finished, killed (by a signal or a limit of time) or failed."""
        status = "FINISHED" if not code else "KILLED" if code in _STOPPED else "FAILED"
        self._client.set_terminated(self._run, status)


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The values of a configuration as text, under names such as `arguments.lr`; no history."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif name != "history":
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)


def _identity(path: Path) -> str | None:
    """What a server calls the run, as `_remember` wrote it."""
    if not path.exists():
        return None
    return str((loads(path.read_bytes()) or {}).get("run") or "") or None


def _remember(path: Path, name: str) -> None:
    path.parent.mkdir(exist_ok=True)
    write_json(path, {"run": name})
