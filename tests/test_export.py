"""The ONNX export: one file that predicts what the model does, for any number of crops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from labelled_helpers import handclr, labelled_sample
from shard_helpers import write_shard
from torch import Tensor, nn

from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.contract.fields import JOINT_COUNT
from handclr_cli.contract.index import ShardIndex
from handclr_cli.learning import export
from handclr_cli.learning.encoder import Encoder
from handclr_cli.learning.export import OPSET, PoseGraph, check_onnx, export_onnx, require_onnx
from handclr_cli.learning.heads import DetNet, PoseMaps
from handclr_cli.learning.pose import PoseNet
from handclr_cli.learning.posemodel import MeanPose, PoseModel, save_payload
from handclr_cli.learning.prediction import some_crops as crops_of

SIZE = 32
BONE = 0.09
MEAN = MeanPose(np.zeros((21, 3), np.float32), BONE)


class SmallNet(nn.Module):
    """A DetNet's readout on two layers: exporting a ResNet takes ten seconds."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.heat = nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, JOINT_COUNT, 1)
        self.location = nn.Conv2d(8, 3 * JOINT_COUNT, 1)
        self.head = DetNet(8)

    def predict(self, images: Tensor, guide: None = None) -> tuple[Tensor, Tensor]:
        x = self.stem(images).relu()
        location = self.location(x).unflatten(1, (JOINT_COUNT, 3))
        return DetNet.read(self, PoseMaps(self.heat(x).sigmoid(), location, location))  # type: ignore[arg-type]


def pose_model() -> PoseModel:
    return PoseModel(SmallNet().eval(), SIZE, MEAN)  # type: ignore[arg-type]


def some_crops(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def test_the_graph_is_the_model() -> None:
    model, crops = pose_model(), some_crops(3)
    with torch.no_grad():
        xyz, uv = PoseGraph(model)(torch.from_numpy(crops))
    poses = model(crops)
    np.testing.assert_allclose(xyz, poses.xyz, atol=1e-5)
    np.testing.assert_allclose(uv, poses.uv, atol=1e-5)


def test_what_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MAKERS", ("onnx", "no_such_package"))
    if export.importlib.util.find_spec("onnx"):
        with pytest.raises(
            UsageError, match=r"no_such_package not installed here; pip install 'handclr\[onnx\]'"
        ):
            require_onnx()
    monkeypatch.setattr(export, "RUNTIME", "no_such_package")
    assert check_onnx(b"", pose_model(), some_crops(1)) is None


@pytest.fixture(scope="module")
def packages() -> None:
    for package in (*export.MAKERS, export.RUNTIME):
        pytest.importorskip(package)


@pytest.fixture(scope="module")
def exported(packages: None) -> tuple[PoseModel, bytes]:
    model = pose_model()
    return model, export_onnx(model, {"size": SIZE})


@pytest.mark.slow
def test_the_file_says_what_goes_in_and_what_comes_out(exported: tuple[PoseModel, bytes]) -> None:
    import onnx

    proto = onnx.load_from_string(exported[1])
    onnx.checker.check_model(proto)

    def shapes(values: Any) -> dict[str, tuple[int, list[Any]]]:
        kinds = {value.name: value.type.tensor_type for value in values}
        return {
            name: (kind.elem_type, [side.dim_param or side.dim_value for side in kind.shape.dim])
            for name, kind in kinds.items()
        }

    assert shapes(proto.graph.input) == {
        "crops": (onnx.TensorProto.UINT8, ["batch", SIZE, SIZE, 3])
    }
    single = onnx.TensorProto.FLOAT
    assert shapes(proto.graph.output) == {
        "xyz": (single, ["batch", 21, 3]),
        "uv": (single, ["batch", 21, 2]),
    }
    assert {entry.domain: entry.version for entry in proto.opset_import}[""] == OPSET == 18
    assert {entry.key: entry.value for entry in proto.metadata_props} == {"size": str(SIZE)}
    assert b".py" not in exported[1]
    assert export_onnx(exported[0], {"size": SIZE}) == exported[1]


@pytest.mark.slow
def test_the_check_passes_what_is_equal_and_refuses_what_is_not(
    exported: tuple[PoseModel, bytes],
) -> None:
    model, data = exported
    check = check_onnx(data, model, some_crops(7))
    assert check is not None
    assert (
        check.crops == 7
        and check.worst_mm < export.TOLERANCE_MM
        and check.worst_px < export.TOLERANCE_PX
    )
    with pytest.raises(HandclrError, match="differs from the original by up to"):
        check_onnx(
            data,
            PoseModel(model.network, SIZE, MeanPose(model.mean.pose, 1.01 * BONE)),
            some_crops(2),
        )


@pytest.mark.slow
def test_the_command_exports_beside_its_predictions(packages: None, tmp_path: Path) -> None:
    import onnx

    torch.save(save_payload(PoseNet(Encoder("resnet18")), SIZE, MEAN), tmp_path / "model.pt")
    shard = write_shard(tmp_path / "in.tar", [labelled_sample(number) for number in range(3)])
    out = tmp_path / "model.onnx"
    options = ("--model", tmp_path / "model.pt", "--workers", 0, "-o", tmp_path / "p.npz")
    done = handclr("predict", shard, *options, "--onnx", out)
    assert (
        "opset 18, differs by at most" in done.stderr.decode()
        and "on 3 crops" in done.stderr.decode()
    )
    found = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    assert found["size"] == str(SIZE) and found["joints"].startswith("wrist,thumb_cmc")


def test_an_export_needs_crops_to_be_checked_with(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "in.tar", [labelled_sample(number) for number in range(5)])
    crops = crops_of(ShardIndex([str(shard)]), SIZE, 3)
    assert crops.shape == (3, SIZE, SIZE, 3) and crops.dtype == np.uint8
    with pytest.raises(HandclrError, match="no crop in the input to check the export with"):
        crops_of(ShardIndex([str(write_shard(tmp_path / "empty.tar", []))]), SIZE, 3)
