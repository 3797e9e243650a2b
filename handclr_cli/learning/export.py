"""A pose model as an ONNX graph: uint8 crops in, metres out, checked against the model itself."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import sys
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..contract.errors import HandclrError, UsageError
from ..contract.output import atomic_write
from ..hand.joints import JOINT_NAMES
from .augmentation import IMAGENET_MEAN, IMAGENET_STD
from .guide import Guide
from .posemodel import PoseModel

# The oldest that torch's exporter writes, which TensorRT from version 10, OpenCV and every current
# runtime read.
OPSET = 18
TOLERANCE_MM = 0.05
TOLERANCE_PX = 0.05
# Where the two hottest cells of a heatmap are equal but for rounding, either may be read.
TIES = 1e-3
INPUT, OUTPUTS = "crops", ("xyz", "uv")
# What the landmarker found, for a guided model.
TOLD = ("points", "world", "found")
MAKERS, RUNTIME = ("onnx", "onnxscript"), "onnxruntime"


class OnnxCheck(NamedTuple):
    """By how much an exported graph differs from its model on a number of crops, at most.

    In mm (xyz) and input pixels (uv). `ties` joints do not count: the maximum of their heatmap is
    in two cells, but for rounding.
    """

    crops: int
    worst_mm: float
    worst_px: float
    ties: int


class PoseGraph(nn.Module):
    """What is exported: normalisation, network and readout of a PoseModel, on the CPU.

    Crops of right hands, uint8 (N, S, S, 3) RGB with S the model's size -> xyz (N, 21, 3) metres
    from the wrist, axes as of the model, and uv (N, 21, 2) crop sides, float32. A guided model also
    takes points (N, 21, 2) crop sides, world (N, 21, 3), float32, and found (N,) bool.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, model: PoseModel) -> None:
        super().__init__()
        self.network = copy.deepcopy(model.network).cpu().eval()
        self.bone, self.size = model.mean.bone, model.size
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        self.register_buffer("scale", 1 / (255 * std)[:, None, None])
        self.register_buffer("shift", (mean / std)[:, None, None])

    def forward(self, crops: Tensor, *told: Tensor) -> tuple[Tensor, Tensor]:
        """Predict as PoseModel does."""
        images = crops.permute(0, 3, 1, 2).to(torch.float32) * self.scale - self.shift
        guide = None
        if told:
            points, world, found = told
            guide = Guide(points * self.size, world, found)
        xyz, uv = self.network.predict(images, guide)
        return xyz * self.bone, uv / self.size


def require_onnx() -> None:
    """Raise UsageError where the packages that write ONNX are not installed."""
    missing = [name for name in MAKERS if importlib.util.find_spec(name) is None]
    if missing:
        names = " and ".join(missing)
        raise UsageError(f"{names} not installed here; pip install 'handclr[onnx]'", setting="onnx")


def export_onnx(model: PoseModel, properties: Mapping[str, Any]) -> bytes:
    """Serialise the model as one ONNX file of opset OPSET, for any N.

    `properties` go into its metadata. Input `crops`, of a guided model also `points`, `world` and
    `found`, outputs `xyz` and `uv`, as of PoseGraph. The same model gives the same bytes.
    """
    require_onnx()
    graph = PoseGraph(model)
    example = tuple(inputs_of(model, np.zeros((2, model.size, model.size, 3), np.uint8)).values())
    # Standard output is for data, and the exporter talks.
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph,
            example,
            input_names=[INPUT, *TOLD] if model.is_guided else [INPUT],
            output_names=list(OUTPUTS),
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=_free(len(example)),
            verbose=False,
        )
    proto = program.model_proto  # type: ignore[union-attr]
    written = {entry.domain: entry.version for entry in proto.opset_import}[""]
    if written != OPSET:
        other = f"this torch writes opset {written}, not {OPSET}"
        raise HandclrError(f"{other}; export with another version of torch")
    _forget_origins(proto)
    for name, value in properties.items():
        proto.metadata_props.add(key=name, value=str(value))
    return proto.SerializeToString(deterministic=True)


