"""Where a GPU would train, the network is compiled: in one piece, once, and for the whole run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.exc import RecompileError, Unsupported
from torch._dynamo.testing import CompileCounterWithBackend

from handclr_cli.learning import hardware
from handclr_cli.learning.augmentation import Appearance, Geometry
from handclr_cli.learning.encoder import Encoder
from handclr_cli.learning.finetuning import Labelled, PoseObjective, freeze
from handclr_cli.learning.guide import Guide
from handclr_cli.learning.hardware import ViewsMade, pick_precision, to_device
from handclr_cli.learning.pose import PoseNet
from handclr_cli.learning.pretraining import METHODS, ContrastiveModel, Objective
from handclr_cli.learning.projection import ProjectionHead
from handclr_cli.learning.schedule import EpochBatches, Row, Schedule
from handclr_cli.learning.views import Views

CPU = torch.device("cpu")
SIZE, STORED = 32, 36
# Of ten rows, the last two fill no batch.
pytestmark = pytest.mark.slow
PLAN = Schedule(samples=10, batch=4, epochs=2, lr=1e-3, warmup_epochs=0.0, seed=0)
Step = Callable[[list[Row]], Any]
Trained = tuple[nn.Module, Step, Callable[[], Any]]


def counted(backend: str, monkeypatch: pytest.MonkeyPatch) -> CompileCounterWithBackend:
    """Counts what is compiled, as for a GPU; a part that cannot be is an error."""
    counter, compiled = CompileCounterWithBackend(backend), nn.Module.compile
    monkeypatch.setattr(
        nn.Module, "compile", lambda model: compiled(model, backend=counter, fullgraph=True)
    )
    monkeypatch.setattr(hardware, "use_patches", lambda model: None)
    return counter


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    """Nothing is compiled before or after a test, and the precision is set back."""
    before = torch.get_float32_matmul_precision()
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
    torch.set_float32_matmul_precision(before)


def pretraining(precision: str, parts: int = 1) -> Trained:
    model = ContrastiveModel.build("resnet18", "random", 0)
    to_device(model, CPU, compiled=True)
    autocast = pick_precision(precision, CPU)
    method, made = METHODS["simhand"], ViewsMade.ON_DEVICE
    objective = Objective(model, method, SIZE, CPU, autocast, parts=parts, made=made)

    def step(rows: list[Row]) -> None:
        shape = 2, len(rows)
        images = torch.zeros(*shape, STORED, STORED, 3, dtype=torch.uint8)
        joints = torch.rand(*shape, 21, 2)
        objective(Views(images, *drawn(*shape), torch.arange(2 * len(rows)).view(shape), joints))

    @torch.inference_mode()
    def probe() -> Tensor:
        return model.encoder.eval()(torch.zeros(3, 3, SIZE, SIZE))

    return model, step, probe


def finetuning(precision: str, head: str, frozen: bool = False) -> Trained:
    model = PoseNet(Encoder("resnet18"), head=head)
    if frozen:
        freeze(model.encoder)
    to_device(model, CPU, compiled=True)
    autocast, made = pick_precision(precision, CPU), ViewsMade.ON_DEVICE
    objective = PoseObjective(model, model.head, SIZE, CPU, autocast, made=made)

    def step(rows: list[Row]) -> None:
        count = len(rows)
        images = torch.zeros(count, STORED, STORED, 3, dtype=torch.uint8)
        points, poses = torch.rand(count, 21, 2), torch.rand(count, 21, 3)
        valid, posed = torch.ones(count, 21, dtype=torch.bool), torch.ones(count, dtype=torch.bool)
        guide = Guide.nothing(count, CPU)
        labels = torch.arange(count), points, poses, valid, posed, guide
        objective(Labelled(images, *drawn(count), *labels))

    @torch.inference_mode()
    def validate() -> Any:
        return model.eval().predict(torch.zeros(3, 3, SIZE, SIZE), Guide.nothing(3, CPU))

    return model, step, validate


def drawn(*shape: int) -> tuple[Geometry, Appearance]:
    angle, scale = torch.zeros(shape), torch.ones(shape)
    geometry = Geometry(angle, scale, torch.zeros(*shape, 2))
    return geometry, Appearance(*(torch.ones(shape) for _ in range(5)))


def train(model: nn.Module, step: Step, examine: Callable[[], Any]) -> None:
    """The epochs of PLAN; from the second on, what is compiled is what there is."""
    for number, rows in enumerate(EpochBatches(PLAN, 0)):
        epoch, place = divmod(number, PLAN.epoch_steps)
        with torch._dynamo.config.patch(error_on_recompile=epoch > 0):
            model.train()
            step(rows)
        if place == PLAN.epoch_steps - 1:
            examine()


# The trainings, and of how many graphs they are: with parts, the first pass has no gradients.
TRAININGS: dict[str, tuple[Callable[[], Trained], int]] = {
    "pretrain": (lambda: pretraining("fp32"), 1),
    "pretrain in parts, half": (lambda: pretraining("bf16", parts=2), 2),
    "finetune detnet, half": (lambda: finetuning("bf16", "detnet"), 1),
    "finetune softargmax, half": (lambda: finetuning("bf16", "softargmax"), 1),
    "finetune regress": (lambda: finetuning("fp32", "regress", frozen=True), 1),
    "finetune guided": (lambda: finetuning("fp32", "guided"), 1),
    "finetune guided, half": (lambda: finetuning("bf16", "guided", frozen=True), 1),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_network_is_compiled_once_in_one_piece(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = counted("eager", monkeypatch)
    training, count = TRAININGS[name]
    train(*training())
    assert graphs.frame_count == count


@pytest.mark.parametrize("name", ["pretrain in parts, half", "finetune guided"])
def test_so_are_its_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = counted("aot_eager", monkeypatch)
    training, count = TRAININGS[name]
    train(*training())
    assert graphs.frame_count == count


def test_what_cuts_a_network_in_pieces_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    counted("eager", monkeypatch)
    honest = ProjectionHead.forward

    def cut(self: ProjectionHead, x: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return honest(self, x)

    monkeypatch.setattr(ProjectionHead, "forward", cut)
    with pytest.raises(Unsupported):
        train(*pretraining("fp32"))


def test_what_is_compiled_anew_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    counted("eager", monkeypatch)
    model, step, _ = pretraining("fp32")
    shorter = iter([4, 4, 3])
    with pytest.raises(RecompileError):
        train(model, lambda rows: step(rows[: next(shorter)]), lambda: None)
