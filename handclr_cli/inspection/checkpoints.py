"""What is in a checkpoint, and how far a run has come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..contract.errors import HandclrError
from ..contract.jsontext import parse_json
from ..contract.provenance import effective_arguments, loads
from ..learning.encoder import arch_of, normalise
from ..learning.run import CONFIG, LAST, LOG, load_checkpoint

WEIGHTS = ("encoder.pt", "model.pt", "model-last.pt", LAST)
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_DEEPEST = 20


def describe_checkpoint(path: str | Path) -> dict[str, Any]:
    """Describe a file of weights, as JSON with the keys that the page on footage lists.

    Raises HandclrError where it is not a checkpoint, or cannot be read without running code.
    """
    state = load_checkpoint(path)
    found: dict[str, Any] = {"kind": "checkpoint", "name": str(path)}
    if state.get("kind") == "pose" and isinstance(state.get("state"), dict):
        keys = ("arch", "head", "size")
        about = {key: state[key] for key in keys if isinstance(state.get(key), str | int)}
        bone = state.get("bone_m")
        if isinstance(bone, float):
            about["bone_mm"] = 1000 * bone
        found |= {"type": "pose model", **about}
        inner: Any = state["state"]
    elif isinstance(state.get("model"), dict) and isinstance(state.get("step"), int):
        inner = state["model"]
        found |= {"type": "training state", "step": state["step"], "arch": _arch(inner)}
    else:
        arch, inner = _arch(state), state
        found |= {"type": "encoder" if arch else "tensors", "arch": arch}
    tensors = dict(_tensors(inner))
    if not tensors:
        raise HandclrError(f"{path}: holds no tensors")
    parameters = sum(
        tensor.numel() for name, tensor in tensors.items() if not name.endswith(_BUFFERS)
    )
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})
    return {**found, "tensors": len(tensors), "parameters": parameters, "dtypes": dtypes}


def describe_run(folder: Path) -> dict[str, Any]:
    """Describe a run directory, as JSON with the keys that the page on footage lists.

    A run is complete when its steps are done and its weights are there. Raises HandclrError where
    its configuration cannot be read.
    """
    config = _config(folder / CONFIG)
    weights, problems = [], []
    for name in WEIGHTS:
        if (folder / name).is_file():
            try:
                weights.append(describe_checkpoint(folder / name))
            except HandclrError as error:
                problems.append(str(error))
    records = list(_records(folder / LOG))
    losses = [record for record in records if "loss" in record]
    others = [record for record in records if "loss" not in record]
    saved, logged = _last_step(weights), _last_step(losses)
    steps = (logged or 0) if saved is None else saved
    planned = _planned(config)
    made = any(each["type"] in ("encoder", "pose model") for each in weights)
    return {
        "kind": "run",
        "name": str(folder),
        "complete": made and (planned is None or steps >= planned),
        "sound": not problems,
        "steps": steps,
        "steps_planned": planned,
        "last": losses[-1] if losses else None,
        "measured": others[-1] if others else None,
        "weights": weights,
        "provenance": config,
        "problems": problems,
    }


def _config(path: Path) -> dict[str, Any]:
    try:
        config = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HandclrError(f"{path}: not the configuration of a run, or damaged") from error
    if not isinstance(config, dict):
        raise HandclrError(f"{path}: not the configuration of a run")
    return config


def _last_step(records: Iterable[Mapping[str, Any]]) -> int | None:
    """The last step among records or descriptions of weights, None where there is none."""
    steps = [record.get("step") for record in records]
    return max((step for step in steps if isinstance(step, int)), default=None)


def _arch(state: Any) -> str | None:
    """The architecture of the encoder among tensors, None where it is unknown or not there."""
    try:
        return arch_of(normalise(state, ""))
    except HandclrError:
        return None


def _tensors(value: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """The tensors of nested dicts and lists by their path."""
    if isinstance(value, Tensor):
        yield name, value
    elif depth < _DEEPEST:
        pairs: Iterable[tuple[Any, Any]] = ()
        if isinstance(value, Mapping):
            pairs = value.items()
        elif isinstance(value, list | tuple):
            pairs = enumerate(value)
        for key, inner in pairs:
            yield from _tensors(inner, f"{name}.{key}" if name else str(key), depth + 1)


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a log, without the incomplete line that a killed trainer leaves."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        if (record := loads(line)) is not None:
            yield record


def _planned(config: Mapping[str, Any]) -> int | None:
    """The steps of a run by its configuration: the whole batches of its rows, in each epoch."""
    arguments, data = effective_arguments(config), config.get("data")
    if not isinstance(data, dict):
        return None
    rows = data.get("shown", data.get("rows"))
    batch, epochs = arguments.get("batch"), arguments.get("epochs")
    if type(rows) is not int or type(batch) is not int or type(epochs) is not int or batch < 1:
        return None
    return rows // batch * epochs
