"""One self-contained HTML page about a run of the whole pipeline: no scripts, nothing fetched."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment

from ..console import printable
from ..contract.errors import HandclrError
from ..contract.output import atomic_write
from ..contract.provenance import effective_arguments
from ..contract.version import __version__
from ..evaluation.metrics import DEFINITIONS, alignments
from ..learning.run import load_checkpoint
from .artefacts import Artefacts, StageRun, read_json
from .figures import (
    Group,
    crop_groups,
    loss_picture,
    pair_groups,
    pck_picture,
    skeleton_groups,
    variance_picture,
)
from .templates import templates_of

CROPS, PAIRS, SKELETONS = 18, 12, 10
_COLUMNS = ("one", "two", "three")
# What the pairs are compared with, by how the page calls it.
_PAIR_SOURCES = {
    "random": "random crop of another video",
    "mined": "mined positive",
    "best": "best possible",
}


def write_report(
    path: str | os.PathLike[str], artefacts: Artefacts, stages: Sequence[StageRun]
) -> None:
    """Write the page about `artefacts` and the `stages` that made them, in the order they ran.

    Times in s, errors in mm. The file appears when it is complete. Raises HandclrError naming the
    artefact that is missing or damaged.
    """
    page = _environment().get_template("demo_page.html")
    text = page.render(
        version=__version__,
        stages=stages,
        hands=_hands(artefacts),
        pairs=_pairs(artefacts),
        training=_training(artefacts),
        results=_results(artefacts),
        provenance=_provenance(artefacts),
    )
    with atomic_write(path, "html") as file:
        file.write(text.encode("utf-8", "replace"))


def _environment() -> Environment:
    environment = templates_of(Path(__file__).parent, _visible)
    environment.filters |= {
        "clock": _clock,
        "columns": _columns,
        "fixed": lambda value, digits: f"{value:.{digits}f}",
        "grouped": lambda value: f"{value:,}",
    }
    return environment


def _visible(value: Any) -> Any:
    """What a page shows: text with control and direction characters escaped, but for line ends."""
    if type(value) is not str:  # markup of our own is a kind of str
        return value
    return "\n".join(map(printable, value.split("\n")))


def _hands(artefacts: Artefacts) -> dict[str, Any]:
    arrays = artefacts.pose_arrays
    return {
        "found": len(arrays["key"]),
        "videos": len(arrays["video"]),
        "crops": len(artefacts.hands_index),
        "groups": crop_groups(artefacts, CROPS),
    }


def _pairs(artefacts: Artefacts) -> dict[str, Any]:
    return {
        "quality": artefacts.pair_quality,
        "bars": _bars(artefacts.pair_quality),
        "groups": pair_groups(artefacts, PAIRS),
        "variance": variance_picture(artefacts),
    }


def _bars(quality: dict[str, Any]) -> list[dict[str, Any]]:
    """A bar for each source of pairs, the longest of 100 %; none where a median is not known."""
    medians = {name: quality[f"{name}_mm"]["median"] for name in _PAIR_SOURCES}
    if None in medians.values():
        return []
    longest = max(*medians.values(), 1e-9)
    bars = []
    for name, label in _PAIR_SOURCES.items():
        bar = {"name": name, "label": label, "marked": name == "mined"}
        bar |= {"median": medians[name], "mean": quality[f"{name}_mm"]["mean"]}
        bars.append({**bar, "percent": 100 * medians[name] / longest})
    return bars


def _training(artefacts: Artefacts) -> dict[str, Any]:
    alt = "Loss of the contrastive pre-training over its steps"
    pretraining = loss_picture(artefacts.pretraining, alt)
    budget, models = [_budget("pre-training", artefacts.pretraining)], []
    for model in artefacts.models:
        alt = f"Loss of the pose model {model.label} over its steps"
        models.append((model.label, loss_picture(model.run, alt)))
        budget.append(_budget(model.label, model.run))
    return {"pretraining": pretraining, "models": models, "budget": budget}


def _budget(label: str, run: Path) -> dict[str, Any]:
    """What went into a training, from its configuration."""
    config = read_json(run / "config.json")
    arguments = effective_arguments(config)
    spent = {name: arguments[name] for name in ("size", "batch", "epochs")}
    return {"label": label, "rows": config["data"]["rows"], **spent}


def _results(artefacts: Artefacts) -> dict[str, Any]:
    models = artefacts.models
    rows = [(model.label, model.report["model"]) for model in models]
    mean_pose = "mean pose of training set", models[0].report["mean_pose_of_training_set"]
    return {
        "models": models,
        "samples": models[0].report["samples"],
        "definitions": {name: DEFINITIONS[name] for name in alignments(placed=False)},
        "rows": [*rows, mean_pose],
        "pck": pck_picture(artefacts, _mean_pose(models[0].run / "model.pt")),
        "groups": skeleton_groups(artefacts, SKELETONS),
    }


def _mean_pose(model: Path) -> np.ndarray:
    state = load_checkpoint(model)
    if "mean_pose" not in state:
        raise HandclrError(f"{model}: not a pose model; give the model.pt of handclr finetune")
    return state["mean_pose"].numpy()


def _provenance(artefacts: Artefacts) -> list[tuple[str, str]]:
    texts = []
    for name, record in artefacts.provenance():
        texts.append((name, json.dumps(record, indent=2, ensure_ascii=False)))
    return texts


def _columns(groups: Sequence[Group]) -> str:
    """The style of tiles in groups of so many pictures."""
    widest = max(map(len, groups), default=1)
    return _COLUMNS[min(widest, len(_COLUMNS)) - 1]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes else f"{seconds:.1f} s"
