"""Where a file comes from: the JSON that every shard, NPZ file and checkpoint carries."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .errors import HandclrError
from .jsontext import parse_json
from .retries import shown
from .version import __version__

CONTRACT = 1
NAMED_INPUTS = 32

Provenance = dict[str, Any]


def provenance(
    stage: str,
    arguments: Mapping[str, Any],
    inputs: Sequence[str] = (),
    *,
    seed: int | None = None,
    model: Mapping[str, str] | None = None,
) -> Provenance:
    """Describe a stage: its arguments, seed, base names of the inputs and checksums of models.

    It holds no time, host or folder, so that the same command gives the same bytes anywhere. Of
    more than 32 inputs it has the first 32, the number of all and a digest of their names.
    """
    names = [os.path.basename(os.path.normpath(shown(name))) for name in inputs]
    record: Provenance = {"contract": CONTRACT, "stage": stage, "version": __version__}
    record["arguments"] = {name: value for name, value in arguments.items() if value is not None}
    if seed is not None:
        record["seed"] = seed
    record["inputs"] = names[:NAMED_INPUTS]
    if len(names) > NAMED_INPUTS:
        record["input_count"] = len(names)
        record["input_sha256"] = hashlib.sha256(
            "\0".join(names).encode("utf-8", "replace")
        ).hexdigest()
    if model:
        record["model"] = dict(model)
    record["history"] = []
    return record


def effective_arguments(stage: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a stage as they came to be; none where they are not an object.

    A training's `recipe` holds what it worked out, also in the place of what it was asked for.
    """
    parts = (stage.get("arguments"), stage.get("recipe"))
    return {name: value for part in parts if isinstance(part, dict) for name, value in part.items()}


def file_checksum(path: str) -> dict[str, str]:
    """The base name of a model file and its SHA-256, as `model` of a provenance."""
    with open(path, "rb") as file:
        return {os.path.basename(path): hashlib.sha256(file.read()).hexdigest()}


def after(record: Provenance, origins: Iterable[Provenance | None]) -> Provenance:
    """Return `record` with the stages of `origins` as its history, oldest first and each once.

    Where there are several origins, their `unit` is left out: a job has thousands of units.
    """
    distinct = {dumps(origin): origin for origin in origins if origin is not None}
    history: dict[str, Provenance] = {}
    for origin in distinct.values():
        for past in stages(origin):
            stage = past if len(distinct) == 1 else _without(past, "unit")
            history.setdefault(json.dumps(stage, sort_keys=True, default=str), stage)
    return {**record, "history": list(history.values())}


def stages(origin: Provenance) -> list[Provenance]:
    """The stages that a provenance describes, oldest first; the last is its own."""
    past = origin.get("history")
    listed = past if isinstance(past, list) else []
    return [stage for stage in [*listed, _without(origin, "history")] if isinstance(stage, dict)]


def _without(record: Provenance, left_out: str) -> Provenance:
    return {key: value for key, value in record.items() if key != left_out}


def dumps(record: Provenance) -> str:
    """Serialise to compact JSON with a fixed order of keys."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"), default=str)


def loads(data: bytes | str) -> Provenance | None:
    """Parse what `dumps` wrote; None where the data is not a JSON object."""
    try:
        record = parse_json(data)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


# What the values of a stage are, where they are there, and what that is called.
_TYPES: dict[str, tuple[type, str]] = {
    "stage": (str, "text"),
    "arguments": (dict, "an object"),
    "inputs": (list, "a list"),
    "model": (dict, "an object"),
    "unit": (dict, "an object"),
    "history": (list, "a list of stages"),
}


def read_provenance(data: bytes | str, where: str) -> Provenance | None:
    """Parse a provenance that a file carries; None where the data is not a JSON object.

    Raises HandclrError, with `where` in front, where the file is of a later contract, or where
    values are of other types than a provenance has, such as a history that is no list of stages.
    """
    record = loads(data)
    if record is None:
        return None
    contract = record.get("contract")
    if isinstance(contract, int) and contract > CONTRACT:
        later = f"made by a later handclr, in version {contract} of the format"
        raise HandclrError(f"{where}: {later}; this one reads version {CONTRACT}: update handclr")
    past = record.get("history")
    for stage in (record, *(past if isinstance(past, list) else ())):
        if wrong := _misfit(stage):
            raise HandclrError(f"{where} is not a provenance as handclr writes it: {wrong}")
    return record


def _misfit(stage: Any) -> str:
    """What is wrong with a stage, in words; empty where nothing is."""
    if not isinstance(stage, dict):
        return "its history is not a list of stages"
    for name, (kind, called) in _TYPES.items():
        if stage.get(name) is not None and not isinstance(stage[name], kind):
            return f"its {name} is not {called}"
    return ""
