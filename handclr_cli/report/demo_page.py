"""One self-contained HTML page about a run of the whole pipeline: no scripts, nothing fetched."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..version import __version__
from ..contract.errors import HandclrError
from ..contract.output import atomic_write
from ..evaluation.metrics import DEFINITIONS
from ..hand.alignment import Alignment
from .artefacts import Artefacts, StageRun, read_json
from .figures import (
    Group,
    Picture,
    crop_groups,
    loss_picture,
    pair_groups,
    pck_picture,
    skeleton_groups,
    variance_picture,
)

CROPS, PAIRS, SKELETONS = 18, 12, 10
_COLUMNS = {1: "one", 2: "two", 3: "three"}
_ALIGNMENTS: tuple[Alignment, ...] = ("root", "root+bone", "procrustes")


def write_report(
    path: str | os.PathLike[str], artefacts: Artefacts, stages: Sequence[StageRun]
) -> None:
    """Write the page about `artefacts` and the `stages` that made them, in the order they ran.

    Times in s, errors in mm. The file appears when it is complete. Raises HandclrError naming the
    artefact that is missing or damaged.
    """
    body = [
        _head(artefacts, stages),
        _hands(artefacts),
        _pairs(artefacts),
        _training(artefacts),
        _results(artefacts),
        _stages(stages),
        _provenance(artefacts),
    ]
    style = Path(__file__).with_name("demo_page.css").read_text(encoding="utf-8")
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>handclr demo</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + f"\n<footer>Written by handclr {html.escape(__version__)}.</footer>\n</body>\n</html>\n"
    )
    with atomic_write(path) as file:
        file.write(page.encode("utf-8", "replace"))


def _head(artefacts: Artefacts, stages: Sequence[StageRun]) -> str:
    arrays, quality, models = artefacts.pose_arrays, artefacts.pair_quality, artefacts.models
    cards = [
        (
            f"{len(arrays['key']):,}",
            f"hands with keypoints, found in {len(arrays['video']):,} videos",
        )
    ]
    mined, chance = quality["mined_mm"]["median"], quality["random_mm"]["median"]
    if mined is not None:
        cards.append(
            (
                f"{mined:.1f} mm",
                f"between a hand and its mined positive; {chance:.1f} mm to a random one",
            )
        )
    for model in models:
        error = model.report["model"]["root"]["mpjpe_mm"]
        cards.append(
            (
                f"{error:.1f} mm",
                (
                    f"root-relative mean joint error on {model.report['samples']:,} test crops,"
                    f" {model.label}"
                ),
            )
        )
    items = "\n".join(
        f"<li><b>{html.escape(number)}</b><span>{html.escape(text)}</span></li>"
        for number, text in cards
    )
    return (
        "<header>\n<h1>handclr demo</h1>\n"
        '<p class="lead">From synthetic footage to a 3D hand pose model: '
        f"{len(stages)} stages in {_clock(sum(stage.seconds for stage in stages))}, no data set"
        " downloaded.</p>\n"
        f'<ul class="cards">\n{items}\n</ul>\n'
        '<p class="note"><strong>A smoke test, not a benchmark.</strong> It shows that every stage'
        " works and what each "
        "makes. Footage is short, training is minutes where it should be days, and there is one"
        " seed: whichever "
        "model comes out ahead here says nothing about the method.</p>\n</header>"
    )


def _hands(artefacts: Artefacts) -> str:
    groups = crop_groups(artefacts, CROPS)
    caption = (
        f"{len(groups)} of {len(artefacts.hands_index):,} crops, taken at even distances through"
        " the footage, with the 21 keypoints that MediaPipe found in them. What it takes for left"
        " hands is mirrored."
    )
    text = (
        "Rendered videos of different hands in different surroundings. Pre-training learns from"
        " what was detected in them, not from how they were made."
    )
    return _section("Footage and crops", text, _tiles(groups, caption))


def _pairs(artefacts: Artefacts) -> str:
    groups = pair_groups(artefacts, PAIRS)
    text = (
        "For each crop, the nearest pose in any <em>other</em> video, by the distance of PCA"
        " embeddings of the 2D keypoints. Because the footage is synthetic, the true 3D hands are"
        " known, and so is how good a pair is."
    )
    caption = (
        f"{len(groups)} pairs, query left and positive right, at even ranks of the embedding"
        " distance: the nearest pair first, the furthest last. In mm: how far apart the true 3D"
        " hands are."
    )
    variance = (
        "Share of the variance of the normalised 2D keypoints along each axis of the embedding."
    )
    halves = _halves(
        [_bars(artefacts.pair_quality), _figure(variance_picture(artefacts), variance)]
    )
    return _section("Similar hands", text, _tiles(groups, caption), halves)


def _bars(quality: dict[str, Any]) -> str:
    rows = [
        ("random crop of another video", "random"),
        ("mined positive", "mined"),
        ("best possible", "best"),
    ]
    medians = {name: quality[f"{name}_mm"]["median"] for _, name in rows}
    if None in medians.values():
        return "<p>No pair has the truth of both hands.</p>"
    longest = max(*medians.values(), 1e-9)
    bars = "\n".join(
        f"<div{' class=mark' * (name == 'mined')}><span>{label} <b>{medians[name]:.1f}"
        " mm</b></span>"
        f'<i style="width:{100 * medians[name] / longest:.1f}%"></i></div>'
        for label, name in rows
    )
    means = ", ".join(f"{name} {quality[f'{name}_mm']['mean']:.1f}" for _, name in rows)
    caption = (
        f"Median distance of the true 3D hands over {quality['queries']:,} crops, each hand moved"
        f" so that its wrist is the origin, mean over the joints. Means: {means} mm. Without truth:"
        f" {quality['without_truth']:,} crops."
    )
    return (
        "<figure>\n<div"
        f' class="bars">\n{bars}\n</div>\n<figcaption>{html.escape(caption)}</figcaption>\n</figure>'
    )


def _training(artefacts: Artefacts) -> str:
    figures = [
        _figure(
            loss_picture(
                artefacts.pretraining, "Loss of the contrastive pre-training over its steps"
            ),
            "Pre-training: contrastive loss over mined pairs.",
        )
    ]
    for model in artefacts.models:
        picture = loss_picture(model.run, f"Loss of the pose model {model.label} over its steps")
        figures.append(
            _figure(
                picture, f"Pose model {model.label}: supervised loss. Scales differ between plots."
            )
        )
    text = (
        "An encoder learns to bring mined pairs together; then it and one from random weights are"
        " trained in the same way on the same few labelled crops."
    )
    return _section("Training", text, _halves([*figures, _budget(artefacts)]))


def _budget(artefacts: Artefacts) -> str:
    """What went into each training, from its configuration."""
    runs = [
        ("pre-training", artefacts.pretraining),
        *((model.label, model.run) for model in artefacts.models),
    ]
    rows = []
    for label, run in runs:
        config = read_json(run / "config.json")
        asked = config["arguments"]
        cells = (
            f"{config['data']['rows']:,}",
            f"{asked['size']} px",
            asked["batch"],
            asked["epochs"],
        )
        numbers = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells)
        rows.append(f'<tr><th scope="row">{html.escape(label)}</th>{numbers}</tr>')
    heads = "".join(
        f'<th scope="col">{head}</th>'
        for head in ("training", "pairs or crops", "side", "batch", "epochs")
    )
    return (
        f"<figure><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{chr(10).join(rows)}\n</tbody>\n</table><figcaption>What"
        " went into each training. Dashed in the plots: the learning rate.</figcaption></figure>"
    )


def _results(artefacts: Artefacts) -> str:
    models = artefacts.models
    samples = models[0].report["samples"]
    text = (
        f"Measured on {samples:,} labelled crops that no training has seen, beside what predicting"
        " the training set's mean pose would score."
    )
    groups = skeleton_groups(artefacts, SKELETONS)
    labels = ", ".join(["truth", *(model.label for model in models)])
    caption = (
        f"Test crops with, from left to right: {labels}. At even ranks of the error"
        f" {models[0].label}, the best first, the worst last. Predictions are put with their wrist"
        " on the true one; errors in mm are root-relative."
    )
    mean_pose = _mean_pose(models[0].run / "model.pt")
    pck = (
        "Share of joints within a distance of the truth, aligned by root and the length of one bone"
        " (root+bone)."
    )
    definitions = "\n".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(DEFINITIONS[name])}</dd>"
        for name in _ALIGNMENTS
    )
    halves = _halves(
        [_figure(pck_picture(artefacts, mean_pose), pck), f"<dl>\n{definitions}\n</dl>"]
    )
    return _section("Results", text, _table(artefacts), halves, _tiles(groups, caption))


def _table(artefacts: Artefacts) -> str:
    reports = [(model.label, model.report["model"]) for model in artefacts.models]
    reports.append(
        ("mean pose of training set", artefacts.models[0].report["mean_pose_of_training_set"])
    )
    groups = "".join(
        f'<th class="group" colspan="3" scope="colgroup">{name}</th>' for name in _ALIGNMENTS
    )
    heads = (
        '<th class="first" scope="col">MPJPE mm</th><th scope="col">AUC 0-50</th><th'
        ' scope="col">AUC 20-50</th>'
    )
    rows = []
    for label, report in reports:
        cells = []
        for alignment in _ALIGNMENTS:
            error, areas = report[alignment]["mpjpe_mm"], report[alignment]["pck_auc"]
            cells.append(
                f'<td class="first">{error:.2f}</td><td>{areas["0-50mm"]:.3f}</td><td>{areas["20-50mm"]:.3f}</td>'
            )
        rows.append(f'<tr><th scope="row">{html.escape(label)}</th>{"".join(cells)}</tr>')
    return (
        f'<div class="scroll"><table>\n<thead>\n<tr><th></th>{groups}</tr>\n'
        f'<tr><th scope="col">prediction</th>{heads * len(_ALIGNMENTS)}</tr>\n</thead>\n'
        f"<tbody>\n{chr(10).join(rows)}\n</tbody>\n</table></div>"
    )


def _mean_pose(model: Path) -> np.ndarray:
    from ..learning.run import load_checkpoint

    state = load_checkpoint(model)
    if "mean_pose" not in state:
        raise HandclrError(f"{model}: not a pose model; give the model.pt of handclr finetune")
    return state["mean_pose"].numpy()


def _stages(stages: Sequence[StageRun]) -> str:
    items = "\n".join(
        f"<li><h3>{html.escape(stage.name)}"
        f" <b>{_clock(stage.seconds)}</b></h3><pre>{_words(stage.command)}</pre></li>"
        for stage in stages
    )
    text = "Every command as it was run, to copy, and the time it took."
    return _section("Commands", text, f'<ol class="stages">\n{items}\n</ol>')


def _words(command: str) -> str:
    """The command with each word in an element of its own, so that lines break between
    words only.
    """
    return " ".join(f"<span>{html.escape(word)}</span>" for word in command.split(" "))


def _provenance(artefacts: Artefacts) -> str:
    entries = "\n".join(
        f"<details>\n<summary><code>{html.escape(name)}</code></summary>\n"
        f"<pre>{html.escape(json.dumps(record, indent=2, ensure_ascii=False))}</pre>\n</details>"
        for name, record in artefacts.provenance()
    )
    return _section("Provenance", "What each file says of where it comes from.", entries)


def _section(title: str, text: str, *parts: str) -> str:
    return "\n".join([f"<section>\n<h2>{title}</h2>\n<p>{text}</p>", *parts, "</section>"])


def _tiles(groups: Sequence[Group], caption: str) -> str:
    columns = _COLUMNS[min(max(map(len, groups), default=1), max(_COLUMNS))]
    tiles = "\n".join(f'<div class="strip">{"".join(map(_tile, group))}</div>' for group in groups)
    return (
        f'<figure>\n<div class="tiles {columns}">\n{tiles}\n</div>\n'
        f"<figcaption>{html.escape(caption)}</figcaption>\n</figure>"
    )


def _tile(picture: Picture) -> str:
    return f"<div>{_image(picture)}<small>{html.escape(picture.caption)}</small></div>"


def _halves(parts: Iterable[str]) -> str:
    return '<div class="halves">\n' + "\n".join(parts) + "\n</div>"


def _figure(picture: Picture, caption: str) -> str:
    return f"<figure>{_image(picture)}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _image(picture: Picture) -> str:
    return f'<img src="{picture.uri}" alt="{html.escape(picture.alt)}">'


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes else f"{seconds:.1f} s"
