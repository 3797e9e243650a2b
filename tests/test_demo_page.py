"""The page of the demo, from small files made up for it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_helpers import write_labelled, write_pairs
from shard_helpers import write_pose

from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.npz import as_keys, write_npz
from handclr_cli.contract.provenance import provenance
from handclr_cli.evaluation.metrics import evaluate_pose
from handclr_cli.hand.alignment import joint_errors_mm
from handclr_cli.report import figures
from handclr_cli.report.artefacts import Artefacts, ModelArtefacts, StageRun
from handclr_cli.report.curves import loss_plot
from handclr_cli.report.demo_page import write_report

pytestmark = pytest.mark.slow

HOSTILE = "<script>alert('\"&')</script>"
VOID = {"meta", "img", "link", "br", "hr", "input"}


class Structure(HTMLParser):
    """Notes elements and text; a tag that closes another than the last one opened is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def trained(folder: Path, label: str, index: ShardIndex, off: float) -> ModelArtefacts:
    """A pose model that is `off` by normal noise in metres: its run directory and its
    evaluation.
    """
    run, record = folder / label.replace(" ", "-"), provenance("finetune", {"note": HOSTILE})
    truth = np.stack([sample.keypoints3d for sample in index])
    noise = np.random.default_rng(round(1e4 * off)).normal(0, off, truth.shape)
    predicted = (truth - truth[:, :1] + noise).astype(np.float32)
    predicted -= predicted[:, :1]
    finished(
        run, {**record, "arguments": {"size": 64, "batch": 4, "epochs": 2}, "data": {"rows": 12}}
    )
    torch.save(
        {"mean_pose": torch.from_numpy((truth - truth[:, :1]).mean(axis=0))}, run / "model.pt"
    )
    errors = joint_errors_mm(predicted, truth, "root").astype(np.float32)
    arrays = {
        "key": as_keys(index.keys),
        "keypoints3d": predicted,
        "truth3d": truth,
        "error_mm": errors,
    }
    write_npz(str(run) + ".npz", "predictions", arrays, record)
    still = np.broadcast_to((truth - truth[:, :1]).mean(axis=0), truth.shape)
    report = {"samples": len(truth), "model": evaluate_pose(predicted, truth)}
    report["mean_pose_of_training_set"] = evaluate_pose(still, truth)
    metrics = run.with_suffix(".json")
    metrics.write_text(json.dumps(report))
    return ModelArtefacts(label, run, run.with_suffix(".npz"), metrics)


def finished(run: Path, config: dict[str, object]) -> Path:
    run.mkdir()
    (run / "config.json").write_text(json.dumps(config))
    loss_plot(
        [{"step": step, "loss": 1 / step, "lr": 0.1} for step in range(1, 9)], run / "loss.png"
    )
    return run


