"""A run directory: its configuration, its log, and the state that a rerun resumes from."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import console
from ..contract.errors import HandclrError, UsageError
from ..contract.output import append_lines, atomic_write, write_json
from ..contract.provenance import (
    Provenance,
    after,
    effective_arguments,
    file_checksum,
    loads,
    provenance,
)
from ..contract.shipped import weights_file
from ..contract.temporary import lock_file
from .distributed import Ranks
from .trackers import IDENTITIES, Trackers
from .weights_file import load_tensors

CONFIG, LOG, LAST = "config.json", "log.jsonl", "last.pt"
MODEL = "model.pt"
RESULTS = ("encoder.pt", MODEL, "model-last.pt", "loss.png")
LOCK = ".lock"
_DIGEST = "_sha256"


class Run:
    """A folder with `config.json`, `log.jsonl`, `last.pt` and, at the end, the weights.

    The same configuration resumes it. Unless `fresh` starts it anew, raises UsageError where the
    folder holds a run with another configuration, naming what differs, or one that is done and has
    lost its state; in any case where it holds files that are of no run. Of several processes only
    the main one writes; the others wait for it, and read.

    With `fresh` the older run is there until `begin`, as what is needed for the new one may be
    missing.
    """

    def __init__(
        self,
        folder: str | Path,
        config: Mapping[str, Any],
        fresh: bool = False,
        ranks: Ranks = Ranks(),  # noqa: B008
        trackers: Trackers = Trackers(),  # noqa: B008
    ) -> None:
        self.folder, self.main, self.ranks = Path(folder), ranks.main, ranks
        self.config = json.loads(json.dumps(config))
        self._fresh = fresh
        if self.main:
            self._open()
        self._trackers = trackers
        ranks.wait()

    def _open(self) -> None:
        _make_folder(self.folder)
        self._check_config()
        if not self._fresh:
            write_json(self.folder / CONFIG, self.config, ensure_ascii=False)

    def begin(self) -> None:
        """Remove the older run where this one is fresh; all that this one is made of is loaded."""
        if not self._fresh:
            return
        if self.main:
            # The state goes first: what is left of a run without one is not gone on with.
            for name in (LAST, LOG, *RESULTS, *IDENTITIES):
                (self.folder / name).unlink(missing_ok=True)
            write_json(self.folder / CONFIG, self.config, ensure_ascii=False)
        self._fresh = False
        self.ranks.wait()

    def load(self) -> dict[str, Any] | None:
        """The state of the last save, tensors on the CPU, or None in a new run."""
        path = self.folder / LAST
        return load_checkpoint(path) if path.exists() and not self._fresh else None

    def save(self, state: dict[str, Any], name: str = LAST) -> Path:
        """Save tensors and plain values under a name in the run, atomically."""
        path = self.folder / name
        if not self.main:
            return path
        try:
            with atomic_write(path, "checkpoint") as file:
                torch.save(state, file)
        except RuntimeError as error:  # how torch reports a full disk
            raise HandclrError(f"cannot write {path}: {str(error).splitlines()[0]}") from error
        return path

    def log(self, records: list[dict[str, Any]]) -> None:
        """Append records to the log."""
        if not self.main:
            return
        append_lines(self.folder / LOG, map(json.dumps, records))
        self._trackers.log(records)

    def track(self, first: int) -> None:
        """Let the trackers begin, or go on, with step `first`; none is begun where nothing is."""
        self._trackers.begin(self.config, first)

    def records(self) -> list[dict[str, Any]]:
        """The numbers that the log holds; a line that is cut short or damaged is left out."""
        path = self.folder / LOG
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        found = [_numbers(loads(line) or {}) for line in text.splitlines()]
        return [record for record in found if type(record.get("step")) is int]

    def forget_after(self, step: int) -> None:
        """Drop log records later than `step`: they will be written again."""
        if not self.main:
            return
        kept = [record for record in self.records() if record["step"] <= step]
        with atomic_write(self.folder / LOG, "json") as file:
            file.writelines(json.dumps(record).encode() + b"\n" for record in kept)

    def _check_config(self) -> None:
        path = self.folder / CONFIG
        if not path.exists():
            self._refuse_others([LAST, LOG, *RESULTS])
            return
        there = loads(path.read_text(encoding="utf-8", errors="replace")) or {}
        if "arguments" not in there:
            self._refuse_others([CONFIG])
            there = {}
        if self._fresh:
            return
        there = _effective(_with_digests(there, self.config))
        differing = _differences(there, _effective(self.config))
        if differing and self._begun():
            self._refuse(f"a run with another configuration ({'; '.join(differing)})")
        if differing:
            for name in IDENTITIES:
                (self.folder / name).unlink(missing_ok=True)
        elif not (self.folder / LAST).exists() and self._ended():
            self._refuse(f"this run, which is done, without the {LAST} to go on from")

    def _begun(self) -> bool:
        """Whether there is anything of a training, if only its log."""
        log = self.folder / LOG
        made = any((self.folder / name).exists() for name in (LAST, *RESULTS))
        return made or (log.exists() and log.stat().st_size > 0)

    def _ended(self) -> bool:
        """Whether the weights of the last step are there."""
        if any((self.folder / name).exists() for name in RESULTS if name != MODEL):
            return True
        # With validation, it is written before the end too.
        validated = any("loss" not in record for record in self.records())
        return (self.folder / MODEL).exists() and not validated

    def _refuse(self, what: str) -> None:
        advice = "name another run directory, or start this one anew"
        fresh = console.called("fresh", True)
        raise UsageError(f"{self.folder} holds {what}; {advice} ({fresh})")

    def _refuse_others(self, names: Sequence[str]) -> None:
        """Raise UsageError where one of these files is there, which no run has made."""
        for name in names:
            if (self.folder / name).exists():
                why = f"{self.folder} holds {name} and is no run; name another run directory"
                raise UsageError(why)


@contextlib.contextmanager
def alone_in(folder: str | Path, ranks: Ranks) -> Iterator[None]:
    """Keep other trainings out of a run directory, which is made, for a block.

    Of several processes the main one does. The system lets go of the lock when the process ends,
    however it ends. Over NFS it keeps out other hosts too, unless the folder is mounted with
    `nolock` or `local_lock`; where there are no locks, a warning says so. Raises HandclrError where
    another training is there.
    """
    if not ranks.main:
        yield
        return
    path = Path(folder)
    _make_folder(path)
    with contextlib.ExitStack() as stack:
        try:
            locked = stack.enter_context(lock_file(path / LOCK, wait=False))
        except BlockingIOError as error:
            why = f"another training is running in {path}; wait for its end, or name another"
            raise HandclrError(f"{why} run directory") from error
        except OSError as error:
            raise HandclrError(f"cannot write {path / LOCK}: {error.strerror}") from error
        if not locked:
            console.warn(f"{path} cannot be locked here; start no second training in it")
        yield


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = f"cannot make the run directory {folder}: {error.strerror}"
        raise HandclrError(why) from error


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a file of tensors and plain values; nothing in it is executed.

    Raises HandclrError if it is not one.
    """
    state = load_tensors(path)
    if not isinstance(state, dict):
        raise HandclrError(f"{path}: not a checkpoint of handclr")
    return state


