"""import handclr_cli: what a researcher imports, what it costs, and that its examples do what they
say.
"""

from __future__ import annotations

import ast
import doctest
import inspect
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pages
import pytest
import torch
from house import PACKAGE, ROOT
from labelled_helpers import labelled_sample, write_labelled
from shard_helpers import cli_env
from torch.utils.data import DataLoader

import handclr_cli as handclr
from handclr_cli.contract.errors import HandclrError
from handclr_cli.learning.encoder import Encoder
from handclr_cli.learning.pose import PoseNet
from handclr_cli.learning.posemodel import MeanPose, save_payload

# What each is allowed to load, beside what Python itself has; everything that is not named costs
# torch.
COSTS = {
    "": (),
    "HandclrError": (),
    "mine": ("numpy",),
    "embed_poses": ("numpy", "sklearn"),
    "evaluate_pose": ("numpy",),
    "ShardIndex": ("numpy",),
    "nt_xent": ("numpy", "torch"),
}
HEAVY = ("numpy", "sklearn", "torch", "torchvision", "cv2", "mediapipe", "matplotlib", "typer")


def page_example() -> str:
    """The first block of Python in the page about it."""
    return next(pages.blocks(ROOT / "docs" / "python.md")).text


def test_every_name_is_there_and_says_what_it_is() -> None:
    assert sorted(handclr.__all__) == sorted(set(handclr.__all__))
    for name in handclr.__all__:
        thing = getattr(handclr, name)
        assert inspect.getdoc(thing), name
        assert thing.__module__.startswith("handclr_cli."), name
    assert set(handclr.__all__) <= set(dir(handclr))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        handclr.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names:
            assert alias.asname == alias.name
            seen[alias.name] = node.module
    assert seen == handclr._HOMES
    assert (PACKAGE / "py.typed").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", COSTS)
def test_a_name_costs_what_it_imports_and_no_more(name: str) -> None:
    code = f"""
import sys, handclr_cli
{f"handclr_cli.{name}" if name else ""}
print(*[each for each in {HEAVY!r} if each in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=cli_env(), text=True
    )
    assert set(done.stdout.split()) <= set(COSTS[name]), done.stderr


def examples(name: str) -> list[doctest.DocTest]:
    """The examples in the docstring of a name of the front door."""
    return doctest.DocTestFinder(recurse=False).find(getattr(handclr, name), name)


@pytest.fixture(scope="module")
def a_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the examples read."""
    folder = tmp_path_factory.mktemp("examples")
    hands = write_labelled(folder / "hands.tar", 48)
    poses = handclr.PcaSettings(shards=[str(hands)], output=str(folder / "pose.npz"))
    handclr.run_pca(poses)
    mean = MeanPose(labelled_sample(0).keypoints3d - labelled_sample(0).keypoints3d[0], 0.09)
    network = PoseNet(Encoder("resnet18"), head="regress")
    torch.save(save_payload(network, 32, mean), folder / "model.pt")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", handclr.__all__)
