"""The objective of pre-training against the formulas of the papers, and its gradients in parts."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_helpers import write_labelled
from torch import Tensor, nn

from handclr_cli.contract.errors import UsageError
from handclr_cli.contract.index import ShardIndex
from handclr_cli.learning.augmentation import Appearance, AugmentationConfig, Geometry, to_tensor
from handclr_cli.learning.hardware import ViewsMade
from handclr_cli.learning.positives import neighbours, own
from handclr_cli.learning.pretraining import (
    METHODS,
    Method,
    Objective,
    augmentation_of,
    choose_method,
)
from handclr_cli.learning.store import CropStore
from handclr_cli.learning.views import PairDataset, Views, collate_views

CPU = torch.device("cpu")
N, SIZE = 8, 8
SPREAD = 0.3
POSED = Method("mined", "extent", "none", "pose")


class Known(nn.Module):
    """A model whose latents are its parameter, whatever it sees."""

    def __init__(self, latent: np.ndarray) -> None:
        super().__init__()
        self.latent = nn.Parameter(torch.tensor(latent, dtype=torch.float32))

    def forward(self, images: Tensor) -> Tensor:
        assert len(images) == len(self.latent)
        return self.latent


def small_model(norm: bool, size: int = SIZE) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = [
        nn.Conv2d(3, 6, 3, stride=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.LazyLinear(16),
    ]
    if norm:
        layers[1:1] = [nn.BatchNorm2d(6)]
        layers += [nn.BatchNorm1d(16), nn.Linear(16, 16)]
    model = nn.Sequential(*layers)
    with torch.no_grad():
        model.eval()(torch.zeros(2, 3, size, size))
    return model.train()


def views_of(seed: int = 0, posed: bool = True) -> Views:
    """Views with any geometry; some crops are seen twice."""
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.integers(0, 256, size=(2, N, SIZE, SIZE, 3), dtype=np.uint8))
    geometry = Geometry(
        torch.tensor(rng.uniform(-3, 3, (2, N)), dtype=torch.float32),
        torch.tensor(rng.uniform(0.5, 1.2, (2, N)), dtype=torch.float32),
        torch.tensor(rng.uniform(-0.2, 0.2, (2, N, 2)), dtype=torch.float32),
    )
    rows = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7], [0, 2, 9, 4, 11, 12, 12, 14]])
    joints = torch.tensor(rng.uniform(0, 1, (2, N, 21, 2)), dtype=torch.float32)
    return Views(
        images, geometry, Appearance(*torch.zeros(5, 2, N)), rows, joints if posed else None
    )


def slow_undo(latent: np.ndarray, geometry: Geometry, undo: str) -> np.ndarray:
    out = []
    for side in range(2):
        for n in range(N):
            points = latent[side * N + n].reshape(-1, 2)
            angle, scale = float(geometry.angle[side, n]), float(geometry.scale[side, n])
            translation = geometry.translation[side, n].double().numpy()
            forward = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            if undo.endswith("extent"):
                points = points - translation * (points.max(axis=0) - points.min(axis=0))
                centre = points.mean(axis=0)
                points = np.array([forward.T @ (point - centre) + centre for point in points])
            elif undo == "crop":
                points = np.array(
                    [scale * forward.T @ (point - translation - 0.5) + 0.5 for point in points]
                )
            out.append(points.ravel())
    return np.array(out)


def slow_weights(joints: np.ndarray, form: str) -> tuple[np.ndarray, np.ndarray]:
    """SiMHand's weights of the N positives and of all 2N x 2N pairs, distances in pixels of a view
    of 128.
    """
    pixels = 128 * joints
    d = np.array(
        [[np.linalg.norm(one - other, axis=1).mean() for other in pixels] for one in pixels]
    )
    positive = np.array([d[n, n + N] for n in range(N)])
    if form == "linear":
        return tuple((x.max() - x) / (x.max() - x.min()) for x in (positive, d))  # type: ignore[return-value]
    return tuple(
        1 / (1 + np.exp(steep * (x - x.mean()))) for x, steep in ((positive, 5.0), (d, 0.05))
    )  # type: ignore


def slow_targets(joints: np.ndarray, spread: float) -> np.ndarray:
    """Targets of each of the views among all others, (2N, 2N)."""
    poses = joints.reshape(len(joints), 42)
    d = np.array([[np.sqrt(np.square(one - other).sum()) for other in poses] for one in poses])
    apart = sorted(d[i, k] for i in range(len(d)) for k in range(i) if d[i, k] > 0)
    sigma = spread * apart[(len(apart) - 1) // 2]
    t = np.exp(-(d**2) / (2 * sigma**2))
    np.fill_diagonal(t, 0)
    return t / t.sum(axis=1, keepdims=True)


def slow_loss(method: Method, latent: np.ndarray, views: Views) -> tuple[float, float]:
    """The loss and the share of rows whose positive is the most similar, in loops over rows."""
    z = slow_undo(latent, views.geometry, method.undo)
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    rows = views.rows.flatten().tolist()
    positive_weight, weight = np.ones(N), np.ones((2 * N, 2 * N))
    if method.weights != "none":
        assert views.joints is not None
        positive_weight, weight = slow_weights(
            views.joints.flatten(0, 1).double().numpy(), method.weights
        )
    targets = None
    if method.targets == "pose":
        assert views.joints is not None
        targets = slow_targets(views.joints.flatten(0, 1).double().numpy(), SPREAD)
    losses, hits = [], []
    for i in range(2 * N):
        p = (i + N) % (2 * N)
        others = [k for k in range(2 * N) if k not in (i, p) and rows[k] not in (rows[i], rows[p])]
        logits = [weight[i, k] * (z[i] @ z[k]) / method.temperature for k in [p, *others]]
        hits.append(logits[0] >= max(logits))
        if targets is None:
            losses.append(
                np.log(np.exp(logits).sum())
                - positive_weight[i % N] * (z[i] @ z[p]) / method.temperature
            )
        else:
            all_others = [k for k in range(2 * N) if k != i]
            similar = np.array([z[i] @ z[k] / method.temperature for k in all_others])
            losses.append(
                -(targets[i, all_others] * (similar - np.log(np.exp(similar).sum()))).sum()
            )
    return float(np.mean(losses)), float(np.mean(hits))


@pytest.mark.parametrize(
    "method",
    [
        *METHODS.values(),
        Method("self", "raw-extent", "none"),
        Method("self", "crop", "none"),
        Method("mined", "crop", "sigmoid"),
        POSED,
    ],
    ids=[*METHODS, "raw", "crop", "crop, sigmoid", "pose"],
)
@pytest.mark.parametrize("temperature", [0.5, 0.1])
def test_the_loss_is_the_papers(method: Method, temperature: float) -> None:
    latent, method = (
        np.random.default_rng(1).normal(size=(2 * N, 24)) + 0.5,
        replace(method, temperature=temperature),
    )
    views = views_of()
    model = Known(latent)
    found = Objective(model, method, SIZE, CPU, spread=SPREAD)(views)
    loss, top1 = slow_loss(method, latent.astype(np.float32).astype(np.float64), views)
    assert found["loss"].item() == pytest.approx(loss, rel=2e-6)
    assert found["top1"].item() == pytest.approx(top1)
    assert model.latent.grad is not None and model.latent.grad.abs().sum() > 0


def test_the_presets_are_those_of_the_papers() -> None:
    assert choose_method("simclr") == Method("self", "none", "none")
    assert choose_method("peclr") == Method("self", "extent", "none")
    assert choose_method("tempclr") == Method("neighbour", "extent", "none")
    assert choose_method("handclr") == Method("mined", "extent", "none")
    assert choose_method("simhand") == Method("mined", "extent", "linear")
    assert choose_method("handclr-soft") == choose_method(
        "handclr", 0.1, undo="crop", targets="pose"
    )
    assert choose_method("handclr-soft", 0.5).temperature == METHODS["handclr"].temperature == 0.5
    assert choose_method("simhand", undo="crop", positives=None, weights="sigmoid") == Method(
        "mined", "crop", "sigmoid"
    )
    assert (
        choose_method("handclr", targets="pose")
        == choose_method("simhand", weights="none", targets="pose")
        == POSED
    )
    assert (POSED.joints, METHODS["simhand"].joints, METHODS["handclr"].joints) == (
        "crop",
        "view",
        "none",
    )
    with pytest.raises(UsageError, match="targets: goes with weights none, not linear"):
        choose_method("simhand", targets="pose")
    with pytest.raises(UsageError, match="undo: choose from none, extent, raw-extent, crop"):
        choose_method("peclr", undo="twice")
    with pytest.raises(UsageError, match="method: choose from"):
        choose_method("byol")


def test_views_are_turned_where_that_is_undone() -> None:
    assert augmentation_of(METHODS["peclr"], 64, None, False).rotation == 45
    assert augmentation_of(METHODS["simclr"], 64, None, False).rotation == 0
    assert augmentation_of(METHODS["simclr"], 64, 30.0, False).rotation == 30
    assert augmentation_of(METHODS["simclr"], 64, None, False).geometric
    assert not augmentation_of(METHODS["simclr"], 64, None, True).geometric
    assert augmentation_of(METHODS["handclr"], 64, None, True).geometric
    with pytest.raises(UsageError, match="rotation: published views have their own"):
        augmentation_of(METHODS["handclr"], 64, 20.0, True)
    with pytest.raises(UsageError, match="undo: published views are cropped at random"):
        augmentation_of(METHODS["handclr-soft"], 64, None, True)


def gradients(model: nn.Module) -> Tensor:
    return torch.cat(
        [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    )


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize(
    "method", [METHODS["simclr"], METHODS["peclr"], METHODS["simhand"], POSED], ids=str
)
def test_gradients_in_parts_are_those_of_the_whole(method: Method, parts: int) -> None:
    whole, parted = small_model(norm=False), small_model(norm=False)
    views = views_of()
    expected = Objective(whole, method, SIZE, CPU)(views)
    found = Objective(parted, method, SIZE, CPU, parts=parts)(views)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(gradients(parted), gradients(whole), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_each_image_moves_the_running_statistics_once(parts: int) -> None:
    model, views = small_model(norm=True), views_of()
    once = copy.deepcopy(model)
    Objective(model, METHODS["peclr"], SIZE, CPU, parts=parts)(views)
    assert views.images is not None
    with torch.no_grad():
        for images in views.images.chunk(parts, dim=1):
            once(to_tensor(images.flatten(0, 1)))
    for (name, expected), found in zip(once.named_buffers(), model.buffers(), strict=True):
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(found, expected, msg=name)
    assert all(norm.momentum == 0.1 for norm in model.modules() if isinstance(norm, nn.BatchNorm2d))


def test_each_batch_is_counted_once_by_the_norms() -> None:
    model = small_model(norm=True)
    Objective(model, METHODS["peclr"], SIZE, CPU, parts=2)(views_of())
    assert {
        int(norm.num_batches_tracked)
        for norm in model.modules()
        if hasattr(norm, "num_batches_tracked")
    } == {2}


@pytest.mark.parametrize("method", ["simclr", "peclr", "simhand"])
def test_views_made_here_or_on_the_device_give_one_loss(method: str, tmp_path: Path) -> None:
    index = ShardIndex([str(write_labelled(tmp_path / "hands.tar", N))])
    crops, pool = CropStore(index, 54), neighbours(index)
    model = small_model(norm=False, size=32)
    grads: dict[str, Tensor] = {}
    losses: dict[str, dict[str, Tensor]] = {}
    for made in (ViewsMade.BY_WORKERS, ViewsMade.ON_DEVICE, ViewsMade.FROM_CACHE):
        data = PairDataset(
            crops, pool, AugmentationConfig(size=32), 0, made, posed=METHODS[method].joints
        )
        batch = collate_views([data[0, row] for row in range(N)])
        kept = crops.on_device(CPU, 0) if made is ViewsMade.FROM_CACHE else None
        objective = Objective(model, METHODS[method], 32, CPU, made=made, crops=kept)
        losses[made] = objective(batch)
        grads[made] = gradients(model)
        model.zero_grad()
    assert torch.equal(losses["crops"]["loss"], losses["draws"]["loss"])
    torch.testing.assert_close(grads["crops"], grads["draws"], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(losses["views"]["loss"], losses["crops"]["loss"], atol=5e-3, rtol=0)
    assert torch.nn.functional.cosine_similarity(grads["views"], grads["crops"], dim=0) > 0.99


def test_latents_are_normalised_before_their_geometry_is_undone() -> None:
    """As published: the length of a latent then has no gradient, which it has if left as it is."""
    views = views_of()
    grads, losses = {}, {}
    for undo in ("extent", "raw-extent"):
        model = Known(np.random.default_rng(1).normal(size=(2 * N, 24)) + 0.5)
        method = Method("self", undo, "none")  # type: ignore[arg-type]
        losses[undo] = Objective(model, method, SIZE, CPU)(views)["loss"].item()
        assert model.latent.grad is not None
        grads[undo] = (model.latent.grad * model.latent).sum(dim=1).abs()
    assert losses["extent"] == pytest.approx(losses["raw-extent"], rel=1e-6)
    assert grads["extent"].max() < 1e-7 < grads["raw-extent"].max()


def test_an_equivariant_encoder_aligns_the_views_of_a_crop(tmp_path: Path) -> None:
    """Latents that are the keypoints seen are one once their geometry is undone, and not before."""
    index, made = ShardIndex([str(write_labelled(tmp_path / "hands.tar", N))]), ViewsMade.FROM_CACHE
    config = AugmentationConfig(size=32)
    data = PairDataset(CropStore(index, 32), own(index), config, 0, made, posed="view")
    batch = collate_views([data[0, row] for row in range(N)])
    assert batch.joints is not None
    model = Known(batch.joints.flatten(0, 1).flatten(1).numpy())
    seen = batch._replace(images=torch.zeros(2, N, 1, 1, 3, dtype=torch.uint8))
    alignment = [
        Objective(model, Method("self", undo, "none"), 32, CPU)(seen)["alignment"].item()  # type: ignore[arg-type]
        for undo in ("none", "crop")
    ]
    assert alignment[0] > 1e-3 and alignment[1] < 1e-8
