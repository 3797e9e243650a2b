"""What is in a checkpoint, and how far a run has come."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..contract.errors import HandclrError
from ..learning.encoder import arch_of, normalise
from ..learning.run import CONFIG, LAST, LOG, load_checkpoint

WEIGHTS = ("encoder.pt", "model.pt", "model-last.pt", LAST)
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_DEEPEST = 20


def describe_checkpoint(path: str | Path) -> dict[str, Any]:
    """What `handclr inspect --json` says of a file of weights; the README has the keys.

    Raises HandclrError where it is not one that can be read without running code.
    """
    state = load_checkpoint(path)
    found: dict[str, Any] = {"kind": "checkpoint", "name": str(path)}
    if state.get("kind") == "pose" and isinstance(state.get("state"), dict):
        keys = ("arch", "head", "size")
        about = {key: state[key] for key in keys if isinstance(state.get(key), str | int)}
        bone = state.get("bone_m")
        found |= {
            "type": "pose model",
            **about,
            **({"bone_mm": 1000 * bone} if isinstance(bone, float) else {}),
        }
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
    """What `handclr inspect --json` says of a run directory; the README has the keys.

    A run is complete when its steps are done and its weights are there. Raises HandclrError where
    its configuration cannot be read.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HandclrError(
            f"{folder / CONFIG}: not the configuration of a run, or damaged"
        ) from error
    if not isinstance(config, dict):
        raise HandclrError(f"{folder / CONFIG}: not the configuration of a run")
    weights, problems = [], []
    for name in WEIGHTS:
        if (folder / name).is_file():
            try:
                weights.append(describe_checkpoint(folder / name))
            except HandclrError as error:
                problems.append(str(error))
    records = list(_records(folder / LOG))
    losses, others = [r for r in records if "loss" in r], [r for r in records if "loss" not in r]
    saved = max((int(each["step"]) for each in weights if "step" in each), default=None)
    steps = (
        saved
        if saved is not None
        else max((r["step"] for r in losses if isinstance(r.get("step"), int)), default=0)
    )
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


def _arch(state: Any) -> str | None:
    """The architecture of the encoder among tensors, None where there is none that is known."""
    try:
        return arch_of(normalise(state, ""))
    except HandclrError:
        return None


def _tensors(value: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """The tensors of nested dicts and lists by their path."""
    if isinstance(value, Tensor):
        yield name, value
    elif depth < _DEEPEST:
        pairs = (
            value.items()
            if isinstance(value, Mapping)
            else enumerate(value)
            if isinstance(value, list | tuple)
            else ()
        )
        for key, inner in pairs:
            yield from _tensors(inner, f"{name}.{key}" if name else str(key), depth + 1)


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a log; a line that a kill cut short is left out."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


def _planned(config: Mapping[str, Any]) -> int | None:
    """The steps of a run by its configuration: whole batches of its rows, in each epoch."""
    arguments, data = config.get("arguments"), config.get("data")
    if not isinstance(arguments, dict) or not isinstance(data, dict):
        return None
    rows, batch, epochs = data.get("rows"), arguments.get("batch"), arguments.get("epochs")
    if type(rows) is not int or type(batch) is not int or type(epochs) is not int or batch < 1:
        return None
    return rows // batch * epochs
