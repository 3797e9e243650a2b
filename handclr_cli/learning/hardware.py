"""What the machine decides: device, precision, compilation, and how batches reach the device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ..choices import PrecisionName
from ..contract.errors import HandclrError, UsageError
from .patch_conv import use_patches

Autocast = Callable[[], contextlib.AbstractContextManager[Any]]

_ROOT = Path("/")
# Where the memory of a control group has its limit, its usage, and what of that can be reclaimed:
# of version 2, and of version 1.
_MEMORY_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


class ViewsMade(StrEnum):
    """Where the views of crops are made, and so what the data processes send to the device."""

    BY_WORKERS = "views"
    """The data processes make them, and send views."""
    AS_PUBLISHED = "published"
    """The data processes make them as the published code does, and send views."""
    ON_DEVICE = "crops"
    """The device makes them of the whole crops that it is sent."""
    FROM_CACHE = "draws"
    """The device makes them of crops that it keeps; it is sent their rows and what was drawn."""

    @property
    def on_device(self) -> bool:
        """Whether the device makes them, so that the data processes only draw them."""
        return self in (ViewsMade.ON_DEVICE, ViewsMade.FROM_CACHE)


def views_made(device: torch.device, cache: str, published: bool) -> ViewsMade:
    """Where views are made: on a GPU, but for published ones, which only the CPU can make."""
    if published:
        return ViewsMade.AS_PUBLISHED
    if device.type != "cuda":
        return ViewsMade.BY_WORKERS
    return ViewsMade.FROM_CACHE if cache == "gpu" else ViewsMade.ON_DEVICE


def pick_device(name: str, local: int = 0) -> torch.device:
    """Turn auto, cpu, cuda or cuda:N into a device that is there.

    `local` numbers the processes of this machine. Raises HandclrError where it is not there.
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
        reason = str(error).splitlines()[0]
        raise HandclrError(f"not available here: {reason}", setting="device") from error
    return device


def pick_precision(name: str, device: torch.device) -> Autocast:
    """The context that forward passes run in: bfloat16 for bf16, and for auto on CUDA.

    With bfloat16, what stays in float32 may use TF32. Raises UsageError for another name.
    """
    if name not in get_args(PrecisionName):
        known = ", ".join(get_args(PrecisionName))
        raise UsageError(f"choose from {known}", setting="precision")
    half = name == "bf16" or (name == "auto" and device.type == "cuda")
    torch.set_float32_matmul_precision("high" if half else "highest")
    torch.backends.cudnn.allow_tf32 = half
    return lambda: torch.autocast(device.type, torch.bfloat16, enabled=half)


def to_device(model: nn.Module, device: torch.device, compiled: bool | None = None) -> nn.Module:
    """Move a model to the device in channels-last order; compile it where asked for.

    `compiled` None: on CUDA.
    """
    torch.backends.cudnn.benchmark = True
    if device.type == "cpu":
        use_patches(model)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compiled or (compiled is None and device.type == "cuda"):
        model.compile()
    return model


def move(value: Any, device: torch.device) -> Any:
    """Move the tensors of nested tuples to the device without waiting for it.

    Anything else stays as it is.
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
        # This thread is a step ahead of the device: on a stream of their own, the copies do not
        # wait for that step.
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


@contextlib.contextmanager
def memory_errors(advice: str) -> Iterator[None]:
    """Raise a HandclrError, which says what to do, where the device lacks memory in a block."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise HandclrError(f"the device is out of memory; {advice}") from error


def free_memory(device: torch.device | None = None) -> int:
    """Bytes that may still be used, 0 if unknown.

    Of a CUDA device, else of this machine, within the limits of the control groups, of version 1 or
    2, that this process is in.
    """
    if device is not None and device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    table = _ROOT / "proc/meminfo"
    lines = table.read_text().splitlines() if table.exists() else []
    available = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return min([*available, *_group_memory()], default=0)


def _group_memory() -> Iterator[int]:
    """What each control group that this process is in leaves, where it has a limit."""
    for folder in _memory_groups():
        for limit, usage, reclaimable in _MEMORY_FILES:
            with contextlib.suppress(OSError, ValueError):  # no such file, or "max": no limit
                most = int((folder / limit).read_text())
                used = int((folder / usage).read_text()) - _statistic(folder, reclaimable)
                yield max(0, most - used)


def _memory_groups() -> Iterator[Path]:
    """The folders of the control groups that this process is in, each with all that it lies in.

    In a container the mount may be the process's own group, whatever that is called outside.
    """
    mounts = _ROOT / "sys/fs/cgroup"
    with contextlib.suppress(OSError, ValueError):
        for line in (_ROOT / "proc/self/cgroup").read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            mount = mounts / "memory" if controllers else mounts
            parts = PurePosixPath(name).parts[1:]
            yield from (mount.joinpath(*parts[:depth]) for depth in range(len(parts) + 1))


def _statistic(group: Path, name: str) -> int:
    """A number of memory.stat, 0 where it is not told."""
    with contextlib.suppress(OSError, ValueError):
        for line in (group / "memory.stat").read_text().splitlines():
            said, _, number = line.partition(" ")
            if said == name:
                return int(number)
    return 0
