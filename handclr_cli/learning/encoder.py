"""The ResNet encoder and the reading of other people's encoder weights."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import torch
import torchvision
from torch import Tensor, nn

from ..choices import Arch
from ..contract.errors import HandclrError
from ..contract.remote import limited_silence
from ..contract.shipped import weights_file
from .weights_file import load_tensors, refuse_not_finite

ARCHITECTURES = get_args(Arch)

# (has bottleneck blocks, blocks in layer1..layer4) -> architecture
_BLOCKS: dict[tuple[bool, tuple[int, int, int, int]], Arch] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
# Of Lightning and PeCLR; of handclr: the model of last.pt, and that of model.pt.
_CONTAINERS = ("state_dict", "model_state_dict", "encoder", "model", "state")
# Of DataParallel, Lightning, solo-learn and MoCo; torch.compile's may be within a name too.
_PREFIX = re.compile(r"^(?:(?:module|model|encoder|backbone|base_encoder|encoder_q)\.)+")
_COMPILED = "_orig_mod."
# The second encoder of solo-learn, lightly and MoCo, a running mean of the first.
_MOMENTUM = re.compile(
    r"^(?:(?:module|model)\.)*(?:momentum_(?:backbone|encoder)|backbone_momentum|encoder_k)\."
)
_FEATURES = re.compile(r"^features\.(\d+)\.")
_FEATURE_NAMES = {
    "0": "conv1",
    "1": "bn1",
    "4": "layer1",
    "5": "layer2",
    "6": "layer3",
    "7": "layer4",
}
# What else published files and ours hold: classifiers; heads of Lightning's and solo-learn's
# methods and of ours; MoCo's queue; the heads of minimal-hand's DetNet.
_NOT_ENCODER = (
    "fc.", "classifier.", "projection_head.", "final_layer.", "head.",
    "projector.", "predictor.", "prototypes.", "momentum_", "projection_head_momentum.", "queue",
    "deconv.", "hmap_", "dmap_", "lmap_",
)  # fmt: skip


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw initial weights on the CPU from `seed` in a block.

    The global generators are afterwards as they were.
    """
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also reseed the accelerators, which fork_rng does not restore
        # here.
        torch.default_generator.manual_seed(seed)
        yield


class Encoder(nn.Module):
    """A torchvision ResNet without its classifier, with torchvision's names in its `state_dict`.

    Input (N, 3, H, W) float, ImageNet-normalised RGB; `channels` is 512 (resnet18, 34) or 2048.
    """

    def __init__(self, arch: str) -> None:
        super().__init__()
        if arch not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise HandclrError(f"unknown architecture {arch!r}: choose one of {known}")
        net = getattr(torchvision.models, arch)(weights=None)
        self.arch = arch
        self.channels = int(net.fc.in_features)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2 = net.layer1, net.layer2
        self.layer3, self.layer4 = net.layer3, net.layer4

    def features(self, x: Tensor) -> Tensor:
        """The last feature map: (N, 3, H, W) -> (N, channels, H/32, W/32)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward(self, x: Tensor) -> Tensor:
        """The representation, averaged over the feature map: (N, 3, H, W) -> (N, channels)."""
        return self.features(x).mean(dim=(2, 3))


def build_encoder(arch: str, init: str | Path = "random", seed: int = 0) -> Encoder:
    """Make an encoder with initial weights: "random", "imagenet", "handclr" or a weights file.

    "random" ones are drawn from `seed`; "handclr" are those of the model that comes with it;
    "imagenet" is torchvision's IMAGENET1K_V1, the weights that the published code starts from.
    Raises HandclrError where they cannot be had or do not fit.
    """
    with seeded(seed):
        encoder = Encoder(arch)
    if init == "imagenet":
        weights = torchvision.models.get_model_weights(arch)["IMAGENET1K_V1"]
        try:
            with limited_silence():
                state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            missing = f"cannot get the ImageNet weights of {arch} from {weights.url}"
            advice = "start from random weights, or from a file of weights"
            raise HandclrError(f"{missing} ({_line(error)}); {advice}") from error
        _load(encoder, normalise(state, weights.url), weights.url)
    elif init != "random":
        load_encoder_weights(encoder, init)
    return encoder


def read_encoder_state(path: str | Path) -> dict[str, Tensor]:
    """Read the encoder's tensors of a weights file, under torchvision's names.

    Classifier and heads are left out. Takes flat state dicts, {'state_dict': ...}, {'encoder': ...}
    (torchvision, SiMHand, PeCLR, Lightning, solo-learn, MoCo, minimal-hand) and handclr's own
    encoder.pt, last.pt and model.pt; their prefixes, torch.compile's too, and features.<i>.; of two
    encoders the one that is trained, else its running mean. Never runs code from the file.
    """
    return normalise(load_tensors(weights_file(str(path))), path)


def check_init(init: str | Path, arch: str) -> None:
    """Raise HandclrError where the file that an encoder is to start from is no such weights."""
    if init not in ("random", "imagenet"):
        with torch.device("meta"):
            encoder = Encoder(arch)
        _check(encoder, read_encoder_state(init), init)


def load_encoder_weights(encoder: Encoder, path: str | Path) -> int:
    """Load a weights file into `encoder`, all of it or nothing; returns the number of tensors."""
    return _load(encoder, read_encoder_state(path), path)


def arch_of(state: dict[str, Tensor]) -> Arch | None:
    """The architecture whose blocks a state dict with torchvision names has, or None."""
    blocks: list[set[str]] = [set(), set(), set(), set()]
    for name in state:
        if match := re.match(r"layer([1-4])\.(\d+)\.", name):
            blocks[int(match[1]) - 1].add(match[2])
    counts = (len(blocks[0]), len(blocks[1]), len(blocks[2]), len(blocks[3]))
    bottlenecks = any(".conv3." in name for name in state)
    return _BLOCKS.get((bottlenecks, counts))


def normalise(state: Any, path: object) -> dict[str, Tensor]:
    """Unpack the containers and bring every name to torchvision's."""
    state = _unpacked(state)
    values = list(state.values()) if isinstance(state, dict) else []
    if not values or not all(isinstance(value, Tensor) for value in values):
        raise HandclrError(
            f"{path}: holds no state dict of tensors; give encoder weights saved with torch.save"
        )
    named: dict[str, Tensor] = {}
    for key, tensor in _trained(state):
        name = _PREFIX.sub("", key)
        if match := _FEATURES.match(name):
            name = f"{_FEATURE_NAMES.get(match[1], match[0][:-1])}.{name[match.end() :]}"
        if name.startswith(_NOT_ENCODER):
            continue
        if name in named:
            twice = f"{path}: has two tensors for {name} (one is {key})"
            raise HandclrError(f"{twice}; keep the encoder you want in it")
        named[name] = tensor
    return named


