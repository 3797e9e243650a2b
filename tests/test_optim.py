"""Optimisers, parameter groups and the schedule."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from handclr_cli.contract.errors import HandclrError
from handclr_cli.learning.optim import LARS, OPTIMIZERS, build_optimizer, parameter_groups
from handclr_cli.learning.schedule import warmup_cosine


def test_lars_steps_are_the_formula() -> None:
    weight, bias = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(4))
    optimizer = LARS([weight, bias], lr=0.1, momentum=0.9, weight_decay=0.01, trust=0.001)
    w, b = weight.detach().numpy().copy(), bias.detach().numpy().copy()
    mw, mb = np.zeros_like(w), np.zeros_like(b)
    rng = np.random.default_rng(0)
    for _ in range(3):
        gw, gb = (
            rng.normal(size=w.shape).astype(np.float32),
            rng.normal(size=b.shape).astype(np.float32),
        )
        weight.grad, bias.grad = torch.tensor(gw), torch.tensor(gb)
        optimizer.step()
        gw = gw + 0.01 * w
        mw = 0.9 * mw + 0.001 * np.linalg.norm(w) / np.linalg.norm(gw) * gw
        mb = 0.9 * mb + gb
        w, b = w - 0.1 * mw, b - 0.1 * mb
        np.testing.assert_allclose(weight.detach().numpy(), w, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(bias.detach().numpy(), b, rtol=1e-4, atol=1e-6)


def test_lars_survives_zeros() -> None:
    weight = nn.Parameter(torch.zeros(2, 2))
    optimizer = LARS([weight], lr=0.1)
    weight.grad = torch.zeros(2, 2)
    optimizer.step()
    assert torch.equal(weight.detach(), torch.zeros(2, 2))
    weight.grad = torch.ones(2, 2)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 2), -0.1))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_resumes_exactly(name: str) -> None:
    def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        x = torch.randn(8, 5, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    optimizer = build_optimizer(name, parameter_groups([model], 1e-4), lr=0.1)
    step(model, optimizer, 1)
    twin = copy.deepcopy(model)
    resumed = build_optimizer(name, parameter_groups([twin], 1e-4), lr=0.1)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(model, optimizer, 2)
    step(twin, resumed, 2)
    assert torch.equal(model.weight, twin.weight) and torch.equal(model.bias, twin.bias)


def test_groups_spare_biases_norms_and_frozen_tensors() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    frozen = nn.Linear(2, 2).requires_grad_(False)
    decayed, plain = parameter_groups([net, net[2], frozen], 0.1)
    assert decayed["params"] == [net[0].weight, net[2].weight] and decayed["weight_decay"] == 0.1
    assert plain["params"] == [net[0].bias, net[1].weight, net[1].bias, net[2].bias]
    assert plain["weight_decay"] == 0.0
    assert parameter_groups([frozen], 0.1) == []


def test_schedule() -> None:
    rates = [warmup_cosine(step, 100, 10, 2.0) for step in range(100)]
    assert rates[0] == pytest.approx(0.2) and rates[9] == rates[10] == 2.0
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(1.0) and 0 < rates[-1] < 0.001
    assert warmup_cosine(100, 100, 10, 2.0) == warmup_cosine(500, 100, 10, 2.0) == 0.0
    assert warmup_cosine(0, 5, 0, 1.0) == 1.0
    assert warmup_cosine(5, 5, 5, 1.0) == 1.0


def test_unknown_optimizer() -> None:
    with pytest.raises(HandclrError, match="adamw"):
        build_optimizer("sgdd", [], 0.1)