def test_its_example_runs(
    name: str, a_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(a_folder)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    runner = doctest.DocTestRunner()
    for test in examples(name):
        runner.run(test)
    assert runner.failures == 0


# What takes minutes or needs MediaPipe: all but the settings is shown and marked +SKIP.
SHOWN_ONLY = {
    "GuidedModel",
    "WorldPoses",
    "run_extract",
    "run_keypoints",
    "run_pretrain",
    "run_finetune",
    "run_demo",
}


def test_everything_has_an_example_and_nearly_all_are_run() -> None:
    """Settings are in the examples of what takes them."""
    lacking, skipped = [], set()
    for name in handclr.__all__:
        lines = [line for test in examples(name) for line in test.examples]
        if not lines and not name.endswith(("Settings", "Error")):
            lacking.append(name)
        if any(doctest.SKIP in line.options for line in lines):
            skipped.add(name)
    assert lacking == [] and skipped == SHOWN_ONLY


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names that the page's example leaves behind."""
    hands = write_labelled(tmp_path_factory.mktemp("page") / "hands.tar", 8)
    names: dict[str, Any] = {}
    exec(page_example().replace('"hands.tar"', repr(str(hands))), names)
    return names


@pytest.mark.slow
def test_the_page_mines_as_brute_force_does(page: dict[str, Any]) -> None:
    embedding, video = page["pose"].embedding.astype(np.float64), page["video"]
    assert embedding.shape == (20_000, 14)
    for query in np.random.default_rng(2).choice(len(video), 100, replace=False):
        apart = np.linalg.norm(embedding - embedding[query], axis=1)
        apart[video == video[query]] = np.inf
        assert page["row"][query, 0] == apart.argmin()
        assert page["distance"][query, 0] == pytest.approx(apart.min(), rel=1e-6)


@pytest.mark.slow
def test_the_page_has_the_loss_of_a_double_loop(page: dict[str, Any]) -> None:
    z = torch.cat([page["z1"], page["z2"]]).double()
    z = z / z.norm(dim=1, keepdim=True)
    total, count = 0.0, len(z)
    for row in range(count):
        others = [torch.exp(z[row] @ z[other] / 0.5) for other in range(count) if other != row]
        positive = z[(row + count // 2) % count]
        total -= float(z[row] @ positive / 0.5 - torch.log(torch.stack(others).sum()))
    assert float(page["loss"]) == pytest.approx(total / count, rel=1e-5)


@pytest.mark.slow
def test_the_page_has_the_metrics_of_numpy(page: dict[str, Any]) -> None:
    predicted, truth = page["predicted"], page["truth"]
    errors = np.linalg.norm((predicted - predicted[:, :1]) - (truth - truth[:, :1]), axis=-1)
    assert page["scores"]["root"]["mpjpe_mm"] == pytest.approx(1000 * errors.mean())


@pytest.mark.slow
def test_the_page_loads_shards(page: dict[str, Any]) -> None:
    batches = list(page["crops"])
    assert sum(len(batch["key"]) for batch in batches) == 8
    assert batches[0]["image"].dtype == torch.uint8 and batches[0]["image"].shape[1] == 3
    assert batches[0]["keypoints2d"].shape[1:] == (21, 2)


def test_wrong_arrays_are_named() -> None:
    with pytest.raises(handclr.HandclrError, match=r"shape \(5, 20, 2\), expected \(N, 21, 2\)"):
        handclr.embed_poses(np.zeros((5, 20, 2)), 224)
    with pytest.raises(handclr.HandclrError, match="not finite"):
        handclr.embed_poses(np.full((50, 21, 2), np.nan), 224)
    with pytest.raises(handclr.HandclrError, match=r"embedding \(5, 3\) and video \(4,\)"):
        handclr.mine(np.zeros((5, 3)), np.zeros(4))
    with pytest.raises(handclr.HandclrError, match="top_k: must be at least 1"):
        handclr.mine(np.zeros((5, 3)), np.zeros(5), top_k=0)
    for distance in (-1.0, np.nan):
        with pytest.raises(HandclrError, match="max_distance: must be 0 or more"):
            handclr.mine(np.zeros((5, 3)), np.zeros(5), max_distance=distance)
    points = np.random.default_rng(0).uniform(0, 224, (60, 21, 2))
    wrong: dict[str, Any]
    for wrong, line in (
        ({"dim": 43}, "dim: must be 1 to 42"),
        ({"dim": 0}, "dim: must be 1 to 42"),
        ({"size": 0}, "size: must be the side"),
        ({"normalize": "foo"}, "normalize: choose from crop, "),
    ):
        with pytest.raises(handclr.HandclrError, match=line):
            handclr.embed_poses(points, **{"size": 224, **wrong})


def test_videos_may_have_names_and_a_lone_one_has_no_positive() -> None:
    found = handclr.mine(np.arange(6.0)[:, None], ["a", "b"] * 3, top_k=2)
    assert found.row.tolist() == [[1, 3], [0, 2], [1, 3], [2, 4], [3, 5], [4, 2]]
    assert (handclr.mine(np.zeros((3, 2)), [7, 7, 7]).row == -1).all()
    assert handclr.mine(np.zeros((0, 2)), []).row.shape == (0, 1)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return write_labelled(tmp_path / "hands.tar", 6)


def test_crops_are_scaled_with_their_labels(shard: Path) -> None:
    fields = ("image", "json", "keypoints2d", "keypoints3d", "intrinsics")
    own, half = handclr.CropDataset(shard, fields), handclr.CropDataset([shard], fields, size=32)
    assert len(own) == 6 and own[0]["image"].shape == (3, 64, 64)
    first, small = own[-1], half[5]
    assert first["key"] == small["key"] and small["image"].shape == (3, 32, 32)
    torch.testing.assert_close(small["keypoints2d"] * 2, first["keypoints2d"])
    projected = first["keypoints3d"] @ small["intrinsics"].T
    torch.testing.assert_close(projected[:, :2] / projected[:, 2:], small["keypoints2d"])
    assert handclr.CropDataset(shard, ("valid",))[0]["valid"].tolist() == [1] * 21


@pytest.mark.slow
def test_crops_are_read_by_workers_however_they_start(shard: Path) -> None:
    crops = handclr.CropDataset(shard, transform=_key_and_mean)
    alone = [crops[row] for row in range(len(crops))]
    for context in ("fork", "spawn"):
        loader = DataLoader(crops, batch_size=None, num_workers=1, multiprocessing_context=context)
        assert [tuple(item) for item in loader] == alone


def _key_and_mean(item: dict[str, Any]) -> tuple[str, float]:
    return item["key"], float(item["image"].float().mean())


def test_a_field_that_there_is_not_is_named(shard: Path) -> None:
    with pytest.raises(
        handclr.HandclrError, match="no picture in a sample; choose from image, json"
    ):
        handclr.CropDataset(shard, ("picture",))
    with pytest.raises(IndexError):
        handclr.CropDataset(shard)[6]
