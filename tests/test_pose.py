"""The pose model: its targets, its readout and its loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from handclr_cli.contract.errors import HandclrError
from handclr_cli.learning.encoder import build_encoder
from handclr_cli.learning.pose import (
    PARENTS,
    PoseMaps,
    PoseNet,
    PoseTargets,
    pose_loss,
    read_pose,
    targets,
)


def sample(n: int, size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    uv = 8 + (size - 16) * torch.rand(n, 21, 2, generator=generator)
    return uv, torch.randn(n, 21, 3, generator=generator) * 0.05 + torch.tensor([0.0, 0.0, 0.6])


def perfect(truth: PoseTargets) -> PoseMaps:
    h, w = truth.heat.shape[2:]
    return PoseMaps(
        truth.heat,
        truth.delta[..., None, None].expand(-1, -1, -1, h, w),
        truth.location[..., None, None].expand(-1, -1, -1, h, w),
    )


def test_perfect_maps_read_back_as_the_truth() -> None:
    uv, xyz = sample(6, 128)
    truth = targets(uv, xyz, 128)
    assert truth.heat.shape == (6, 21, 32, 32) and truth.visible.all()
    read_xyz, read_uv = read_pose(perfect(truth))
    bone = (xyz[:, 9] - xyz[:, 0]).norm(dim=1)[:, None, None]
    torch.testing.assert_close(read_xyz * bone, xyz - xyz[:, :1], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(read_uv, uv, atol=0.01, rtol=0)
    losses = pose_loss(perfect(truth), truth)
    assert set(losses) == {"total", "heat", "delta", "location"}
    assert all(value.item() < 1e-10 for value in losses.values())


def test_readout_takes_the_location_at_the_hottest_cell() -> None:
    heat = torch.zeros(1, 21, 8, 8)
    heat[:, :, 3, 5] = 0.5
    heat[:, 4, 0, 7] = 0.9
    location = torch.zeros(1, 21, 3, 8, 8)
    location[:, 4, :, 0, 7] = torch.tensor([1.0, 2.0, 3.0])
    location[:, 4, :, 3, 5] = 9.0
    location[:, 0, :, 3, 5] = 1.0
    xyz, uv = read_pose(PoseMaps(heat, torch.zeros_like(location), location))
    assert xyz[0, 4].tolist() == [0.0, 1.0, 2.0] and xyz[0, 0].tolist() == [0.0, 0.0, 0.0]
    assert uv[0, 1].tolist() == [22.0, 14.0] and uv[0, 4].tolist() == [30.0, 2.0]


def test_targets_follow_the_skeleton() -> None:
    uv, xyz = sample(2, 64)
    truth = targets(uv, xyz, 64)
    assert PARENTS == (0, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 0, 13, 14, 15, 0, 17, 18, 19)
    assert truth.delta[:, 0].abs().max() == 0
    torch.testing.assert_close(truth.delta[:, 1:].norm(dim=2), torch.ones(2, 20))
    torch.testing.assert_close(truth.location[:, 9].norm(dim=1), torch.ones(2))
    tip = xyz[:, 8] - xyz[:, 7]
    torch.testing.assert_close(truth.delta[:, 8], tip / tip.norm(dim=1, keepdim=True))
    flat = targets(uv, torch.zeros(2, 21, 3), 64)
    assert torch.isfinite(flat.location).all() and torch.isfinite(flat.delta).all()


def test_a_joint_outside_is_left_out_of_the_heat_loss() -> None:
    uv, xyz = sample(2, 64)
    uv[0, 3] = torch.tensor([-300.0, 20.0])
    uv[1, 5] = torch.tensor([20.0, 64.0])
    truth = targets(uv, xyz, 64)
    assert truth.visible.sum() == 40 and not truth.visible[0, 3] and not truth.visible[1, 5]
    maps = perfect(truth)
    heat = maps.heat.clone()
    heat[0, 3] = 1.0
    assert pose_loss(maps._replace(heat=heat), truth)["heat"].item() == pytest.approx(0.0, abs=1e-10)
    nothing = targets(uv - 1000, xyz, 64)
    assert torch.isfinite(pose_loss(maps, nothing)["total"])


def test_the_loss_does_not_depend_on_the_batch_size() -> None:
    uv, xyz = sample(2, 64)
    truth = targets(uv, xyz, 64)
    noise = torch.Generator().manual_seed(1)
    maps = PoseMaps(*(m + 0.1 * torch.randn(m.shape, generator=noise) for m in perfect(truth)))
    small = pose_loss(maps, truth)
    tripled = targets(torch.cat([uv] * 3), torch.cat([xyz] * 3), 64)
    large = pose_loss(PoseMaps(*(torch.cat([m] * 3) for m in maps)), tripled)
    for name in small:
        torch.testing.assert_close(small[name], large[name])
    parts = 100 * small["heat"] + small["delta"] + 10 * small["location"]
    torch.testing.assert_close(small["total"], parts)


@pytest.mark.slow
def test_every_parameter_learns_and_the_seed_decides() -> None:
    encoder = build_encoder("resnet18")
    net, twin, other = (PoseNet(encoder, seed=s) for s in (1, 1, 2))
    name = "deconv.0.weight"
    assert torch.equal(net.state_dict()[name], twin.state_dict()[name])
    assert not torch.equal(net.state_dict()[name], other.state_dict()[name])
    maps = net(torch.randn(2, 3, 64, 96))
    assert maps.heat.shape == (2, 21, 16, 24) and maps.location.shape == (2, 21, 3, 16, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = net(torch.randn(2, 3, 64, 64))
    pose_loss(maps, targets(*sample(2, 64), 64))["total"].backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
    with pytest.raises(HandclrError, match="multiples of 32"):
        net(torch.zeros(1, 3, 100, 64))


@pytest.mark.slow
def test_it_learns_four_images_by_heart() -> None:
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    uv, xyz = sample(4, 64)
    truth = targets(uv, xyz, 64)
    net = PoseNet(build_encoder("resnet18"))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    history = []
    for _ in range(60):
        maps = net(images)
        losses = pose_loss(maps, truth)
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        history.append({k: v.item() for k, v in losses.items()})
    assert history[-1]["heat"] < 0.3 * history[0]["heat"]
    assert history[-1]["location"] < 0.05 * history[0]["location"]
    _, found = read_pose(maps)
    assert (found - uv).norm(dim=2).median() < 8
