"""A CUDA device without a card: tensors that have a shape, a type and a device, and no numbers.

Torch's fake tensors tell what an operator would do on CUDA, and refuse what CUDA refuses. The
`meta` device cannot: autocast does not know it, and code that asks whether it is on CUDA takes
another way. On top, a `Watch` refuses what CUDA does but should not be asked for in a hot path.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA = torch.device("cuda", 0)
ATEN = torch.ops.aten
# Of tensors that are made of Python numbers, on their way to the device; and who is asked where.
_PASSING = (
    *(ATEN.lift_fresh.default, ATEN.detach.default, ATEN.detach_.default),
    torch.ops.prim.device.default,
)
_COPIES = (ATEN._to_copy, ATEN.to, ATEN.copy_)
# How many elements are not zero, and what an element is, wherever that is asked.
_FOUND, _NUMBER = 3, 4
PACKAGE = "handclr_cli."


class ImpureError(AssertionError):
    """A hot path waited for the device, or used a tensor of the processor."""


class Watch(TorchDispatchMode):
    """Refuses whatever is not of the device, but where that is expected.

    `expected` are pairs of a function, as `room.module.function`, and what it may do: "read" from
    the device, "send" to it, or work on the "processor". `seen` are those that were met.
    """

    def __init__(self, expected: set[tuple[str, str]]) -> None:
        super().__init__()
        self.expected, self.seen = expected, set[tuple[str, str]]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _BY_NUMBERS:
            self._meet("processor" if _devices(args) == {"cpu"} else "read", func)
            return _BY_NUMBERS[func](args[0])
        out = func(*args, **kwargs)
        here, there = _devices((args, kwargs)), _devices(out)
        if "cpu" in here | there and func not in _PASSING:
            self._meet(_kind(func, here, there), func)
        return out

    def _meet(self, kind: str, func: Any) -> None:
        met = _place(), kind
        if met not in self.expected:
            raise ImpureError(f"{met[0]}: {kind}: {func}")
        self.seen.add(met)


def _kind(func: Any, here: set[str], there: set[str]) -> str:
    if func.overloadpacket not in _COPIES or here | there == {"cpu"}:
        return "processor"
    return "send" if "cuda" in there else "read"


def _number(tensor: Tensor) -> float | int | bool:
    kind = float if tensor.is_floating_point() else bool if tensor.dtype == torch.bool else int
    return kind(_NUMBER)


def _places(tensor: Tensor) -> Tensor:
    return torch.empty(_FOUND, tensor.ndim, dtype=torch.int64, device=tensor.device)


# Operators whose result depends on the numbers, and what they answer here. In inference mode
# `item` comes as it is.
_BY_NUMBERS = {
    ATEN._local_scalar_dense.default: _number,
    ATEN.item.default: _number,
    ATEN.nonzero.default: _places,
}


def _devices(value: Any) -> set[str]:
    return {leaf.device.type for leaf in tree_leaves(value) if isinstance(leaf, Tensor)}


def _place() -> str:
    """The innermost function of the package that is running, comprehensions as their function."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith(PACKAGE):
            function = frame.f_code.co_qualname.partition(".<locals>")[0]
            return f"{name.removeprefix(PACKAGE)}.{function}"
        frame = frame.f_back  # type: ignore[assignment]
    return "outside"


@contextlib.contextmanager
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors made in a block are fake; those on "cuda" behave as if it were there."""
    before = torch.get_float32_matmul_precision()
    with monkeypatch.context() as patch:
        patch.setattr(Tensor, "backward", backward)
        patch.setattr(FakeTensor, "numpy", _numpy, raising=False)
        # Real cards, where there are some, are left alone.
        patch.setattr(fake_tensor, "init_gpu_context", lambda device: None)
        patch.setattr(FakeTensorMode, "avoid_device_init", True)
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda *args: True)
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield
    torch.set_float32_matmul_precision(before)


def _numpy(tensor: Tensor) -> np.ndarray:
    """Zeros for a tensor on the processor; raises TypeError for another, as torch does."""
    if tensor.device.type != "cpu":
        raise TypeError(f"cannot convert a tensor on {tensor.device} to numpy")
    return np.zeros(tensor.shape, str(tensor.dtype).removeprefix("torch."))


def backward(root: Tensor, gradient: Tensor | None = None) -> None:
    """`Tensor.backward` without torch's engine, which wants a card for tensors of CUDA."""
    assert root.grad_fn is not None
    start = torch.ones_like(root) if gradient is None else gradient
    arrived: dict[Any, dict[int, Tensor]] = {root.grad_fn: {root.output_nr: start}}
    with torch.no_grad():
        for node in _from_root(root.grad_fn):
            found = arrived.pop(node, None)
            if found is None:
                continue
            call = node if callable(node) else node.apply
            grads = call(*(found.get(number) for number in range(len(node._input_metadata))))
            grads = grads if isinstance(grads, tuple) else (grads,)
            # The last ones are of what is no tensor.
            for (below, number), grad in zip(node.next_functions, grads, strict=False):
                if below is not None and grad is not None:
                    fitted = _fitted(grad, below._input_metadata[number])
                    sums = arrived.setdefault(below, {})
                    sums[number] = fitted + sums[number] if number in sums else fitted


def _from_root(root: Any) -> list[Any]:
    """The nodes of a graph, each before those that it hands its gradients to."""
    order, met, stack = [], set(), [(root, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in met:
            met.add(node)
            stack.append((node, True))
            stack += [(below, False) for below, _ in node.next_functions if below is not None]
    return order[::-1]


def _fitted(grad: Tensor, wanted: Any) -> Tensor:
    """A gradient in the shape and type of what it is of, as the engine makes it."""
    assert grad.device == wanted.device, f"a gradient on {grad.device} for {wanted.device}"
    return grad.sum_to_size(tuple(wanted.shape)).to(wanted.dtype)
