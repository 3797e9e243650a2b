"""The pose network, and the truth that it learns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from handclr_cli.contract.errors import HandclrError
from handclr_cli.learning.encoder import build_encoder
from handclr_cli.learning.ground_truth import of_parents, pose_truth
from handclr_cli.learning.heads import HEADS
from handclr_cli.learning.pose import PoseNet

PARENTS = [0, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 0, 13, 14, 15, 0, 17, 18, 19]


def sample(n: int, size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    uv = 8 + (size - 16) * torch.rand(n, 21, 2, generator=generator)
    return uv, torch.randn(n, 21, 3, generator=generator) * 0.05 + torch.tensor([0.0, 0.0, 0.6])


def test_the_truth_follows_the_skeleton() -> None:
    uv, xyz = sample(2, 64)
    truth = pose_truth(uv, xyz, 64)
    assert of_parents(torch.arange(21)[None])[0].tolist() == PARENTS
    assert truth.delta[:, 0].abs().max() == 0
    torch.testing.assert_close(truth.delta[:, 1:].norm(dim=2), torch.ones(2, 20))
    torch.testing.assert_close(truth.location[:, 9].norm(dim=1), torch.ones(2))
    tip = xyz[:, 8] - xyz[:, 7]
    torch.testing.assert_close(truth.delta[:, 8], tip / tip.norm(dim=1, keepdim=True))
    flat = pose_truth(uv, torch.zeros(2, 21, 3), 64)
    assert torch.isfinite(flat.location).all() and torch.isfinite(flat.delta).all()


def test_a_joint_outside_or_without_labels_is_not_visible() -> None:
    uv, xyz = sample(2, 64)
    uv[0, 3], uv[1, 5] = torch.tensor([-300.0, 20.0]), torch.tensor([20.0, 64.0])
    valid = torch.ones(2, 21, dtype=torch.bool)
    valid[0, 7] = False
    xyz[0, 7] = float("nan")
    truth = pose_truth(uv, xyz, 64, valid)
    assert (~truth.visible).nonzero().tolist() == [[0, 3], [0, 7], [1, 5]]
    assert (~truth.valid).nonzero().tolist() == [[0, 7]]
    assert (~truth.delta_valid).nonzero().tolist() == [[0, 7], [0, 8]]
    assert all(torch.isfinite(part).all() for part in truth[:3])


@pytest.mark.slow
def test_every_parameter_learns_and_the_seed_decides() -> None:
    encoder = build_encoder("resnet18")
    for head in HEADS:
        net, twin, other = (PoseNet(encoder, seed=s, head=head) for s in (1, 1, 2))
        name = next(name for name in net.state_dict() if name.startswith("head."))
        assert net.kind == head and torch.equal(net.state_dict()[name], twin.state_dict()[name])
        assert not torch.equal(net.state_dict()[name], other.state_dict()[name])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = net(torch.randn(2, 3, 32, 32))
        net.head.loss(outputs, pose_truth(*sample(2, 32), 32))["total"].backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
        net.zero_grad()
    with pytest.raises(HandclrError, match="multiples of 32"):
        net(torch.zeros(1, 3, 100, 64))
    with pytest.raises(HandclrError, match="choose one of detnet"):
        PoseNet(encoder, head="other")