def _trained(state: dict[Any, Tensor]) -> list[tuple[str, Tensor]]:
    """The tensors without torch.compile's prefixes; a running mean only where it is alone."""
    named = [(str(key).replace(_COMPILED, ""), tensor) for key, tensor in state.items()]
    online = [(key, tensor) for key, tensor in named if not _MOMENTUM.match(key)]
    if any(_is_encoders(key) for key, _ in online):
        return online
    return [(_MOMENTUM.sub("", key), tensor) for key, tensor in named]


def _is_encoders(key: str) -> bool:
    name = _PREFIX.sub("", key)
    return name.startswith("layer1.") or bool(_FEATURES.match(name))


def _unpacked(state: Any) -> Any:
    """What lies in the innermost of nested containers."""
    while isinstance(state, dict):
        inner = [name for name in _CONTAINERS if isinstance(state.get(name), dict)]
        if not inner:
            break
        state = state[inner[0]]
    return state


def _load(encoder: Encoder, state: dict[str, Tensor], path: object) -> int:
    """Check a normalised state dict against the encoder in full, then copy it."""
    _check(encoder, state, path)
    encoder.load_state_dict(state, strict=False)
    return len(state)


def _check(encoder: Encoder, state: dict[str, Tensor], path: object) -> None:
    own = encoder.state_dict()
    found = arch_of(state)
    if found not in (None, encoder.arch):
        holds = f"{path}: holds a {found}, not a {encoder.arch}"
        raise HandclrError(f"{holds}; choose the architecture {found}")
    needed = [name for name in own if not name.endswith(".num_batches_tracked")]
    missing = [name for name in needed if name not in state]
    unexpected = [name for name in state if name not in own]
    shared = [name for name in state if name in own]
    reshaped = [name for name in shared if state[name].shape != own[name].shape]
    wrong = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
    parts = [_listed(what, names) for what, names in wrong.items() if names]
    if parts:
        other = f"{path}: not the weights of a {encoder.arch}: tensors {'; '.join(parts)}"
        advice = "check the architecture, or save the encoder alone under torchvision's names"
        raise HandclrError(f"{other}; {advice}")
    refuse_not_finite(state, path)


def _listed(what: str, names: list[str]) -> str:
    more = ", ..." if len(names) > 3 else ""
    return f"{len(names)} {what} ({', '.join(names[:3])}{more})"


def _line(error: BaseException) -> str:
    """The first line of an error's message, for an error of one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
