"""Files of weights: what is no such file is named, what is damaged is not loaded."""

from __future__ import annotations

import argparse
import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from handclr_cli.contract.errors import HandclrError
from handclr_cli.learning.encoder import Encoder, build_encoder, read_encoder_state
from handclr_cli.learning.pose import PoseNet
from handclr_cli.learning.posemodel import MeanPose, load_model, save_payload
from handclr_cli.learning.run import MODEL, Run, load_checkpoint
from handclr_cli.learning.validation import BestKept

State = dict[str, Any]


@pytest.fixture(scope="module")
def state() -> State:
    return dict(build_encoder("resnet18", seed=7).state_dict())


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
SAFE = (20).to_bytes(8, "little") + b'{"conv1.weight":{"dtype":"F32"'
WRONG = {
    "git lfs": (POINTER, "a Git LFS pointer"),
    "web page": (b"\n<!DOCTYPE html><html><head>", "a web page"),
    "gzip": (gzip.compress(saved({})), "gzip-compressed; unpack it"),
    "safetensors": (SAFE, "a safetensors file"),
    "nothing": (b"", "is empty"),
    "namespace": (saved({"args": argparse.Namespace(lr=1)}), "holds a argparse.Namespace"),
    "words": (b"words", "not a checkpoint, or damaged"),
    "cut": (saved({"a": torch.zeros(5000)})[:9000], "not a checkpoint, or damaged"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("read", [load_checkpoint, read_encoder_state, load_model])
def test_what_is_no_file_of_tensors_is_named(
    name: str, read: Callable[[Path], object], tmp_path: Path
) -> None:
    content, said = WRONG[name]
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(HandclrError) as caught:
        read(path)
    assert said in str(caught.value) and str(path) in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def others(state: State) -> State:
    """Another encoder, which must not be taken."""
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


PROJECTOR = {"projector.0.weight": torch.zeros(2, 2), "predictor.2.bias": torch.zeros(2)}
LAYOUTS: dict[str, Callable[[State], State]] = {
    "compiled": lambda s: under("_orig_mod.", s),
    "compiled in a wrapper": lambda s: under("module._orig_mod.", s),
    "lightning with a projector": lambda s: {
        "epoch": 1,
        "hyper_parameters": {"lr": 0.1},
        "state_dict": {**under("encoder.", s), **PROJECTOR},
    },
    "lightning's model, compiled": lambda s: {"state_dict": under("model._orig_mod.", s)},
    "solo-learn": lambda s: {
        "state_dict": {
            **under("momentum_backbone.", others(s)),
            **under("backbone.", s),
            **PROJECTOR,
            **under("momentum_", PROJECTOR),
            "classifier.weight": torch.zeros(2, 2),
        }
    },
    "solo-learn, the momentum's alone": lambda s: under("momentum_backbone.", s),
    "MoCo": lambda s: {
        "epoch": 1,
        "state_dict": {
            **under("module.encoder_q.", s),
            **under("module.encoder_k.", others(s)),
            "module.encoder_q.fc.0.weight": torch.zeros(2, 2),
            "module.queue": torch.zeros(2, 2),
            "module.queue_ptr": torch.zeros(1),
        },
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_other_programs_load(layout: str, state: State, tmp_path: Path) -> None:
    torch.save(LAYOUTS[layout](state), tmp_path / "weights.pt")
    encoder = build_encoder("resnet18", tmp_path / "weights.pt", seed=1)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(
    value: float, state: State, tmp_path: Path
) -> None:
    broken = {name: tensor.clone() for name, tensor in state.items()}
    broken["layer2.0.conv1.weight"][0, 0, 0, 0] = value
    torch.save(broken, tmp_path / "encoder.pt")
    message = r"encoder\.pt: tensor layer2\.0\.conv1\.weight holds values that are not finite"
    with pytest.raises(HandclrError, match=message):
        build_encoder("resnet18", tmp_path / "encoder.pt")


def pose_payload() -> State:
    mean = MeanPose(np.zeros((21, 3), np.float32), 0.09)
    return save_payload(PoseNet(Encoder("resnet18"), head="regress"), 64, mean)


CHANGES: dict[str, tuple[Callable[[State], object], str]] = {
    "arch": (lambda s: s.update(arch="vgg"), "its arch 'vgg' is not"),
    "head": (lambda s: s.update(head=["x"]), "its head is not"),
    "size": (lambda s: s.update(size=10**9), "its size 1000000000 is not"),
    "odd size": (lambda s: s.update(size=65), "its size 65 is not"),
    "bone": (lambda s: s.update(bone_m=float("nan")), "its bone_m nan is not"),
    "mean pose": (lambda s: s.update(mean_pose=torch.zeros(20, 3)), "its mean_pose is not"),
    "state": (lambda s: s.update(state=[1]), "its state is not"),
    "tensor": (lambda s: s["state"].update({"encoder.conv1.weight": 1}), "its state is not"),
    "shape": (
        lambda s: s["state"].update({"encoder.conv1.weight": torch.zeros(2)}),
        "its tensors are not those of a resnet18 pose model",
    ),
    "nan": (
        lambda s: s["state"]["encoder.conv1.weight"].fill_(float("nan")),
        r"tensor encoder\.conv1\.weight holds values that are not finite",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_pose_model_that_cannot_be_is_refused(name: str, tmp_path: Path) -> None:
    change, said = CHANGES[name]
    payload = pose_payload()
    change(payload)
    torch.save(payload, tmp_path / "model.pt")
    with pytest.raises(HandclrError, match=rf"model\.pt: {said}"):
        load_model(tmp_path / "model.pt")


def test_a_validation_that_was_never_finite_is_said_so(tmp_path: Path) -> None:
    run = Run(tmp_path, {})
    best = BestKept(run, lambda: {"mpjpe_root_bone_mm": float("nan")}, dict)
    run.log([{"step": 1, "epoch": 0, **best(1)}])
    best.write()
    with pytest.raises(HandclrError, match="no epoch predicted finite poses") as caught:
        best.finish()
    assert "gone" not in str(caught.value) and caught.value.setting == "lr"
    best.measure = lambda: {"mpjpe_root_bone_mm": 20.0}
    run.log([{"step": 2, "epoch": 1, **best(2)}])
    best.write()
    assert best.finish() == (tmp_path / MODEL, 20.0, 2)


def test_a_damaged_log_costs_its_own_lines(tmp_path: Path) -> None:
    run = Run(tmp_path, {})
    lines = ['{"step": 1, "loss": 2.5, "note": "x"}', '{"step": "2"}', "[" * 100_000, "3", "\xff"]
    (tmp_path / "log.jsonl").write_bytes("\n".join(lines).encode("latin-1"))
    assert run.records() == [{"step": 1, "loss": 2.5}]
