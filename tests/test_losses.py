"""NT-Xent against a double loop, measures of the latents, and the undoing of geometry in the latent
space.
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from handclr_cli.contract.errors import HandclrError
from handclr_cli.learning.augmentation import (
    AugmentationConfig,
    Geometry,
    draw_view,
    transform_points,
)
from handclr_cli.learning.losses import Contrast, alignment_uniformity, nt_xent, undo_geometry
from handclr_cli.learning.targets import PoseTargets
from handclr_cli.learning.weighting import PoseWeights

Form = Literal["linear", "sigmoid", "pose"] | None


class Batch(NamedTuple):
    """A batch as NumPy: latents (2N, D), image ids (2N,), joints (2N, 21, 2) in view sides."""

    z: np.ndarray
    ids: np.ndarray
    joints: np.ndarray

    @classmethod
    def random(cls, n: int, d: int, ids: str = "repeated") -> Batch:
        rng = np.random.default_rng(n * 100 + d)
        z, repeated = rng.normal(size=(2 * n, d)), rng.integers(0, n, size=2 * n)
        known = {
            "all different": np.arange(2 * n),
            "same image": np.tile(np.arange(n), 2),
            "repeated": repeated,
        }
        anchor = rng.uniform(size=(n, 21, 2))
        positive = anchor + rng.normal(
            scale=rng.uniform(0.005, 0.03, size=(n, 1, 1)), size=anchor.shape
        )
        return cls(z, known[ids], np.concatenate([anchor, positive]))

    def weights(self, form: Form) -> PoseWeights | None:
        return (
            PoseWeights(*torch.tensor(self.joints).chunk(2), form)
            if form and form != "pose"
            else None
        )

    def targets(self, form: Form, **options: float) -> PoseTargets | None:
        return (
            PoseTargets(*torch.tensor(self.joints).chunk(2), **options) if form == "pose" else None
        )

    def contrast(self, z: Tensor | None = None, form: Form = None, **options: Any) -> Contrast:
        z1, z2 = (torch.tensor(self.z) if z is None else z).chunk(2)
        options = {"weights": self.weights(form), "targets": self.targets(form), **options}
        return nt_xent(z1, z2, *torch.tensor(self.ids).chunk(2), **options)

    def gradient(self, form: Form = None, **options: Any) -> Tensor:
        z = torch.tensor(self.z, dtype=torch.float32, requires_grad=True)
        self.contrast(z, form, **options).loss.backward()
        assert z.grad is not None
        return z.grad


def slow(value: Any) -> Any:
    """A value of a parameter that the quick suite leaves out."""
    return pytest.param(value, marks=pytest.mark.slow)


def slow_contrast(
    batch: Batch, temperature: float, own: slice | None, form: Form
) -> tuple[float, float]:
    z = batch.z / np.linalg.norm(batch.z, axis=1, keepdims=True)
    ids, n = batch.ids, len(z) // 2
    weights = batch.weights(form)
    w_positive = weights.positive.double().numpy() if weights else np.ones(n)
    w = (
        weights.against_all(torch.arange(2 * n)).double().numpy()
        if weights
        else np.ones((2 * n, 2 * n))
    )
    targets = batch.targets(form)
    t = targets.against_all(torch.arange(2 * n)).double().numpy() if targets else None
    pairs = list(range(n))[own or slice(None)]
    losses, hits = [], []
    for i in [*pairs, *(n + k for k in pairs)]:
        p = (i + n) % (2 * n)
        logits = {p: w[i, p] * (z[i] @ z[p]) / temperature}
        for j in range(2 * n):
            if j not in (i, p) and ids[j] != ids[i] and ids[j] != ids[p]:
                logits[j] = w[i, j] * (z[i] @ z[j]) / temperature
        if t is None:
            total = sum(math.exp(logit) for logit in logits.values())
            losses.append(math.log(total) - w_positive[i % n] * (z[i] @ z[p]) / temperature)
        else:
            others = [(t[i, j], z[i] @ z[j] / temperature) for j in range(2 * n) if j != i]
            total = sum(math.exp(logit) for _, logit in others)
            losses.append(-sum(target * (logit - math.log(total)) for target, logit in others))
        hits.append(logits[p] == max(logits.values()))
    return float(np.mean(losses)), float(np.mean(hits))


@pytest.mark.parametrize("n", [slow(1), slow(2), 5, slow(16)])
@pytest.mark.parametrize("d", [slow(2), 32])
@pytest.mark.parametrize("temperature", [slow(0.05), 0.5, slow(2.0)])
@pytest.mark.parametrize("ids", [slow("all different"), slow("same image"), "repeated"])
def test_nt_xent_is_the_double_loop(n: int, d: int, temperature: float, ids: str) -> None:
    batch = Batch.random(n, d, ids)
    loss, top1 = slow_contrast(batch, temperature, None, None)
    for chunk in (None, 1, 3, 100):
        contrast = batch.contrast(temperature=temperature, chunk=chunk)
        assert contrast.loss.dtype == contrast.top1.dtype == torch.float32
        assert contrast.loss.shape == contrast.top1.shape == ()
        assert contrast.loss.item() == pytest.approx(loss, rel=1e-4, abs=1e-5)
        assert contrast.top1.item() == pytest.approx(top1)


@pytest.mark.parametrize(
    ("n", "own"),
    [
        (1, None),
        (2, slice(0, 1)),
        (7, None),
        (7, slice(0, 1)),
        (7, slice(1, 6)),
        (7, slice(-2, None)),
    ],
)
@pytest.mark.parametrize("temperature", [0.05, 0.5])
@pytest.mark.parametrize("form", [None, "linear", "sigmoid", "pose"])
@pytest.mark.slow
def test_weighted_loss_of_a_share_is_the_double_loop(
    n: int, temperature: float, own: slice | None, form: Form
) -> None:
    batch = Batch.random(n, 8)
    loss, top1 = slow_contrast(batch, temperature, own, form)
    for chunk in (None, 1, 5, 100):
        contrast = batch.contrast(form=form, temperature=temperature, own=own, chunk=chunk)
        assert contrast.loss.item() == pytest.approx(loss, rel=1e-4, abs=1e-5)
        assert contrast.top1.item() == pytest.approx(top1)


@pytest.mark.parametrize("form", [None, "linear", "sigmoid", "pose"])
@pytest.mark.parametrize("own", [None, slice(3, 9)])
@pytest.mark.parametrize("chunk", [1, 5, 16, 100])
def test_chunks_have_the_gradient_of_autograd(form: Form, own: slice | None, chunk: int) -> None:
    batch = Batch.random(16, 8)
    whole = batch.gradient(form, own=own, temperature=0.1)
    torch.testing.assert_close(
        batch.gradient(form, own=own, temperature=0.1, chunk=chunk), whole, atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("form", [None, "linear", "sigmoid", "pose"])
@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.slow
def test_gradient_is_the_finite_difference_of_the_double_loop(
    form: Form, chunk: int | None
) -> None:
    batch = Batch.random(3, 2)
    numeric = np.zeros_like(batch.z)
    for at in np.ndindex(batch.z.shape):
        step = np.zeros_like(batch.z)
        step[at] = 1e-5
        ahead, behind = (
            slow_contrast(batch._replace(z=batch.z + s), 0.5, None, form)[0] for s in (step, -step)
        )
        numeric[at] = (ahead - behind) / 2e-5
    np.testing.assert_allclose(batch.gradient(form, chunk=chunk).numpy(), numeric, atol=1e-5)


@pytest.mark.parametrize("form", [None, "linear", "pose"])
@pytest.mark.parametrize("chunk", [None, 3])
def test_mean_over_the_ranks_is_the_whole_batch(form: Form, chunk: int | None) -> None:
    batch = Batch.random(12, 8)
    shares = [slice(start, start + 3) for start in range(0, 12, 3)]
    contrasts = [batch.contrast(form=form, own=own, chunk=chunk) for own in shares]
    whole = batch.contrast(form=form)
    for of_shares, of_whole in zip(zip(*contrasts, strict=True), whole, strict=True):
        torch.testing.assert_close(torch.stack(of_shares).mean(), of_whole)
    gradient = torch.stack([batch.gradient(form, own=own, chunk=chunk) for own in shares]).mean(
        dim=0
    )
    torch.testing.assert_close(gradient, batch.gradient(form), atol=1e-6, rtol=0)


def test_large_batches_go_in_chunks_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch.random(16, 8)
    whole = batch.contrast(), batch.gradient()
    monkeypatch.setattr("handclr_cli.learning.losses._MOST_LOGITS", 100)
    monkeypatch.setattr("handclr_cli.learning.losses._CHUNK", 7)
    z = torch.tensor(batch.z, requires_grad=True)
    contrast = batch.contrast(z)
    assert "Chunked" in str(contrast.loss.grad_fn.next_functions)  # type: ignore[union-attr]
    torch.testing.assert_close((contrast, batch.gradient()), whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("chunk", [None, 5])
def test_without_ids_every_row_shows_an_image_of_its_own(chunk: int | None) -> None:
    z1, z2 = torch.tensor(Batch.random(6, 8).z).chunk(2)
    named = nt_xent(z1, z2, torch.arange(6), torch.arange(6, 12), chunk=chunk)
    assert nt_xent(z1, z2, chunk=chunk) == named


def test_latents_that_do_not_fit_are_told() -> None:
    z, ids = torch.zeros(4, 6), torch.arange(4)
    for one, other, told in (((4, 6), (3, 6), "(3, 6)"), ((4,), (4,), "not (4,) and (4,)")):
        with pytest.raises(HandclrError, match=re.escape(told)):
            nt_xent(torch.zeros(one), torch.zeros(other))
    for given in ((ids, None), (None, ids), (ids, ids[:3])):
        with pytest.raises(HandclrError, match="ids1 and ids2 are both"):
            nt_xent(z, z, *given)
    transform = Geometry(torch.zeros(3), torch.ones(3), torch.zeros(3, 2))
    with pytest.raises(HandclrError, match="3 transforms for 4 latents"):
        undo_geometry(z, transform)
    with pytest.raises(HandclrError, match=r"\(N, 2K\), not \(3, 5\)"):
        undo_geometry(torch.zeros(3, 5), transform)
    with pytest.raises(HandclrError, match="not twice"):
        undo_geometry(z[:3], transform, "twice")  # type: ignore[arg-type]


def test_a_copy_is_no_negative() -> None:
    z = torch.eye(4)
    for chunk in (None, 1):
        distinct = nt_xent(z[:2], z[2:], torch.tensor([0, 1]), torch.tensor([2, 3]), chunk=chunk)
        copies = nt_xent(z[:2], z[2:], torch.tensor([0, 0]), torch.tensor([2, 2]), chunk=chunk)
        assert distinct.loss.item() == pytest.approx(math.log(3))
        assert copies.loss.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("chunk", [None, 5])
def test_the_narrowest_targets_are_the_nearest_views(chunk: int | None) -> None:
    batch = Batch.random(9, 8, "all different")
    narrow = batch.contrast(targets=batch.targets("pose", spread=0.005), chunk=chunk)
    torch.testing.assert_close(narrow, batch.contrast(chunk=chunk), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("chunk", [None, 1])
def test_a_copy_is_a_positive_of_soft_targets_and_no_rival_of_the_positive(
    chunk: int | None,
) -> None:
    batch = Batch.random(3, 4, "all different")
    for values in batch:
        values[1] = values[0]
    soft = batch.contrast(targets=batch.targets("pose", spread=0.005), chunk=chunk)
    z, poses = batch.z / np.linalg.norm(batch.z, axis=1, keepdims=True), batch.joints.reshape(6, 42)
    losses = []
    for i in range(6):
        others = [j for j in range(6) if j != i]
        distance = {j: math.dist(poses[i], poses[j]) for j in others}
        nearest = [j for j in others if distance[j] == min(distance.values())]
        total = sum(math.exp(z[i] @ z[j] / 0.5) for j in others)
        losses.append(math.log(total) - np.mean([z[i] @ z[j] / 0.5 for j in nearest]))
        assert nearest == {0: [1], 1: [0], 3: [0, 1]}.get(i, nearest)
    assert soft.loss.item() == pytest.approx(np.mean(losses), rel=1e-5)
    assert soft.top1.item() == batch.contrast(chunk=chunk).top1.item()


def test_top1_counts_positives_that_nothing_in_the_denominator_exceeds() -> None:
    z, ids = torch.eye(4), torch.arange(4)
    for chunk in (None, 3):
        found = nt_xent(z, 3 * z, ids, ids, chunk=chunk).top1
        assert found.item() == 1.0 and not found.requires_grad
        assert nt_xent(z, z[[1, 0, 2, 3]], ids, ids, chunk=chunk).top1.item() == 0.5
        assert (
            nt_xent(
                z, z[[1, 0, 2, 3]], torch.tensor([0, 0, 2, 3]), ids // 2, chunk=chunk
            ).top1.item()
            == 1.0
        )
        assert nt_xent(z[:2], z[2:], ids[:2], ids[2:], chunk=chunk).top1.item() == 1.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("chunk", [None, 4])
def test_gradient_is_finite(dtype: torch.dtype, chunk: int | None) -> None:
    torch.manual_seed(0)
    z1 = (100 * torch.randn(8, 16)).to(dtype).requires_grad_()
    z2 = (100 * torch.randn(8, 16)).to(dtype).requires_grad_()
    ids = torch.arange(8) // 2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nt_xent(z1, z2, ids, ids, temperature=0.01, chunk=chunk).loss
    loss.backward()
    for z in (z1, z2):
        assert z.grad is not None and z.grad.dtype == dtype
        assert torch.isfinite(z.grad).all() and z.grad.abs().sum() > 0


@pytest.mark.parametrize("chunk", [None, 4])
def test_autocast_does_not_round_the_loss(chunk: int | None) -> None:
    batch = Batch.random(8, 16)
    z = torch.tensor(batch.z).bfloat16()
    forms: tuple[Form, ...] = ("linear", "pose")
    for form in forms:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = batch.contrast(z, form, temperature=0.05, chunk=chunk).loss
        torch.testing.assert_close(rounded, batch.contrast(z.double(), form, temperature=0.05).loss)


@pytest.mark.slow
def test_no_value_is_read_back_from_the_device() -> None:
    # A fake tensor has no values: whatever asks for one, and would wait for a GPU, raises.
    with FakeTensorMode():
        z = torch.empty(2, 8, 4, requires_grad=True)
        ids, joints = torch.empty(2, 8, dtype=torch.int64), torch.empty(2, 8, 21, 2)
        for chunk in (None, 10):
            nt_xent(*z, *ids, weights=PoseWeights(*joints), chunk=chunk).loss.backward()
            nt_xent(*z, *ids, targets=PoseTargets(*joints), chunk=chunk).loss.backward()
        assert z.grad is not None and z.grad.shape == z.shape
        alignment_uniformity(*z)
        with pytest.raises(RuntimeError):
            z.sum().item()


@pytest.mark.parametrize("limit", [2, 7, 100])
def test_alignment_and_uniformity_are_the_published_formulas(limit: int) -> None:
    z = Batch.random(10, 3).z
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    alignment = np.mean([math.dist(unit[i], unit[10 + i]) ** 2 for i in range(10)])
    kept = range(min(limit, 10))
    uniformity = math.log(
        np.mean([math.exp(-2 * math.dist(unit[i], unit[j]) ** 2) for j in kept for i in range(j)])
    )
    z1, z2 = torch.tensor(z, requires_grad=True).chunk(2)
    measured = alignment_uniformity(z1, z2, limit)
    assert [value.item() for value in measured] == pytest.approx([alignment, uniformity], abs=1e-6)
    assert all(value.dtype == torch.float32 and not value.requires_grad for value in measured)


def test_undo_in_crop_units_is_the_inverse_of_the_view() -> None:
    rng = np.random.default_rng(0)
    config = AugmentationConfig(rotation=180, scale=(0.4, 1.6), translation=0.2)
    views = [draw_view(config, rng) for _ in range(200)]
    points = rng.uniform(size=(200, 21, 2))
    seen = np.stack([transform_points(view, p) for view, p in zip(views, points, strict=True)])
    z = torch.tensor(seen, dtype=torch.float32).reshape(200, 42)
    back = undo_geometry(z, Geometry.of(views), "crop").reshape(200, 21, 2)
    np.testing.assert_allclose(back.numpy(), points, atol=1e-4)


def test_undo_in_extent_units_makes_turned_and_scaled_latents_agree() -> None:
    rng = np.random.default_rng(1)
    views = [draw_view(AugmentationConfig(translation=0.0), rng) for _ in range(50)]
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
    turned = undo_geometry(
        z, Geometry(torch.tensor([math.pi / 2]), torch.ones(1), torch.zeros(1, 2))
    )
    torch.testing.assert_close(turned, torch.tensor([[-1.0, 3.0, 3.0, 1.0]]), atol=1e-6, rtol=0)
