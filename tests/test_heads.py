"""The heads of the pose model: readout and loss, against loops over joints and cells."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from handclr_cli.learning.ground_truth import PoseTruth, pose_truth
from handclr_cli.learning.heads import HEADS, DetNet, PoseMaps, SoftArgmax, heatmaps
from handclr_cli.learning.pose_head import Points

CHANNELS = 8
# Those whose outputs are flat; the guided one has tests of its own.
FLAT = [name for name in HEADS if name != "guided"]
DETNET = DetNet(CHANNELS)


def sample(n: int, size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    uv = 8 + (size - 16) * torch.rand(n, 21, 2, generator=generator)
    return uv, torch.randn(n, 21, 3, generator=generator) * 0.05 + torch.tensor([0.0, 0.0, 0.6])


def truth_of(
    n: int, size: int, missing: tuple[tuple[int, int], ...] = (), seed: int = 0
) -> PoseTruth:
    valid = torch.ones(n, 21, dtype=torch.bool)
    for at in missing:
        valid[at] = False
    return pose_truth(*sample(n, size, seed), size, valid)


def perfect(truth: PoseTruth) -> PoseMaps:
    heat = heatmaps(truth)
    h, w = heat.shape[2:]
    return PoseMaps(
        heat,
        truth.delta[..., None, None].expand(-1, -1, -1, h, w),
        truth.location[..., None, None].expand(-1, -1, -1, h, w),
    )


def noisy(value: Any, seed: int = 1) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return type(value)(
        *(part + 0.1 * torch.randn(part.shape, generator=generator) for part in value)
    )


def guess(name: str, truth: PoseTruth) -> Any:
    """Outputs of a head that are near the truth."""
    points = Points(truth.location.clone(), truth.uv.clone())
    return noisy(perfect(truth) if name == "detnet" else points)


def test_perfect_maps_read_back_as_the_truth() -> None:
    uv, xyz = sample(6, 128)
    truth = pose_truth(uv, xyz, 128)
    assert heatmaps(truth).shape == (6, 21, 32, 32) and truth.visible.all()
    read_xyz, read_uv = DETNET.read(perfect(truth))
    bone = (xyz[:, 9] - xyz[:, 0]).norm(dim=1)[:, None, None]
    torch.testing.assert_close(read_xyz * bone, xyz - xyz[:, :1], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(read_uv, uv, atol=0.01, rtol=0)
    losses = DETNET.loss(perfect(truth), truth)
    assert set(losses) == {"total", "heat", "delta", "location"}
    assert all(value.item() < 1e-10 for value in losses.values())


def test_the_location_is_read_at_the_hottest_cell() -> None:
    heat = torch.zeros(1, 21, 8, 8)
    heat[:, :, 3, 5] = 0.5
    heat[:, 4, 0, 7] = 0.9
    location = torch.zeros(1, 21, 3, 8, 8)
    location[:, 4, :, 0, 7] = torch.tensor([1.0, 2.0, 3.0])
    location[:, 4, :, 3, 5] = 9.0
    location[:, 0, :, 3, 5] = 1.0
    xyz, uv = DETNET.read(PoseMaps(heat, torch.zeros_like(location), location))
    assert xyz[0, 4].tolist() == [0.0, 1.0, 2.0] and xyz[0, 0].tolist() == [0.0, 0.0, 0.0]
    assert uv[0, 1].tolist() == [22.0, 14.0] and uv[0, 4].tolist() == [30.0, 2.0]


def weight_of_cell(row: int, column: int, x: float, y: float, size: int) -> float:
    """How near a cell of a map is to a joint at x, y of the picture, or of its border."""
    du = column + 0.5 - min(max(x, 0), size) / 4
    dv = row + 0.5 - min(max(y, 0), size) / 4
    return math.exp(-0.5 * (du * du + dv * dv))


def true_maps(xyz: Tensor, valid: Tensor, joint: int) -> dict[str, np.ndarray]:
    """What the maps of a joint of one hand (21, 3) say; the bone only where its parent is valid."""
    bone = math.dist(xyz[0], xyz[9])
    found = {"location": ((xyz[joint] - xyz[0]) / bone).numpy()}
    parent = 0 if joint % 4 == 1 else max(joint - 1, 0)
    if valid[parent]:
        step = (xyz[joint] - xyz[parent]).double().numpy()
        found["delta"] = step / max(np.linalg.norm(step), 1e-9)
    return found


@pytest.mark.parametrize(
    "missing", [(), ((0, 3), (1, 5), (1, 6), (1, 20))], ids=["all labels", "some"]
)
def test_the_detnet_loss_is_its_formula(missing: tuple[tuple[int, int], ...]) -> None:
    size, n = 32, 2
    uv, xyz = sample(n, size)
    uv[0, 7], uv[1, 8] = torch.tensor([-40.0, 20.0]), torch.tensor([20.0, 32.0])
    valid = torch.ones(n, 21, dtype=torch.bool)
    for at in missing:
        valid[at], uv[at], xyz[at] = False, 1e30, -1e30
    truth = pose_truth(uv, xyz, size, valid)
    maps = noisy(perfect(truth))
    expected = summed_over_cells(maps, uv, xyz, valid, size)
    expected["total"] = 100 * expected["heat"] + expected["delta"] + 10 * expected["location"]
    losses = DETNET.loss(maps, truth)
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(
        expected, rel=2e-5
    )


def summed_over_cells(
    maps: PoseMaps, uv: Tensor, xyz: Tensor, valid: Tensor, size: int
) -> dict[str, float]:
    """The parts of the loss, cell by cell; of a joint without labels nothing."""
    heat_error = heat_count = 0.0
    sums = {"location": [0.0, 0.0], "delta": [0.0, 0.0]}
    for b, j in zip(*np.nonzero(valid.numpy()), strict=True):
        x, y = uv[b, j].tolist()
        seen = 0 <= x < size and 0 <= y < size
        heat_count += seen
        here = true_maps(xyz[b], valid[b], j)
        for r, c in np.ndindex(size // 4, size // 4):
            weight = weight_of_cell(r, c, x, y, size)
            heat_error += seen * (float(maps.heat[b, j, r, c]) - weight) ** 2 / (size // 4) ** 2
            for name, true in here.items():
                found = getattr(maps, name)[b, j, :, r, c].numpy()
                sums[name][0] += weight * float(((found - true) ** 2).sum())
                sums[name][1] += weight
    found = {name: above / below for name, (above, below) in sums.items()}
    return found | {"heat": 0.5 * 21 * heat_error / heat_count}


def test_the_loss_of_points_is_its_formula() -> None:
    truth = truth_of(2, 64, missing=((0, 4), (1, 20)))
    truth.uv[1, 2] = -5.0
    truth = truth._replace(visible=truth.visible & (truth.uv >= 0).all(dim=2))
    points = guess("softargmax", truth)
    off3d = [
        (points.location[b, j] - truth.location[b, j]).abs().sum()
        for b, j in np.argwhere(truth.valid.numpy())
    ]
    off2d = [
        (points.uv[b, j] - truth.uv[b, j]).abs().sum() / 64
        for b, j in np.argwhere(truth.visible.numpy())
    ]
    assert (len(off3d), len(off2d)) == (40, 39)
    losses = HEADS["regress"](CHANNELS).loss(points, truth)
    torch.testing.assert_close(losses["location"], torch.stack(off3d).mean())
    torch.testing.assert_close(losses["uv"], torch.stack(off2d).mean())
    torch.testing.assert_close(losses["total"], losses["location"] + 4 * losses["uv"])


@pytest.mark.parametrize("name", FLAT)
def test_a_joint_without_labels_counts_nowhere(name: str) -> None:
    """Neither its labels, nor what is predicted for it; and its child's bone is not known."""
    head, missing = HEADS[name](CHANNELS), ((0, 6), (1, 17))
    truth = truth_of(2, 64, missing)
    outputs = [part.requires_grad_() for part in guess(name, truth)]
    head.loss(guess(name, truth)._make(outputs), truth)["total"].backward()
    for part in outputs:
        assert part.grad is not None and all(part.grad[at].abs().max() == 0 for at in missing)
        assert part.grad[0, 5].abs().max() > 0 and part.grad[1, 6].abs().max() > 0
    if name == "detnet":
        delta = outputs[1].grad
        assert delta is not None and delta[0, 7].abs().max() == 0 and delta[0, 8].abs().max() > 0


