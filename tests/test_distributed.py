"""Training in several processes: who is who, and that together they do what one does."""

from __future__ import annotations

import math
import multiprocessing
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.learning.augmentation import Appearance, Geometry
from handclr_cli.learning.distributed import Ranks, distribute, first_node, joined_ranks, ranks_of
from handclr_cli.learning.pretraining import METHODS, Objective
from handclr_cli.learning.stopping import Stop, StoppedError
from handclr_cli.learning.views import Views

CPU = torch.device("cpu")
TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
}
SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "gpu[003-006]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x4)",
    "SLURM_JOB_ID": "1234567",
    "SLURM_NTASKS": "8",
}


def test_torchruns_environment_is_read() -> None:
    assert ranks_of(TORCHRUN) == Ranks(3, 4, 1, 2, "node1", 29500)
    assert ranks_of({**SLURM, **TORCHRUN}) == Ranks(3, 4, 1, 2, "node1", 29500)
    one = {**TORCHRUN, "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    assert ranks_of(one).world == 1 and ranks_of(one).main


def test_slurms_environment_is_read() -> None:
    found = ranks_of(SLURM)
    assert (found.rank, found.world, found.local, found.neighbours, found.address) == (
        5,
        8,
        1,
        2,
        "gpu003",
    )
    assert not found.main and 1024 < found.port < 65536
    assert ranks_of({**SLURM, "SLURM_PROCID": "0"}).port == found.port
    assert ranks_of({**SLURM, "SLURM_JOB_ID": "1234568"}).port != found.port
    named = ranks_of({**SLURM, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "4000"})
    assert (named.address, named.port) == ("10.0.0.1", 4000)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_NODELIST": "gpu1"},
        {**SLURM, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
        {"MASTER_ADDR": "node1", "MASTER_PORT": "29500"},
    ],
    ids=["nothing", "batch script of two tasks", "srun of one task", "an address alone"],
)
def test_one_process_is_alone(environment: dict[str, str]) -> None:
    assert ranks_of(environment) == Ranks()


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_an_environment_that_is_half_set_is_refused(name: str) -> None:
    left = {key: value for key, value in TORCHRUN.items() if key != name}
    with pytest.raises(
        UsageError, match=f"incomplete torchrun or Slurm environment: missing {name}"
    ):
        ranks_of(left)


@pytest.mark.parametrize(
    "name", ["SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NODELIST", "SLURM_JOB_ID"]
)
def test_a_slurm_step_that_is_half_set_is_refused(name: str) -> None:
    with pytest.raises(
        UsageError, match=f"incomplete torchrun or Slurm environment: missing {name}"
    ):
        ranks_of({key: value for key, value in SLURM.items() if key != name})


@pytest.mark.parametrize(
    "environment", [{**TORCHRUN, "RANK": "x"}, {**SLURM, "SLURM_STEP_NUM_TASKS": "many"}]
)
def test_numbers_that_are_none_are_refused(environment: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        ranks_of(environment)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu1", "gpu1"),
        ("gpu1,gpu2", "gpu1"),
        ("gpu[1-4]", "gpu1"),
        ("gpu[003-007,012],login1", "gpu003"),
        ("gpu[12]", "gpu12"),
        ("gpu[7,9-12]", "gpu7"),
        ("login1,gpu[003-007]", "login1"),
        ("a-b-c[01-02]", "a-b-c01"),
        ("node-1.example.org", "node-1.example.org"),
        ("rack[1-2]gpu[3-4]", "rack1gpu3"),
        ("gpu[1-2]-ib,x", "gpu1-ib"),
    ],
)
def test_the_first_node_of_a_list(nodes: str, first: str) -> None:
    assert first_node(nodes) == first


def test_a_batch_is_shared_in_order() -> None:
    shares = [list(range(12))[Ranks(rank, 3).share(12)] for rank in range(3)]
    assert [row for share in shares for row in share] == list(range(12)) and {
        len(share) for share in shares
    } == {4}


def test_one_process_needs_no_others() -> None:
    alone, values = Ranks(), torch.ones(3)
    with joined_ranks(alone, CPU):
        alone.wait()
        assert alone.most(1) == 1 and alone.most(0) == 0
        assert alone.gather(values) is values and torch.equal(alone.mean(values), values)
    model = nn.Linear(2, 2)
    assert distribute(model, alone, CPU) is model


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ranks = Ranks(0, 2, 0, 2, "127.0.0.1", port)
        where = f"do not meet at 127.0.0.1, port {port}: .*(EADDRINUSE|in use)"
        with pytest.raises(HandclrError, match=where), joined_ranks(ranks, CPU):
            pass


