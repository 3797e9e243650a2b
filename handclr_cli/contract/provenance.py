"""Where a file comes from: the JSON that every shard, NPZ file and checkpoint carries."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..version import __version__

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
    """Describe a stage: contract, version, arguments, seed, base names of the inputs, model
    checksums.

    No time, host or folder is in it, so that the same command gives the same bytes anywhere. More
    than 32 inputs are named by a digest and their number.
    """
    names = [os.path.basename(os.path.normpath(name)) for name in inputs]
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


def file_checksum(path: str) -> dict[str, str]:
    """The base name of a model file and its SHA-256, as `model` of a provenance."""
    with open(path, "rb") as file:
        return {os.path.basename(path): hashlib.sha256(file.read()).hexdigest()}


def after(record: Provenance, origins: Iterable[Provenance | None]) -> Provenance:
    """Put the stages that `origins` describe, oldest first and each once, into the history of
    `record`.

    Where there are several, nothing is said of which `unit` of its job each was: a job has
    thousands.
    """
    distinct = {dumps(origin): origin for origin in origins if origin is not None}
    history: dict[str, Provenance] = {}
    for origin in distinct.values():
        itself = {key: value for key, value in origin.items() if key != "history"}
        past_stages = origin.get("history")
        for past in (*(past_stages if isinstance(past_stages, list) else []), itself):
            if isinstance(past, dict):
                stage = {
                    key: value for key, value in past.items() if len(distinct) == 1 or key != "unit"
                }
                history.setdefault(json.dumps(stage, sort_keys=True, default=str), stage)
    return {**record, "history": list(history.values())}


def dumps(record: Provenance) -> str:
    """Serialise to compact JSON with a fixed order of keys."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"), default=str)


def loads(data: bytes | str) -> Provenance | None:
    """Parse what `dumps` wrote; anything that is no JSON object gives None."""
    try:
        record = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