@pytest.mark.parametrize("name", FLAT)
def test_the_loss_does_not_depend_on_the_batch_size(name: str) -> None:
    head, missing = HEADS[name](CHANNELS), ((0, 6),)
    truth, tripled = (
        truth_of(2, 64, missing),
        pose_truth(
            *(torch.cat([part] * 3) for part in sample(2, 64)),
            64,
            torch.cat([truth_of(2, 64, missing).valid] * 3),
        ),
    )
    outputs = guess(name, truth)
    small, large = (
        head.loss(outputs, truth),
        head.loss(outputs._make(torch.cat([m] * 3) for m in outputs), tripled),
    )
    for part in small:
        torch.testing.assert_close(small[part], large[part])


@pytest.mark.parametrize("name", FLAT)
def test_a_batch_without_any_joint_in_view_is_finite(name: str) -> None:
    uv, xyz = sample(2, 64)
    truth = pose_truth(uv - 1000, xyz, 64)
    assert not truth.visible.any()
    assert torch.isfinite(HEADS[name](CHANNELS).loss(guess(name, truth_of(2, 64)), truth)["total"])


def test_soft_argmax_is_the_mean_over_the_heat() -> None:
    torch.manual_seed(0)
    head = SoftArgmax(CHANNELS).eval()
    for branch in (head.heat, head.location):
        torch.nn.init.normal_(branch[-1].weight, std=1.0)  # type: ignore[arg-type]
    seen: dict[str, Tensor] = {}
    head.heat.register_forward_hook(lambda module, given, out: seen.update(heat=out))
    head.location.register_forward_hook(lambda module, given, out: seen.update(location=out))
    with torch.no_grad():
        xyz, uv = head.read(head(torch.randn(1, CHANNELS, 1, 2)))
    heat, location = (seen[name][0].double().numpy() for name in ("heat", "location"))
    assert heat.shape == (21, 8, 16)
    places, means = np.zeros((21, 2)), np.zeros((21, 3))
    for j in range(21):
        share = np.exp(heat[j] - heat[j].max())
        share /= share.sum()
        for r in range(8):
            for c in range(16):
                places[j] += share[r, c] * np.array([4 * c + 2, 4 * r + 2])
                means[j] += share[r, c] * location[3 * j : 3 * j + 3, r, c]
    np.testing.assert_allclose(uv[0], places, rtol=1e-4)
    np.testing.assert_allclose(xyz[0], means - means[0], atol=1e-4)