# Two processes in one go: each leaves what it found in a file, and the tests compare it with one
# process's.
PAIRS, SIZE = 8, 12


def model_of(norm: bool) -> nn.Module:
    torch.manual_seed(1)
    layers: list[nn.Module] = [
        nn.Conv2d(3, 6, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(150, 16),
    ]
    if norm:
        layers = [layers[0], nn.BatchNorm2d(6), *layers[1:], nn.BatchNorm1d(16), nn.Linear(16, 16)]
    return nn.Sequential(*layers)


def views_of(share: slice) -> Views:
    random = torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (2, PAIRS, SIZE, SIZE, 3), generator=random).to(torch.uint8)
    angle, scale = torch.rand(2, 2, PAIRS, generator=random)
    translation = 0.2 * torch.rand(2, PAIRS, 2, generator=random)
    rows = torch.tensor([range(PAIRS), [0, 9, 10, 1, 12, 12, 14, 15]])
    joints = torch.rand(2, PAIRS, 21, 2, generator=random)
    geometry = Geometry(angle[:, share], 0.5 + scale[:, share], translation[:, share])
    return Views(
        images[:, share],
        geometry,
        Appearance(*torch.zeros(5, 2, PAIRS)[:, :, share]),
        rows[:, share],
        joints[:, share],
    )


def gradients(model: nn.Module) -> Tensor:
    return torch.cat(
        [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    )


OBJECTIVES = [
    ("simclr", True, 1),
    ("peclr", True, 1),
    ("simhand", True, 1),
    ("peclr", False, 2),
    ("simhand", False, 2),
]


def objectives(ranks: Ranks, parts: bool) -> list[Tensor]:
    found = []
    for method, norm, number in OBJECTIVES:
        model = model_of(norm)
        whole = distribute(model, ranks, CPU)
        losses = Objective(
            whole, METHODS[method], SIZE, CPU, ranks=ranks, parts=number if parts else 1
        )(views_of(ranks.share(PAIRS)))
        numbers = torch.stack([losses["loss"].detach(), losses["top1"], losses["alignment"]])
        buffers = [buffer.float().flatten() for buffer in model.buffers()]
        found += [ranks.mean(numbers), gradients(model), torch.cat([torch.zeros(1), *buffers])]
    return found


def norms(ranks: Ranks, mode: str) -> list[Tensor]:
    """Outputs, gradients and statistics of batch norms over images and vectors; the inputs' shares
    come back.
    """
    found = []
    random = torch.Generator().manual_seed(3)
    for norm, shape in (
        (nn.BatchNorm2d(5), (8, 5, 3, 2)),
        (nn.BatchNorm1d(5), (8, 5)),
        (nn.BatchNorm1d(5), (8, 5, 4)),
    ):
        whole = 3 * torch.randn(shape, generator=random) + 100
        slope = torch.randn(shape, generator=random)
        with torch.no_grad():
            norm.weight.copy_(torch.rand(5, generator=random))
            norm.bias.copy_(torch.rand(5, generator=random))
        model = nn.Sequential(norm)
        distribute(model, ranks, CPU)
        model.train(mode != "eval")
        part = whole[ranks.share(8)].clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=mode == "bf16"):
            out = model(part.bfloat16() if mode == "bf16" else part)
        (out.float() * slope[ranks.share(8)]).sum().backward()
        assert part.grad is not None and norm.weight.grad is not None and norm.bias.grad is not None
        total = ranks.world * ranks.mean(torch.stack([norm.weight.grad, norm.bias.grad]))
        assert norm.running_mean is not None and norm.running_var is not None
        found += [out.detach().float(), part.grad, total, norm.running_mean, norm.running_var]
    return found


def gathered(ranks: Ranks) -> list[Tensor]:
    """What a part has to do with a loss of each process that weighs all parts by its own
    weights.
    """
    part = torch.arange(6.0).reshape(2, 3) + 10 * ranks.rank
    part.requires_grad_()
    everything = ranks.gather(part)
    weights = torch.arange(float(everything.numel())).reshape(everything.shape) * (1 + ranks.rank)
    (everything * weights).sum().backward()
    assert part.grad is not None
    rows = ranks.gather(torch.tensor([[7, ranks.rank], [8, ranks.rank]]).T.contiguous().T)
    assert rows.dtype == torch.int64
    return [everything.detach(), part.grad, rows]


