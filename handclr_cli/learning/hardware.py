"""What the machine decides: device, precision, compilation, and how batches reach the device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..contract.errors import HandclrError, UsageError
from .patch_conv import use_patches

PRECISIONS = ("auto", "bf16", "fp32")
Autocast = Callable[[], contextlib.AbstractContextManager[Any]]


def pick_device(name: str, local: int = 0) -> torch.device:
    """Turn auto, cpu, cuda or cuda:N into a device that is there; `local` numbers the processes of
    this machine.
    """
    if name in ("auto", "cuda") and torch.cuda.is_available():
        device = torch.device("cuda", local % torch.cuda.device_count())
        torch.cuda.set_device(device)
        return device
    if name == "auto":
        return torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise HandclrError(
            f"--device {name} is not available here: {str(error).splitlines()[0]}"
        ) from error
    return device


def pick_precision(name: str, device: torch.device) -> Autocast:
    """The context that forward passes run in: bfloat16 where it is quick (auto: on CUDA), else
    float32.

    With bfloat16, what stays in float32 may use TF32. Raises UsageError for another name.
    """
    if name not in PRECISIONS:
        raise UsageError(f"--precision {name}: choose from {', '.join(PRECISIONS)}")
    half = name == "bf16" or (name == "auto" and device.type == "cuda")
    torch.set_float32_matmul_precision("high" if half else "highest")
    torch.backends.cudnn.allow_tf32 = half
    return lambda: torch.autocast(device.type, torch.bfloat16, enabled=half)


def place(model: nn.Module, device: torch.device, compiled: bool | None = None) -> nn.Module:
    """Move a model to the device in channels-last order, compiled where asked for (None:
    on CUDA).
    """
    torch.backends.cudnn.benchmark = True
    if device.type == "cpu":
        use_patches(model)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compiled or (compiled is None and device.type == "cuda"):
        model.compile()
    return model


def move(value: Any, device: torch.device) -> Any:
    """Move the tensors of nested tuples to the device without waiting for it; anything
    else stays.
    """
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, tuple):
        parts = [move(part, device) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def prefetch(batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
    """Move each batch to the device, while the one before it trains there."""
    if device.type != "cuda":
        yield from batches
        return
    copies = torch.cuda.Stream(device)
    for batch in batches:
        # This thread is a step ahead of the device: on a stream of their own, copies need not queue
        # behind that step.
        with torch.cuda.stream(copies):
            moved = move(batch, device)
        torch.cuda.current_stream(device).wait_stream(copies)
        _claim(moved, device)
        yield moved


def _claim(value: Any, device: torch.device) -> None:
    """Tell the allocator that tensors made on the copying stream are used on this one."""
    if isinstance(value, Tensor):
        value.record_stream(torch.cuda.current_stream(device))
    elif isinstance(value, tuple):
        for part in value:
            _claim(part, device)


def free_memory(device: torch.device | None = None) -> int:
    """Bytes that may still be used: of a CUDA device, else of this machine within its control
    group; 0 if unknown.
    """
    if device is not None and device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else []
    available = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return min([*available, *_group_memory()], default=0)


def _group_memory() -> Iterator[int]:
    """What the control group of this process leaves, where it has a limit."""
    for folder in (Path("/sys/fs/cgroup"), *_own_groups()):
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max": no limit
            yield int((folder / "memory.max").read_text()) - int(
                (folder / "memory.current").read_text()
            )


def _own_groups() -> Iterator[Path]:
    with contextlib.suppress(OSError):
        name = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip()
        yield Path("/sys/fs/cgroup") / name.lstrip("/")