@pytest.mark.parametrize("name", HEADS)
def test_outputs_have_their_shapes(name: str) -> None:
    torch.manual_seed(0)
    head = HEADS[name](CHANNELS)
    outputs = head(torch.randn(2, CHANNELS, 1, 2))
    xyz, uv = head.read(outputs)
    assert (
        xyz.shape == (2, 21, 3)
        and uv.shape == (2, 21, 2)
        and xyz.dtype == uv.dtype == torch.float32
    )
    assert xyz[:, 0].abs().max() == 0
    if name == "detnet":
        assert outputs.heat.shape == (2, 21, 8, 16) and outputs.location.shape == (2, 21, 3, 8, 16)
    else:  # what has points and knows nothing yet has them about the middle
        torch.testing.assert_close(uv.mean(dim=(0, 1)), torch.tensor([32.0, 16.0]), atol=12, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_a_head_learns_four_hands_by_heart(name: str) -> None:
    torch.manual_seed(0)
    head, features, truth = HEADS[name](CHANNELS), torch.randn(4, CHANNELS, 1, 1), truth_of(4, 32)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    for _ in range(25):
        outputs = head(features)
        losses = head.loss(outputs, truth)
        optimizer.zero_grad()
        losses["total"].backward()
        assert all(parameter.grad is not None for parameter in head.parameters())
        optimizer.step()
    xyz, uv = head.read(outputs)
    assert (uv - truth.uv).norm(dim=2).median() < 4
    assert (xyz - truth.location).norm(dim=2).median() < 0.3 * truth.location.norm(dim=2).median()