def run_config(
    stage: str,
    arguments: Mapping[str, Any],
    sources: Sequence[str],
    keys: Sequence[str],
    origins: Sequence[Provenance | None],
    *,
    seed: int,
    rows: np.ndarray,
    weights: str,
    contents: Mapping[str, bytes],
    shown: int | None = None,
) -> dict[str, Any]:
    """The configuration of a run: arguments, initial weights, data and history.

    Runs with equal configurations give equal results. `keys` are those of all samples; `rows` are
    the rows or pairs of rows trained on, and `shown` how many an epoch shows if that is another
    number; `weights` is the file, or the word, that the encoder starts from. Of `contents`, what
    the samples hold by what it is called, the digests are recorded.
    """
    weights = weights_file(weights)
    start = file_checksum(weights) if Path(weights).is_file() else None
    record = after(provenance(stage, arguments, sources, seed=seed, model=start), origins)
    data = {
        "samples": len(keys),
        "keys_sha256": _sha256("\n".join(keys).encode("utf-8", "replace")),
        "rows": len(rows),
        "rows_sha256": _sha256(np.ascontiguousarray(rows, np.int64).tobytes()),
        **{name + _DIGEST: _sha256(content) for name, content in contents.items()},
    }
    if shown is not None and shown != len(rows):
        data["shown"] = shown
    return {**record, "data": data}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _effective(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration to compare: what was worked out counts, not whether it was asked for.

    Runs of earlier versions recorded no more than that.
    """
    arguments = effective_arguments(config)
    return {**config, "arguments": arguments, "recipe": None}


def _differences(older: dict[str, Any], newer: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name in sorted(older.keys() | newer.keys()):
        left, right = older.get(name), newer.get(name)
        if isinstance(left, dict) and isinstance(right, dict):
            found += _differences(left, right, f"{prefix}{name}.")
        elif left != right and name.endswith(_DIGEST) and left and right:
            found.append(f"{prefix}{name.removesuffix(_DIGEST)} are others now")
        elif left != right:
            found.append(f"{prefix}{name} was {left}, now {right}")
    return found


def _with_digests(older: dict[str, Any], newer: dict[str, Any]) -> dict[str, Any]:
    """An older configuration, with the digests that were not recorded yet when it was written."""
    data = older.get("data")
    if not isinstance(data, dict):
        return older
    digests = {
        name: value for name, value in newer.get("data", {}).items() if name.endswith(_DIGEST)
    }
    return {**older, "data": {**digests, **data}}


def _numbers(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if type(value) in (int, float)}
