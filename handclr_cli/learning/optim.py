"""Optimisers, and the learning rate that each wants."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ..choices import OptimizerName
from ..contract.errors import UsageError

OPTIMIZERS = get_args(OptimizerName)


class LARS(torch.optim.Optimizer):
    """Momentum SGD with a rate of its own for each weight tensor (You 2017).

    A step is scaled by trust * |weight| / |gradient|. Biases and other 1-D parameters take the
    plain momentum step, without weight decay.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; returns what the closure returns, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                update = weight.grad
                if weight.ndim > 1:
                    update = update.add(weight, alpha=group["weight_decay"])
                    size, slope = weight.norm(), update.norm()
                    # where, not if: comparing on the host would wait for the device once per
                    # tensor.
                    usable, scale = (size > 0) & (slope > 0), group["trust"] * size / slope
                    update = update * torch.where(usable, scale, torch.ones_like(size))
                state = self.state[weight]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight)
                step = state["momentum"].mul_(group["momentum"]).add_(update)
                weight.add_(step, alpha=-group["lr"])
        return loss


def parameter_groups(modules: Iterable[nn.Module], weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: weights with decay; biases and 1-D tensors with none."""
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    seen: set[int] = set()
    for module in modules:
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            is_plain = parameter.ndim <= 1 or name.rpartition(".")[2] == "bias"
            (plain if is_plain else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def default_lr(name: str, batch: int) -> float:
    """The peak learning rate of pre-training, growing with the square root of the batch.

    1e-4 * sqrt(batch) for Adam (PeCLR); LARS scales each step by the weights and wants 0.075 *
    sqrt(batch) (SimCLR), whatever it trains.
    """
    return (0.075 if name == "lars" else 1e-4) * math.sqrt(batch)


def build_optimizer(name: str, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    """Make the optimiser "adamw", "lars" or "adam" over groups from `parameter_groups`."""
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=True)
    if name == "lars":
        return LARS(groups, lr=lr)
    if name == "adam":
        return torch.optim.Adam(groups, lr=lr, fused=True)
    raise UsageError(f"unknown optimiser {name!r}: choose one of {', '.join(OPTIMIZERS)}")
