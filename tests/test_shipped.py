"""The model that comes with handclr: its file, what starts from it, and that it is worth having."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_helpers import handclr

from handclr_cli.contract.shipped import SHIPPED, weights_file
from handclr_cli.learning.encoder import build_encoder, read_encoder_state
from handclr_cli.learning.finetune_job import FinetuneSettings
from handclr_cli.learning.posemodel import load_model

# It goes with every installation.
LARGEST_BYTES = 25_000_000


def test_the_file_is_small_and_whole() -> None:
    path = Path(weights_file(SHIPPED))
    assert path.stat().st_size <= LARGEST_BYTES
    model = load_model(SHIPPED)
    assert model.is_guided and model.own_axes
    assert 0.08 < model.mean.bone < 0.11
    stored = torch.load(path, weights_only=True)["state"]
    floats = {tensor.dtype for tensor in stored.values() if tensor.is_floating_point()}
    assert floats == {torch.float16}
    assert all(tensor.dtype != torch.float16 for tensor in model.network.state_dict().values())


def test_what_is_seen_alone_does_not_need_the_landmarker() -> None:
    crops = np.random.default_rng(0).integers(0, 256, (2, 80, 80, 3)).astype(np.uint8)
    xyz, uv = load_model(SHIPPED)(crops)
    assert np.isfinite(xyz).all() and np.isfinite(uv).all() and (xyz[:, 0] == 0).all()


def test_an_encoder_starts_from_it() -> None:
    state = read_encoder_state(SHIPPED)
    encoder = build_encoder("resnet18", SHIPPED).state_dict()
    assert torch.equal(encoder["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"].float())
    assert FinetuneSettings(shards=[], encoder=SHIPPED).arguments()["encoder"] == SHIPPED


def test_inspect_knows_it_by_its_name() -> None:
    described = json.loads(handclr("inspect", SHIPPED, "--json").stdout)
    assert "pose model" in json.dumps(described) and "guided" in json.dumps(described)


@pytest.mark.slow
@pytest.mark.landmarker
def test_it_beats_the_landmarker_on_hands_it_has_not_seen(tmp_path: Path) -> None:
    shard = tmp_path / "wild.tar"
    made = ("synth", "labelled", "--world", "wild", "--seed", "905", "--count", "24")
    handclr(*made, "--workers", "1", "-o", shard)
    ways = {"told": (), "alone": ("--alone",), "landmarker": ("--model", "mediapipe")}
    reports = {}
    for name, words in ways.items():
        reports[name] = json.loads(handclr("evaluate", shard, *words, "--workers", "0").stdout)
    told, alone, landmarker = (
        reports[name]["model"]["root+bone"]["mpjpe_mm"] for name in ("told", "alone", "landmarker")
    )
    still = reports["alone"]["mean_pose_of_training_set"]["root+bone"]["mpjpe_mm"]
    assert told < 0.9 * landmarker and alone < 0.8 * still


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.landmarker
@pytest.mark.parametrize(
    ("layout", "root", "words", "most"),
    [
        ("freihand", "freihand/FreiHAND_pub_v2", ("--split", "eval"), (25.9, 13.4)),
        ("dexycb", "dexycb", ("--split", "all"), (59.0, 18.4)),
    ],
)
def test_it_beats_the_landmarker_on_real_hands(
    layout: str,
    root: str,
    words: tuple[str, ...],
    most: tuple[float, float],
    real_data: Path,
    tmp_path: Path,
) -> None:
    """Below what MediaPipe's own landmarks are off by, after root and bone, and Procrustes."""
    shard = tmp_path / "labelled.tar"
    handclr("import", layout, real_data / root, *words, "-o", shard)
    report = json.loads(handclr("evaluate", shard).stdout)
    found = [report["model"][name]["mpjpe_mm"] for name in ("root+bone", "procrustes")]
    assert found[0] < most[0] and found[1] < most[1]