@pytest.fixture
def artefacts(tmp_path: Path) -> Artefacts:
    hands = write_labelled(tmp_path / "hands.tar", 24)
    (tmp_path / "truth").mkdir()
    write_labelled(tmp_path / "truth" / "000000.tar", 20)
    keys = ShardIndex([str(hands)]).keys
    quality = {"queries": 20, "without_truth": 4}
    quality |= {
        f"{name}_mm": {"mean": mean, "median": mean - 1}
        for name, mean in (("mined", 12), ("random", 40), ("best", 7))
    }
    (tmp_path / "pairs.json").write_text(json.dumps({"truth": quality}))
    config = {
        "arguments": {"size": 64, "batch": 999, "epochs": 3, "note": HOSTILE},
        "recipe": {"batch": 8},
        "data": {"rows": 24},
    }
    test = write_labelled(tmp_path / "test.tar", 12, first=100)
    index = ShardIndex([str(test)])
    return Artefacts(
        hands=hands,
        truth=tmp_path / "truth",
        pose=write_pose(tmp_path / "pose.npz", [row // 4 for row in range(24)]),
        pairs=write_pairs(
            tmp_path / "pairs.npz", keys, [-1, *((row + 4) % 24 for row in range(1, 24))]
        ),
        pairs_report=tmp_path / "pairs.json",
        pretraining=finished(tmp_path / "pretrain", config),
        train=write_labelled(tmp_path / "train.tar", 2, first=50),
        test=test,
        models=(
            trained(tmp_path, "with pre-training", index, 0.01),
            trained(tmp_path, "from scratch", index, 0.02),
        ),
    )


STAGES = [
    StageRun("a stage", "handclr extract x | handclr keypoints > y", 1.25),
    StageRun("last", HOSTILE, 75),
]


def written(artefacts: Artefacts, path: Path) -> tuple[str, Structure]:
    write_report(path, artefacts, STAGES)
    page = path.read_text(encoding="utf-8")
    structure = Structure()
    structure.feed(page)
    structure.close()
    return page, structure


def test_the_page_is_whole_and_alone(artefacts: Artefacts, tmp_path: Path) -> None:
    page, structure = written(artefacts, tmp_path / "report.html")
    assert structure.open == [] and page.startswith("<!doctype html>")
    tags = [tag for tag, _ in structure.elements]
    assert not {"script", "link", "iframe", "object"} & set(tags)
    assert (
        "http://" not in page
        and "https://" not in page
        and "@import" not in page
        and "url(" not in page
    )
    assert "<td>8</td><td>3</td>" in page
    images = [attributes for tag, attributes in structure.elements if tag == "img"]
    # 18 crops, 12 pairs, 10 times three skeletons, three losses, variance and PCK.
    assert len(images) == 18 + 2 * 12 + 3 * 10 + 3 + 2
    for image in images:
        assert re.match(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+$", image["src"] or "")
        assert image["alt"]
    headings = [
        f"<h2>{name}</h2>" for name in ("Footage and crops", "Similar hands", "Training", "Results")
    ]
    assert all(
        heading in page for heading in [*headings, "<h2>Commands</h2>", "<h2>Provenance</h2>"]
    )


def test_the_page_has_the_numbers(artefacts: Artefacts, tmp_path: Path) -> None:
    _, structure = written(artefacts, tmp_path / "report.html")
    for model in artefacts.models:
        for alignment in ("root", "root+bone", "procrustes", "procrustes+reflection"):
            assert f"{model.report['model'][alignment]['mpjpe_mm']:.2f}" in structure.text
    assert (
        "11.0 mm" in structure.text and "39.0 mm" in structure.text and "6.0 mm" in structure.text
    )
    assert "2 stages in 1:16 min" in structure.text and "1:15 min" in structure.text
    assert "smoke test, not a benchmark" in structure.text
    assert "handclr extract x | handclr keypoints > y" in structure.text


def test_hostile_names_are_text(artefacts: Artefacts, tmp_path: Path) -> None:
    page, structure = written(artefacts, tmp_path / "report.html")
    assert "<script" not in page.lower()
    # The command, the configuration of the pre-training and the provenance of two predictions.
    assert structure.text.count(HOSTILE.partition('"')[0]) == 4


def test_same_artefacts_same_bytes(artefacts: Artefacts, tmp_path: Path) -> None:
    assert written(artefacts, tmp_path / "a.html")[0] == written(artefacts, tmp_path / "b.html")[0]


def test_pairs_run_from_near_to_far_with_their_truth(artefacts: Artefacts) -> None:
    groups = figures.pair_groups(artefacts, 100)
    assert len(groups) == 23 and all(len(group) == 2 for group in groups)
    captions = [group[1].caption for group in groups]
    assert all("distance 1.000" in caption for caption in captions)
    # Of 24 crops the last four have no truth, and so have the positives of four others.
    assert sum(caption.endswith(" mm") for caption in captions) == 15


def test_skeletons_run_from_good_to_bad(artefacts: Artefacts) -> None:
    groups = figures.skeleton_groups(artefacts, 100)
    shown = [[picture.caption for picture in group] for group in groups]
    assert len(shown) == 12 and all(len(group) == 3 and group[0] == "truth" for group in shown)
    errors = [int(group[1].split()[-2]) for group in shown]
    assert errors == sorted(errors) and group_means(artefacts) == (errors[0], errors[-1])


def group_means(artefacts: Artefacts) -> tuple[int, int]:
    means = artefacts.models[0].predicted["error_mm"].mean(axis=1)
    return round(float(means.min())), round(float(means.max()))


def test_without_truth_of_any_pair(artefacts: Artefacts, tmp_path: Path) -> None:
    nothing = {"mean": None, "median": None}
    report = {
        "queries": 0,
        "without_truth": 24,
        "mined_mm": nothing,
        "random_mm": nothing,
        "best_mm": nothing,
    }
    artefacts.pairs_report.write_text(json.dumps({"truth": report}))
    assert (
        "No pair has the truth of both hands."
        in written(artefacts, tmp_path / "report.html")[1].text
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pairs.json", "pairs.json"),
        ("pretrain/loss.png", r"loss\.png: missing"),
        ("from-scratch.npz", "from-scratch.npz"),
        ("with-pre-training/model.pt", "model.pt"),
    ],
)
def test_a_missing_artefact_is_named(
    artefacts: Artefacts, tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / name).unlink()
    with pytest.raises(HandclrError, match=words):
        write_report(tmp_path / "report.html", artefacts, STAGES)
    assert not (tmp_path / "report.html").exists()


def test_a_damaged_report_is_named(artefacts: Artefacts, tmp_path: Path) -> None:
    for text, words in (("{", "not JSON"), ("[]", "not a JSON object")):
        artefacts.models[0].metrics.write_text(text)
        with pytest.raises(HandclrError, match=f"with-pre-training.json: {words}"):
            write_report(tmp_path / "report.html", artefacts, STAGES)
