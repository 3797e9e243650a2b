"""What runs on an accelerator, made ready on a fake one: each path as a function of no arguments.

They are called within `fake_cuda`, and make their models and batches there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fake_cuda import CUDA
from torch import Tensor, distributed, nn

from handclr_cli.learning import losses
from handclr_cli.learning.augmentation import Appearance, Geometry
from handclr_cli.learning.distributed import Ranks
from handclr_cli.learning.encoder import Encoder
from handclr_cli.learning.finetuning import Labelled, PoseObjective, freeze
from handclr_cli.learning.guide import Guide
from handclr_cli.learning.hardware import ViewsMade, pick_precision
from handclr_cli.learning.heads import HEADS
from handclr_cli.learning.loop import _Recorder
from handclr_cli.learning.optim import build_optimizer, parameter_groups
from handclr_cli.learning.pose import PoseNet
from handclr_cli.learning.posemodel import MeanPose, PoseModel, save_payload
from handclr_cli.learning.pretraining import METHODS, ContrastiveModel, Method, Objective
from handclr_cli.learning.probe import PoseViews, Probe
from handclr_cli.learning.projection import ProjectionHead
from handclr_cli.learning.schedule import Schedule
from handclr_cli.learning.speed import Speed
from handclr_cli.learning.validation import Validation
from handclr_cli.learning.views import Views
from handclr_cli.similarity import device as similarity_device
from handclr_cli.similarity.device import DeviceTiles
from handclr_cli.similarity.neighbours import EmbeddedPoses, Neighbours
from handclr_cli.synth.scenes import Scene
from handclr_cli.synth.worlds import WILD

N, SIZE, STORED = 4, 32, 40
ON_DEVICE, FROM_CACHE = ViewsMade.ON_DEVICE, ViewsMade.FROM_CACHE
AS_PUBLISHED = ViewsMade.AS_PUBLISHED
MEAN = MeanPose(np.zeros((21, 3), np.float32), 0.09)
Ready = Callable[[], object]
Prepare = Callable[[pytest.MonkeyPatch], Ready]


def pretrain(
    method: Method,
    made: ViewsMade = ON_DEVICE,
    optimizer: str = "adamw",
    parts: int = 1,
    world: int = 1,
    chunked: bool = False,
    precision: str = "bf16",
) -> Prepare:
    """A step of pre-training, with what the loop does in it."""

    def prepare(monkeypatch: pytest.MonkeyPatch) -> Ready:
        if chunked:
            monkeypatch.setattr(losses, "_MOST_LOGITS", 0)
        with CUDA:
            model = ContrastiveModel(_encoder(), ProjectionHead(512))
        objective = Objective(
            model=model,
            method=method,
            size=SIZE,
            device=CUDA,
            autocast=pick_precision(precision, CUDA),
            ranks=_ranks(world, monkeypatch),
            parts=parts,
            made=made,
            crops=_crops(6) if made is FROM_CACHE else None,
        )
        joints = torch.rand(2, N, 21, 2, device=CUDA) if method.joints != "none" else None
        views = Views(
            None if made is FROM_CACHE else _crops(2, N, made=made),
            _geometry(2, N),
            _appearance(2, N),
            torch.zeros(2, N, dtype=torch.int64, device=CUDA),
            joints,
        )
        return _step(model, objective, views, optimizer)

    return prepare


def finetune(
    head: str,
    made: ViewsMade = ON_DEVICE,
    optimizer: str = "adamw",
    frozen: bool = False,
    world: int = 1,
    precision: str = "bf16",
) -> Prepare:
    """A step of fine-tuning, with what the loop does in it."""

    def prepare(monkeypatch: pytest.MonkeyPatch) -> Ready:
        model = _pose_net(head)
        if frozen:
            freeze(model.encoder)
        objective = PoseObjective(
            model=model,
            head=model.head,
            size=SIZE,
            device=CUDA,
            autocast=pick_precision(precision, CUDA),
            ranks=_ranks(world, monkeypatch),
            made=made,
            crops=_crops(6) if made is FROM_CACHE else None,
        )
        batch = Labelled(
            None if made is FROM_CACHE else _crops(N, made=made),
            _geometry(N),
            _appearance(N),
            torch.zeros(N, dtype=torch.int64, device=CUDA),
            torch.rand(N, 21, 2, device=CUDA),
            torch.rand(N, 21, 3, device=CUDA),
            torch.ones(N, 21, dtype=torch.bool, device=CUDA),
            torch.ones(N, dtype=torch.bool, device=CUDA),
            _guide(N, CUDA),
        )
        return _step(model, objective, batch, optimizer)

    return prepare


def log(monkeypatch: pytest.MonkeyPatch) -> Ready:
    """What the loop reads of its steps now and then."""
    recorder = _recorder(SimpleNamespace(log=lambda records: None))

    def logged() -> None:
        for step in range(2):
            recorder.add(step + 1, 1e-3, {"loss": torch.zeros((), device=CUDA)})
        recorder.flush()

    return logged


def validate(head: str) -> Prepare:
    """A validation, which keeps the weights afterwards."""

    def prepare(monkeypatch: pytest.MonkeyPatch) -> Ready:
        network = _pose_net(head)
        poses, valid = np.zeros((N, 21, 3), np.float32), np.ones((N, 21), bool)
        images = torch.zeros(N, SIZE, SIZE, 3, dtype=torch.uint8)
        held_out = Validation(images, _guide(N, torch.device("cpu")), poses, valid, MEAN)
        return lambda: (held_out(network), save_payload(network, SIZE, MEAN))

    return prepare


def probe(monkeypatch: pytest.MonkeyPatch) -> Ready:
    """The probe of pre-training."""
    with CUDA:
        encoder = _encoder()
    images = torch.zeros(N, SIZE, SIZE, 3, dtype=torch.uint8)
    views = PoseViews(images, torch.zeros(N, 21, 2))
    held_out = Probe(views, views, CUDA)
    return lambda: held_out(encoder)


def predict(head: str) -> Prepare:
    """Predictions for crops, as of `handclr predict` and `handclr evaluate`."""

    def prepare(monkeypatch: pytest.MonkeyPatch) -> Ready:
        model = PoseModel(_pose_net(head).eval(), SIZE, MEAN)
        crops = np.zeros((N, STORED, STORED, 3), np.uint8)
        hand = np.full((21, 2), 0.5), np.zeros((21, 3))
        return lambda: model(crops, [hand, None, hand, None])

    return prepare


def mine(distinct: bool) -> Prepare:
    """The search of the engine exact-gpu over three blocks in parts, by one chunk of queries."""

    def prepare(monkeypatch: pytest.MonkeyPatch) -> Ready:
        monkeypatch.setattr(similarity_device, "BLOCK", 4)
        rng = np.random.default_rng(0)
        pool = EmbeddedPoses(
            rng.normal(size=(11, 5)).astype(np.float32), np.repeat([0, 1], [5, 6]).astype(np.int32)
        )

        def search() -> None:
            tiles = DeviceTiles(pool, 0, "cuda", _Answered, memory=2000)
            found = Neighbours.nobody(len(pool.group), 2, distinct)
            tiles.search(pool, found, lambda rows: None)

        return search

    return prepare


class _Answered:
    """In place of the engine for what the device cannot prove."""

    def search(self, *arguments: Any) -> None:
        return


def render(monkeypatch: pytest.MonkeyPatch) -> Ready:
    """A picture of two hands, one of which holds something, in sleeves."""
    world = replace(WILD, objects=1.0, sleeves=1.0)
    scene = Scene(world, 0, 0, (32, 32), ("left", "right"), device="cuda")
    return lambda: scene.shoot(0)


def _step(model: nn.Module, objective: Any, batch: Any, optimizer: str) -> Ready:
    recorder = _recorder(None)
    moved = build_optimizer(optimizer, parameter_groups([model], 0.1), 1e-3)

    def step() -> None:
        model.train()
        found = objective(batch)
        moved.step()
        moved.zero_grad(set_to_none=True)
        recorder.add(1, 1e-3, found)

    return step


def _recorder(run: Any) -> _Recorder:
    schedule = Schedule(samples=N, batch=N, epochs=1, lr=1e-3, warmup_epochs=0.0, seed=0)
    recorder = _Recorder(run, Speed("", schedule, 0), Ranks())
    recorder.begin = math.inf  # so that it is never time to read
    return recorder


def _pose_net(head: str) -> PoseNet:
    with CUDA:
        return PoseNet(_encoder(), head=head)


def _encoder() -> Encoder:
    """A ResNet with one block of each kind, which says as much in half the time."""
    encoder = Encoder("resnet18")
    for name in ("layer1", "layer2", "layer3", "layer4"):
        setattr(encoder, name, getattr(encoder, name)[:1])
    return encoder


def _ranks(world: int, monkeypatch: pytest.MonkeyPatch) -> Ranks:
    """The second of some processes, whose messages go nowhere."""
    if world == 1:
        return Ranks()
    monkeypatch.setattr(distributed, "get_world_size", lambda: world)
    for name in ("all_reduce", "all_gather"):
        monkeypatch.setattr(distributed, name, lambda *arguments: None)
    return Ranks(rank=1, world=world)


def _crops(*shape: int, made: ViewsMade = ON_DEVICE) -> Tensor:
    side = STORED if made.on_device else SIZE
    return torch.zeros(*shape, side, side, 3, dtype=torch.uint8, device=CUDA)


def _geometry(*shape: int) -> Geometry:
    angle, scale = torch.zeros(*shape, device=CUDA), torch.ones(*shape, device=CUDA)
    return Geometry(angle, scale, torch.zeros(*shape, 2, device=CUDA))


def _appearance(*shape: int) -> Appearance:
    return Appearance(*(torch.ones(*shape, device=CUDA) for _ in range(5)))


def _guide(count: int, device: torch.device) -> Guide:
    return Guide.nothing(count, device)


PATHS: dict[str, Prepare] = {
    **{f"pretrain {name}": pretrain(method) for name, method in METHODS.items()},
    "pretrain, crops on the device": pretrain(METHODS["handclr-soft"], FROM_CACHE),
    "pretrain, as published": pretrain(METHODS["simhand"], AS_PUBLISHED, precision="fp32"),
    "pretrain, sigmoid": pretrain(replace(METHODS["simhand"], weights="sigmoid", undo="crop")),
    "pretrain, lars": pretrain(METHODS["peclr"], optimizer="lars"),
    "pretrain, adam": pretrain(METHODS["peclr"], optimizer="adam"),
    "pretrain, in chunks": pretrain(METHODS["simhand"], chunked=True),
    "pretrain, soft in chunks": pretrain(METHODS["handclr-soft"], chunked=True),
    "pretrain, two processes": pretrain(METHODS["handclr-soft"], world=2),
    "pretrain, all at once": pretrain(METHODS["simhand"], FROM_CACHE, "lars", 2, 2, True),
    "finetune detnet": finetune("detnet"),
    "finetune softargmax": finetune("softargmax", FROM_CACHE),
    "finetune regress": finetune("regress", frozen=True),
    "finetune guided": finetune("guided", FROM_CACHE, precision="fp32"),
    "finetune guided, half": finetune("guided", frozen=True),
    "finetune, two processes": finetune("detnet", optimizer="lars", world=2),
    "log": log,
    "validate detnet": validate("detnet"),
    "validate guided": validate("guided"),
    "probe": probe,
    **{f"predict {head}": predict(head) for head in HEADS},
    "mine": mine(distinct=False),
    "mine distinct": mine(distinct=True),
    "render": render,
}
