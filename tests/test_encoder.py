"""The encoder and the reading of published encoder weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import Tensor

from handclr_cli.contract.errors import HandclrError
from handclr_cli.learning.encoder import (
    ARCHITECTURES,
    Encoder,
    arch_of,
    build_encoder,
    load_encoder_weights,
    read_encoder_state,
)
from handclr_cli.learning.projection import ProjectionHead

INDEX = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}


@pytest.fixture(scope="module")
def donor() -> Encoder:
    return build_encoder("resnet18", seed=7)


def numbered(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        f"{prefix}features.{INDEX[k.partition('.')[0]]}.{k.partition('.')[2]}": v
        for k, v in state.items()
    }


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + k: v for k, v in state.items()}


def ours(prefix: str) -> dict[str, Tensor]:
    return {
        f"{prefix}{name}.0.weight": torch.zeros(2)
        for name in ("deconv", "heat", "delta", "location")
    }


def model_file() -> dict[str, Any]:
    return {
        "kind": "pose",
        "arch": "resnet18",
        "size": 64,
        "bone_m": 0.1,
        "mean_pose": torch.zeros(21, 3),
    }


HEADS_OF_MINIMAL_HAND = {
    f"module.{name}.0.weight": torch.zeros(2) for name in ("deconv", "hmap_0", "dmap_0", "lmap_0")
}

LAYOUTS = {
    "torchvision": lambda s: {**s, "fc.weight": torch.zeros(3, 512), "fc.bias": torch.zeros(3)},
    "peclr": lambda s: {"state_dict": dict(s)},
    "handclr": lambda s: {"encoder": dict(s), "config": {"arch": "resnet18"}},
    "lightning": lambda s: {
        "epoch": 3,
        "state_dict": {
            **numbered(s, "encoder."),
            "encoder.final_layer.0.weight": torch.zeros(64, 512),
            "projection_head.0.weight": torch.zeros(512, 512),
        },
    },
    "minimal-hand": lambda s: {**numbered(s, "module.encoder."), **HEADS_OF_MINIMAL_HAND},
    "minimal-hand, torchvision's names": lambda s: {
        **prefixed(s, "encoder."),
        **HEADS_OF_MINIMAL_HAND,
    },
    "last.pt of pretrain": lambda s: {
        "step": 4,
        "model": {**prefixed(s, "encoder."), **prefixed(ProjectionHead(512).state_dict(), "head.")},
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
    },
    "model.pt": lambda s: {
        **model_file(),
        "head": "detnet",
        "state": {**prefixed(s, "encoder."), **ours("head.")},
    },
    "features": lambda s: numbered(s, ""),
    "parallel": lambda s: prefixed(s, "module."),
    "parallel lightning": lambda s: {"state_dict": numbered(s, "module.encoder.")},
    "backbone": lambda s: prefixed(s, "backbone."),
    "old": lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.slow
def test_published_layouts_load(layout: str, donor: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(LAYOUTS[layout](donor.state_dict()), path)
    encoder = build_encoder("resnet18", seed=1)
    matched = load_encoder_weights(encoder, path)
    assert matched == len(donor.state_dict()) - (20 if layout == "old" else 0)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, donor.state_dict()[name])


@pytest.mark.slow
def test_names_are_torchvisions(donor: Encoder) -> None:
    net = torchvision.models.resnet18(weights=None)
    missing, unexpected = net.load_state_dict(donor.state_dict(), strict=False)
    assert (sorted(missing), unexpected) == (["fc.bias", "fc.weight"], [])
    net.fc = torch.nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(donor.eval()(images), net.eval()(images))


def test_shapes(donor: Encoder) -> None:
    images = torch.zeros(2, 3, 96, 64)
    assert donor.features(images).shape == (2, 512, 3, 2)
    assert donor(images).shape == (2, donor.channels) == (2, 512)
    assert ProjectionHead(512)(donor(images)).shape == (2, 128)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.slow
def test_architecture_is_recognised(arch: str) -> None:
    with torch.device("meta"):
        encoder = Encoder(arch)
    assert arch_of(encoder.state_dict()) == arch
    assert encoder.channels == (512 if arch in ("resnet18", "resnet34") else 2048)
    assert arch_of({"deconv.weight": torch.zeros(1)}) is None


@pytest.mark.slow
def test_random_init_is_seeded_and_leaves_the_global_generator() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, two, other = (build_encoder("resnet18", seed=s).conv1.weight for s in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, two) and not torch.equal(one, other)
    head, again = ProjectionHead(8, seed=1), ProjectionHead(8, seed=1)
    assert torch.equal(head.state_dict()["0.weight"], again.state_dict()["0.weight"])


@pytest.mark.slow
def test_init_from_a_path(donor: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "encoder.pt"
    torch.save({"encoder": donor.state_dict()}, path)
    assert arch_of(read_encoder_state(path)) == "resnet18"
    assert torch.equal(build_encoder("resnet18", init=path).conv1.weight, donor.conv1.weight)
    assert torch.equal(build_encoder("resnet18", init=str(path)).conv1.weight, donor.conv1.weight)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("change", ["missing", "extra"])
@pytest.mark.slow
def test_a_tensor_too_few_or_too_many_is_named_in_each_layout(
    layout: str, change: str, donor: Encoder, tmp_path: Path
) -> None:
    state = dict(donor.state_dict())
    if change == "missing":
        del state["layer3.1.bn2.running_mean"]
    else:
        state["layer4.1.extra.weight"] = torch.zeros(1)
    path = tmp_path / "weights.pt"
    torch.save(LAYOUTS[layout](state), path)
    name = {
        "missing": "1 missing (layer3.1.bn2.running_mean)",
        "extra": "1 unexpected (layer4.1.extra.weight)",
    }[change]
    with pytest.raises(HandclrError, match=re.escape(name)):
        load_encoder_weights(build_encoder("resnet18", seed=1), path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("layer3.1.conv2.weight"), r"1 missing \(layer3\.1\.conv2\.weight\)"),
        (
            lambda s: s.update({"layer5.0.weight": torch.zeros(1)}),
            r"1 unexpected \(layer5\.0\.weight\)",
        ),
        (
            lambda s: s.update({"conv1.weight": torch.zeros(64, 1, 7, 7)}),
            r"another shape \(conv1\.weight\)",
        ),
        (
            lambda s: s.update({"module.conv1.weight": torch.zeros(1)}),
            "two tensors for conv1.weight",
        ),
        (lambda s: s.update({"epoch": 3}), "no state dict"),
        (lambda s: s.clear(), "no state dict"),
    ],
    ids=["missing", "extra", "shape", "twice", "no tensor", "empty"],
)
@pytest.mark.slow
def test_a_partial_match_is_refused(
    change: Any, message: str, donor: Encoder, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pt"
    state = dict(donor.state_dict())
    change(state)
    torch.save(state, path)
    encoder = build_encoder("resnet18", seed=1)
    before = encoder.conv1.weight.clone()
    with pytest.raises(HandclrError, match=message) as caught:
        load_encoder_weights(encoder, path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert torch.equal(encoder.conv1.weight, before)


@pytest.mark.slow
def test_another_architecture_is_named(donor: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(donor.state_dict(), path)
    with pytest.raises(
        HandclrError, match="holds a resnet18, not a resnet34; choose the architecture resnet18"
    ):
        build_encoder("resnet34", init=path)


class Opaque:
    """Something that only executing code could unpickle."""


@pytest.mark.parametrize("content", ["text", "code", "cut", "absent"])
def test_unreadable_files(content: str, donor: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    if content == "text":
        path.write_text("not weights")
    elif content == "code":
        torch.save({"state_dict": donor.state_dict(), "args": Opaque()}, path)
    elif content == "cut":
        torch.save(donor.state_dict(), path)
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(HandclrError, match=r"weights\.pt") as caught:
        read_encoder_state(path)
    assert "\n" not in str(caught.value)


def test_unknown_architecture() -> None:
    with pytest.raises(HandclrError, match="resnet18"):
        build_encoder("vgg16")


def test_imagenet_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(HandclrError, match="start from random weights"):
        build_encoder("resnet18", init="imagenet")


def test_imagenet_weights_drop_the_classifier(
    donor: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {
        **donor.state_dict(),
        "fc.weight": torch.zeros(1000, 512),
        "fc.bias": torch.zeros(1000),
    }
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *a, **k: state)
    assert torch.equal(build_encoder("resnet18", init="imagenet").conv1.weight, donor.conv1.weight)
