"""Training in several processes: who we are, and what the processes must agree on."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from ..contract.errors import HandclrError, UsageError

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_SLURM = (
    "SLURM_PROCID",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_LOCALID",
    "SLURM_STEP_NODELIST",
    "SLURM_JOB_ID",
)
_PORTS = 20_000, 10_000


@dataclass(frozen=True)
class Ranks:
    """This process among those of one training: number `rank` of `world`.

    On its machine it is number `local` of `neighbours`. The main process listens at address, port.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    neighbours: int = 1
    address: str = ""
    port: int = 0

    @property
    def main(self) -> bool:
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """This process's part of a batch that all share equally."""
        size = batch // self.world
        return slice(self.rank * size, (self.rank + 1) * size)

    def most(self, value: int) -> int:
        """The greatest of the processes' values; all must ask."""
        if self.world == 1:
            return value
        values = torch.tensor([value], dtype=torch.int32)  # on the CPU: no device is waited for
        distributed.all_reduce(values, distributed.ReduceOp.MAX)
        return int(values.item())

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes, without gradient; all must ask."""
        if self.world > 1:
            values = values.detach().clone()
            distributed.all_reduce(values)
            values /= self.world
        return values

    def gather(self, part: Tensor) -> Tensor:
        """All parts along the first dimension, in order of rank, with gradients to all of them."""
        return _Gather.apply(part, self.rank) if self.world > 1 else part

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.world > 1:
            distributed.all_reduce(torch.zeros(1))


def ranks_of(environment: Mapping[str, str] | None = None) -> Ranks:
    """Read torchrun's variables, else those of a Slurm step with several tasks, else one process.

    Raises UsageError where variables are missing, or are not numbers.
    """
    env = os.environ if environment is None else environment
    try:
        if any(name in env for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")):
            return _by_torchrun(env)
        # Not SLURM_NTASKS: a batch script has it too, in which srun has not started those tasks.
        return _by_slurm(env) if int(env.get("SLURM_STEP_NUM_TASKS", "1")) > 1 else Ranks()
    except ValueError as error:
        wrong = "the environment variables of torchrun or Slurm are not numbers"
        raise UsageError(f"{wrong}: {error}") from error


@contextlib.contextmanager
def joined_ranks(ranks: Ranks, device: torch.device) -> Iterator[Ranks]:
    """Connect the processes for a block.

    Raises HandclrError where they do not meet, or one of the others is lost.
    """
    if ranks.world == 1:
        yield ranks
        return
    os.environ.update(MASTER_ADDR=ranks.address, MASTER_PORT=str(ranks.port))
    _meet(ranks, "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield ranks
    except (distributed.DistError, RuntimeError) as error:
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            lost = "lost another process of this training; what it printed tells why"
            raise HandclrError(lost) from error
        raise
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _meet(ranks: Ranks, backend: str) -> None:
    try:
        distributed.init_process_group(backend, rank=ranks.rank, world_size=ranks.world)
    except (distributed.DistError, RuntimeError) as error:
        place = f"{ranks.address}, port {ranks.port}"
        why = str(error).partition("\n")[0]
        raise HandclrError(
            f"the processes of this training do not meet at {place}: {why}"
        ) from error


def first_node(nodes: str) -> str:
    """The first name of a Slurm node list such as `gpu[003-007,012]-ib,login1`."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[(\w*)[^\]]*\]", r"\1", first[0] if first else "")


def distribute(model: nn.Module, ranks: Ranks, device: torch.device) -> nn.Module:
    """The model for a training of several processes; for one process, the model itself.

    All processes get the same gradients, and batch norms see the whole batch. The tensors stay
    those of `model`, under their names.
    """
    if ranks.world == 1:
        return model
    _synchronise_norms(model, device)
    devices = [device.index] if device.type == "cuda" else None
    with warnings.catch_warnings():
        # Its new name is unknown to older releases of torch.
        warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
        return nn.parallel.DistributedDataParallel(
            model, device_ids=devices, broadcast_buffers=False
        )


def _synchronise_norms(model: nn.Module, device: torch.device) -> None:
    """Turn batch norms into those that see the batches of all processes, in place."""
    own = nn.SyncBatchNorm if device.type == "cuda" else _SyncBatchNorm
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            # In place, so that the optimiser's parameters, their names and the compiled model stay:
            # torch's own conversion makes new modules.
            norm.__class__ = own
            norm.process_group = None  # type: ignore[assignment]


class _SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the parts of all processes, for devices that torch's own does not serve."""

    def _check_input_dim(self, input: Tensor) -> None:
        return

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        axes = [0, *range(2, x.dim())]
        shape = [1, -1] + [1] * (x.dim() - 2)
        count = x.numel() // x.shape[1] * distributed.get_world_size()
        mean = _AllReduce.apply(x.float().sum(axes)) / count
        centred = x.float() - mean.view(shape)
        variance = _AllReduce.apply(centred.square().sum(axes)) / count
        if self.track_running_stats:
            self._track(mean, variance * (count / max(count - 1, 1)))
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(shape) + self.bias.view(shape)).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.running_mean.lerp_(mean, self.momentum or 0.0)
        self.running_var.lerp_(unbiased, self.momentum or 0.0)
        self.num_batches_tracked.add_(1)


class _AllReduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.clone()
        distributed.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].clone()
        distributed.all_reduce(grad)
        return grad


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, rank: int) -> Tensor:
        parts = [torch.empty_like(part) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, part.contiguous())
        ctx.rank, ctx.rows = rank, len(part)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        # Every process's loss depends on this part; DDP then averages over the processes.
        grad = grads[0].contiguous().clone()
        distributed.all_reduce(grad)
        return grad[ctx.rank * ctx.rows : (ctx.rank + 1) * ctx.rows], None


def _by_torchrun(env: Mapping[str, str]) -> Ranks:
    rank, world, local, address, port = _complete(env, _TORCHRUN)
    neighbours = int(env.get("LOCAL_WORLD_SIZE", 1))
    return Ranks(int(rank), int(world), int(local), neighbours, address, int(port))


def _by_slurm(env: Mapping[str, str]) -> Ranks:
    rank, world, local, nodes, job = _complete(env, _SLURM)
    port = env.get("MASTER_PORT") or str(_PORTS[0] + int(job) % _PORTS[1])
    neighbours = int(re.split(r"\D", env.get("SLURM_STEP_TASKS_PER_NODE", "1"))[0])
    address = env.get("MASTER_ADDR") or first_node(nodes)
    return Ranks(int(rank), int(world), int(local), neighbours, address, int(port))


def _complete(env: Mapping[str, str], names: tuple[str, ...]) -> list[str]:
    missing = [name for name in names if not env.get(name)]
    if missing:
        raise UsageError(f"incomplete torchrun or Slurm environment: missing {', '.join(missing)}")
    return [env[name] for name in names]