def check_onnx(data: bytes, model: PoseModel, crops: np.ndarray) -> OnnxCheck | None:
    """Compare an exported model with the original on crops uint8 (n, S, S, 3).

    The first crop runs alone too, which shows that N is free. None where onnxruntime is not
    installed. Raises HandclrError where more than one joint in a thousand differs by more than
    TOLERANCE_MM or TOLERANCE_PX.
    """
    if importlib.util.find_spec(RUNTIME) is None:
        return None
    session, inputs = _session(data), inputs_of(model, crops)
    with torch.no_grad():
        expected = [value.numpy() for value in PoseGraph(model)(*inputs.values())]
    fed = {name: value.numpy() for name, value in inputs.items()}
    found = session.run(list(OUTPUTS), fed)
    single = session.run(list(OUTPUTS), {name: value[:1] for name, value in fed.items()})
    apart = [_apart(*values) for values in zip(found, single, expected, strict=True)]
    mm, px = 1000 * apart[0], model.size * apart[1]
    beyond = ~((mm <= TOLERANCE_MM) & (px <= TOLERANCE_PX))
    if beyond.mean() > TIES:
        worst = f"by up to {mm.max():.3g} mm and {px.max():.3g} px"
        where = f"on {int(beyond.sum()):,} of {beyond.size:,} joints"
        differs = f"the ONNX model differs from the original {worst} {where}"
        raise HandclrError(f"{differs}; nothing was written")
    close = ~beyond
    return OnnxCheck(len(crops), float(mm[close].max()), float(px[close].max()), int(beyond.sum()))


def _session(data: bytes) -> Any:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    return onnxruntime.InferenceSession(data, settings, providers=["CPUExecutionProvider"])


def inputs_of(model: PoseModel, crops: np.ndarray) -> dict[str, Tensor]:
    """The inputs of a graph for crops uint8 (n, S, S, 3), by name.

    A guided model is told, of every other crop, what it sees in it by itself.
    """
    inputs = {INPUT: torch.from_numpy(crops)}
    if model.is_guided:
        xyz, uv = model(crops)
        found = torch.arange(len(crops)) % 2 == 0
        told = torch.from_numpy(uv), torch.from_numpy(xyz), found
        inputs |= dict(zip(TOLD, told, strict=True))
    return inputs


def _free(count: int) -> tuple[Any, ...]:
    """The dynamic shapes of `count` inputs, the first of which is followed by the others."""
    batch = torch.export.Dim("batch")
    first = ({0: batch},)
    return first if count == 1 else (*first, tuple({0: batch} for _ in range(count - 1)))


def _apart(found: np.ndarray, single: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Distances of joints, of all crops and of the first one alone: (n + 1, 21)."""
    twice = np.concatenate([expected, expected[:1]])
    return np.linalg.norm(np.concatenate([found, single]) - twice, axis=-1)


def write_onnx(
    model: PoseModel, crops: np.ndarray, path: str, properties: Mapping[str, Any]
) -> OnnxCheck | None:
    """Export a model to a file, once the export is checked on crops as by `check_onnx`.

    `properties` go into its metadata, with the joints, the side of the input and the reference bone
    in metres. Raises as `export_onnx` and `check_onnx`.
    """
    about = {**properties, "joints": ",".join(JOINT_NAMES)}
    data = export_onnx(model, {**about, "size": model.size, "reference_bone_m": model.mean.bone})
    check = check_onnx(data, model, crops)
    with atomic_write(path, "onnx") as file:
        file.write(data)
    return check


def _forget_origins(proto: Any) -> None:
    """Take out what the exporter notes of its source files: it names folders of this machine."""
    for graph in (proto.graph, *proto.functions):
        for part in (graph, *graph.node, *graph.value_info, *getattr(graph, "initializer", ())):
            part.ClearField("doc_string")
            part.ClearField("metadata_props")
