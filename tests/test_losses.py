"""NT-Xent against a double loop, and the undoing of geometry in the latent space."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from handclr_cli.learning.augmentation import AugmentationConfig, Geometry, draw, transform_points
from handclr_cli.learning.losses import nt_xent, retrieval_top1, undo_geometry


def slow_nt_xent(z: np.ndarray, ids: np.ndarray, temperature: float) -> float:
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    n = len(z) // 2
    losses = []
    for i in range(2 * n):
        p = (i + n) % (2 * n)
        total = math.exp(z[i] @ z[p] / temperature)
        for j in range(2 * n):
            if j not in (i, p) and ids[j] != ids[i] and ids[j] != ids[p]:
                total += math.exp(z[i] @ z[j] / temperature)
        losses.append(math.log(total) - z[i] @ z[p] / temperature)
    return float(np.mean(losses))


@pytest.mark.parametrize("n", [1, 2, 5, 16])
@pytest.mark.parametrize("d", [2, 32])
@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("ids", ["all different", "same image", "repeated"])
def test_nt_xent_is_the_double_loop(n: int, d: int, temperature: float, ids: str) -> None:
    rng = np.random.default_rng(n * 100 + d)
    z = rng.normal(size=(2 * n, d))
    known = {
        "all different": np.arange(2 * n),
        "same image": np.tile(np.arange(n), 2),
        "repeated": rng.integers(0, n, size=2 * n),
    }[ids]
    z1, z2 = torch.tensor(z[:n]), torch.tensor(z[n:])
    ids1, ids2 = torch.tensor(known[:n]), torch.tensor(known[n:])
    loss = nt_xent(z1, z2, ids1, ids2, temperature)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(slow_nt_xent(z, known, temperature), rel=1e-4, abs=1e-5)


def test_a_copy_is_no_negative() -> None:
    z = torch.eye(4)
    distinct = nt_xent(z[:2], z[2:], torch.tensor([0, 1]), torch.tensor([2, 3]))
    copies = nt_xent(z[:2], z[2:], torch.tensor([0, 0]), torch.tensor([2, 2]))
    assert distinct.item() == pytest.approx(math.log(3))
    assert copies.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_gradient_is_finite(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    z1 = (100 * torch.randn(8, 16)).to(dtype).requires_grad_()
    z2 = (100 * torch.randn(8, 16)).to(dtype).requires_grad_()
    ids = torch.arange(8) // 2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nt_xent(z1, z2, ids, ids, temperature=0.01)
    loss.backward()
    for z in (z1, z2):
        assert z.grad is not None and z.grad.dtype == dtype
        assert torch.isfinite(z.grad).all() and z.grad.abs().sum() > 0


def test_retrieval_top1() -> None:
    z = torch.eye(4)
    assert retrieval_top1(z, 3 * z).item() == 1.0
    assert retrieval_top1(z, z[[1, 0, 2, 3]]).item() == 0.5
    assert retrieval_top1(torch.ones(4, 3), torch.ones(4, 3)).item() == 0.25


def test_undo_in_crop_units_is_the_inverse_of_the_view() -> None:
    rng = np.random.default_rng(0)
    config = AugmentationConfig(rotation=180, scale=(0.4, 1.6), translation=0.2)
    views = [draw(config, rng) for _ in range(200)]
    points = rng.uniform(size=(200, 21, 2))
    seen = np.stack([transform_points(view, p) for view, p in zip(views, points, strict=True)])
    z = torch.tensor(seen, dtype=torch.float32).reshape(200, 42)
    back = undo_geometry(z, Geometry.of(views), "crop").reshape(200, 21, 2)
    np.testing.assert_allclose(back.numpy(), points, atol=1e-4)


def test_undo_in_extent_units_makes_turned_and_scaled_latents_agree() -> None:
    rng = np.random.default_rng(1)
    views = [draw(AugmentationConfig(translation=0.0), rng) for _ in range(50)]
    points = rng.uniform(size=(50, 64, 2)) - 0.5
    points -= points.mean(axis=1, keepdims=True)
    z = np.stack([transform_points(v, p + 0.5) - 0.5 for v, p in zip(views, points, strict=True)])
    back = undo_geometry(torch.tensor(z).reshape(50, 128), Geometry.of(views), "extent")
    truth = torch.tensor(points, dtype=torch.float32).reshape(50, 128)
    similarity = torch.nn.functional.cosine_similarity(back, truth)
    torch.testing.assert_close(similarity, torch.ones(50), atol=1e-5, rtol=0)


def test_undo_in_extent_units_shifts_by_the_detached_range() -> None:
    z = torch.tensor([[0.0, 0.0, 2.0, 4.0]], requires_grad=True)
    still = Geometry(torch.zeros(1), torch.full((1,), 0.7), torch.tensor([[0.5, -0.25]]))
    out = undo_geometry(z, still, "extent")
    torch.testing.assert_close(out, torch.tensor([[-1.0, 1.0, 1.0, 5.0]]))
    out.sum().backward()
    torch.testing.assert_close(z.grad, torch.ones(1, 4))
    turned = undo_geometry(z, Geometry(torch.tensor([math.pi / 2]), torch.ones(1), torch.zeros(1, 2)))
    torch.testing.assert_close(turned, torch.tensor([[-1.0, 3.0, 3.0, 1.0]]), atol=1e-6, rtol=0)