def stopped(ranks: Ranks) -> tuple[list[int], str]:
    """The steps that are made, and what is said, where one process hears SIGTERM as it waits."""

    def batches() -> Iterator[int]:
        yield 1
        if ranks.rank == 1:
            signal.raise_signal(signal.SIGTERM)
        yield 2

    seen: list[int] = []
    try:
        with Stop(math.inf, ranks) as stop:
            seen.extend(stop.between(batches(), 2))
    except StoppedError as error:
        return seen, str(error)
    return seen, ""


def two_processes(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    ranks = Ranks(rank, 2, rank, 2, "127.0.0.1", port)
    found: dict[str, Any] = {}
    try:
        with joined_ranks(ranks, CPU):
            ranks.wait()
            found["most"] = [ranks.most(2 * rank), ranks.most(0), ranks.most(1)]
            value = torch.tensor([1.0 + rank, 10.0], requires_grad=True)
            found["mean"] = [ranks.mean(value), value.detach()]
            found["stopped"] = stopped(ranks)
            found["gather"] = gathered(ranks)
            found["train"], found["eval"] = norms(ranks, "train"), norms(ranks, "eval")
            found["objective"] = objectives(ranks, parts=True)
            try:
                found["bf16"] = norms(ranks, "bf16")
            except RuntimeError as error:
                found["bf16"] = str(error)
            torch.save(found, f"{folder}/{rank}.pt")
            if rank == 1:
                return
            ranks.most(0)
    except HandclrError as error:
        Path(folder, "lost").write_text(str(error))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["handclr_cli.learning.pretraining", "torch._dynamo"])
    processes = [
        context.Process(target=two_processes, args=(rank, port, str(folder))) for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    found = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
    return [{**one, "lost": (folder / "lost").read_text()} for one in found]


@pytest.mark.slow
def test_processes_agree(both: list[dict[str, Any]]) -> None:
    for rank, one in enumerate(both):
        assert one["most"] == [2, 0, 1]
        mean, own = one["mean"]
        assert (
            mean.tolist() == [1.5, 10.0]
            and own.tolist() == [1.0 + rank, 10.0]
            and not mean.requires_grad
        )


@pytest.mark.slow
def test_processes_stop_after_the_same_step(both: list[dict[str, Any]]) -> None:
    assert both[0]["stopped"] == ([1], "stopped with another process")
    assert both[1]["stopped"] == ([1], "stopped by SIGTERM")


@pytest.mark.slow
def test_parts_are_gathered_in_order_with_gradients_to_all(both: list[dict[str, Any]]) -> None:
    parts = torch.cat([torch.arange(6.0).reshape(2, 3) + 10 * rank for rank in range(2)])
    for rank, one in enumerate(both):
        everything, grad, rows = one["gather"]
        assert torch.equal(everything, parts)
        assert torch.equal(grad, 3 * torch.arange(12.0).reshape(4, 3)[2 * rank : 2 * rank + 2])
        assert rows.tolist() == [[7, 0], [8, 0], [7, 1], [8, 1]]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_batch_norms_see_the_whole_batch(mode: str, both: list[dict[str, Any]]) -> None:
    expected = norms(Ranks(), mode)
    for number in range(
        5 * 3
    ):  # output, gradient, weights' gradients, running mean and variance of three norms
        ours = [one[mode][number] for one in both]
        value = torch.cat(ours) if number % 5 < 2 else ours[0]
        torch.testing.assert_close(value, expected[number], atol=2e-5, rtol=1e-5)
        if number % 5 >= 2:
            assert torch.equal(ours[0], ours[1])


@pytest.mark.slow
def test_batch_norms_work_under_autocast(both: list[dict[str, Any]]) -> None:
    assert not isinstance(both[0]["bf16"], str), both[0]["bf16"]
    expected = norms(Ranks(), "bf16")
    for number in range(15):
        ours = [one["bf16"][number] for one in both]
        value = torch.cat(ours) if number % 5 < 2 else ours[0]
        torch.testing.assert_close(value, expected[number], atol=0.05, rtol=0.02)


@pytest.mark.slow
def test_two_processes_have_the_loss_and_the_gradients_of_one(both: list[dict[str, Any]]) -> None:
    """Gradient caching included, where no batch norm tells a part from the whole."""
    expected = objectives(Ranks(), parts=False)
    for one in both:
        for number, value in enumerate(expected):
            case = OBJECTIVES[number // 3], ("losses", "gradients", "buffers")[number % 3]
            found = one["objective"][number]
            torch.testing.assert_close(
                found, value, atol=2e-6, rtol=1e-5, msg=lambda text, case=case: f"{case}: {text}"
            )


@pytest.mark.slow
def test_a_lost_process_is_one_line(both: list[dict[str, Any]]) -> None:
    assert both[0]["lost"] == "lost another process of this training; what it printed tells why"
