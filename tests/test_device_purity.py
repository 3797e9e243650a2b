"""On an accelerator hot paths neither wait for the device nor use a tensor of the processor.

Run on a fake device: see `fake_cuda`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from device_paths import PATHS
from fake_cuda import CUDA, ImpureError, Watch, backward, fake_cuda
from torch import Tensor
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorDeviceMismatchError

from handclr_cli.learning import heads, losses, pretraining
from handclr_cli.learning.encoder import Encoder
from handclr_cli.learning.hardware import pick_precision
from handclr_cli.similarity import device
from handclr_cli.synth import skin

# What each path does beside the device's own work, where, and why it has to.
EXPECTED: dict[str, dict[tuple[str, str], str]] = {
    "pretrain": {},
    "finetune": {},
    "log": {
        ("learning.loop._Recorder.flush", "read"): "the losses, every other second",
        ("learning.loop._Recorder.flush", "processor"): "their numbers are written",
    },
    "validate": {
        ("learning.validation.Validation.__call__", "processor"): "the held-out crops lie there",
        (
            "learning.validation.Validation.__call__",
            "send",
        ): "these crops, batch by batch",
        ("learning.validation.Validation.__call__", "read"): "poses, scored with the truth there",
        (
            "learning.posemodel.save_payload",
            "read",
        ): "the best weights, which are kept",
        ("learning.posemodel.save_payload", "processor"): "the copies that are kept",
    },
    "probe": {
        ("learning.probe.Probe._features", "processor"): "the crops lie there",
        ("learning.probe.Probe._features", "send"): "the crops, a batch at a time",
        ("learning.probe.Probe.__call__", "read"): "which crops are near, once",
        ("learning.probe.Probe.__call__", "processor"): "the poses of the bank lie there",
        ("learning.probe._error", "processor"): "the truth lies there",
    },
    "predict": {
        ("learning.hardware.move", "send"): "the crops of a batch",
        ("learning.posemodel.PoseModel._poses", "read"): "predictions are arrays",
    },
    "mine": {
        ("similarity.device._Shelf._send", "send"): "the pool once, and a chunk of queries",
        ("similarity.device.DeviceTiles._answer", "read"): "the answers, once a chunk",
    },
    # The commands render on the processor alone. Elsewhere it works, and waits at each step: how
    # many triangles and pixels are seen decides the shapes of what follows.
    "render": {
        ("synth.raster.rasterize", "read"): "which triangles are of one size, and the largest",
        ("synth.raster._facing", "read"): "which triangles are seen",
        ("synth.raster._scatter", "read"): "which pixels are covered",
        ("synth.raster._fragments", "read"): "which pixels are covered",
        ("synth.renderer._window", "read"): "the part of the picture that is drawn",
        ("synth.renderer._shade", "read"): "which pixels show each mesh",
        ("synth.skin.SkinPaint._marks", "read"): "which pixels show the palm",
        ("synth.scenes.Scene.shoot", "read"): "the camera's sensor is simulated in numpy",
        ("synth.raster.floats", "send"): "poses and cameras are made in numpy",
        ("synth.objects.held_part", "send"): "the mesh of an object",
        ("synth.scenes._placed", "send"): "the faces of a mirrored hand",
        ("synth.raster._facing", "send"): "the sides of the picture",
        ("synth.renderer.render", "send"): "the corner of what is drawn",
        ("synth.renderer._bases", "send"): "two axes",
        ("synth.renderer._light", "send"): "a colour",
        ("synth.skin.SkinPaint.__call__", "send"): "two colours",
        ("synth.skin.SkinPaint._mottling", "send"): "a colour",
    },
}


def expected(name: str) -> set[tuple[str, str]]:
    return set(EXPECTED[name.replace(",", "").split()[0]])


@pytest.mark.parametrize("name", PATHS)
def test_a_path_stays_on_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_cuda(monkeypatch):
        ready = PATHS[name](monkeypatch)
        with Watch(expected(name)) as watch:
            ready()
    assert watch.seen == expected(name)


def test_the_fake_device_computes_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """As CUDA does by itself: what runs in full precision there runs so here."""
    with fake_cuda(monkeypatch), pick_precision("auto", CUDA)():
        x = torch.zeros(2, 2, device=CUDA)
        kinds = (x @ x).dtype, x.half().exp().dtype, (x * x).dtype
    assert kinds == (torch.bfloat16, torch.float32, torch.float32)


LEFT = torch.zeros(1)


def left_behind(found: Tensor) -> None:
    _ = found + LEFT


def indexed(found: Tensor) -> None:
    _ = found[torch.zeros(1, dtype=torch.int64)]


def read(found: Tensor) -> None:
    _ = found.sum().item()


def to_numpy(found: Tensor) -> None:
    found.detach().numpy()


def masked(found: Tensor) -> None:
    _ = found[found > 0]


def sent(found: Tensor) -> None:
    torch.tensor([1.0, 2.0], device=found.device)


def made_there(found: Tensor) -> None:
    torch.arange(3)


# What the device does not take, and what tells of it.
FAULTS: dict[Callable[[Tensor], None], type[Exception]] = {
    left_behind: FakeTensorDeviceMismatchError,
    to_numpy: TypeError,
    masked: DynamicOutputShapeException,
    **dict.fromkeys((indexed, read, sent, made_there), ImpureError),
}
# Within each kind of path a function to plant a fault in: its home, and its name.
INSIDE: dict[str, tuple[Any, str]] = {
    "pretrain simhand": (losses, "_copies"),
    "pretrain, all at once": (pretraining, "render_views"),
    "finetune detnet": (heads, "heatmaps"),
    "validate detnet": (heads, "with_places"),
    "probe": (Encoder, "features"),
    "predict detnet": (heads, "_refine"),
    "mine": (device, "_nearest"),
    "render": (skin, "_ramp"),
}
PLANTED = [("pretrain simhand", fault) for fault in FAULTS]
PLANTED += [(name, fault) for name in list(INSIDE)[1:] for fault in (left_behind, read)]


@pytest.mark.parametrize(("name", "fault"), PLANTED)
def test_a_planted_fault_is_seen(
    name: str, fault: Callable[[Tensor], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, inside = INSIDE[name]
    honest = getattr(home, inside)

    def planted(*arguments: Any) -> Any:
        found = honest(*arguments)
        fault(found[0] if isinstance(found, tuple) else found)
        return found

    with fake_cuda(monkeypatch):
        ready = PATHS[name](monkeypatch)
        monkeypatch.setattr(home, inside, planted)
        with pytest.raises(FAULTS[fault]), Watch(expected(name)):
            ready()


def test_gradients_without_torchs_engine_are_those_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gradients() -> list[Tensor]:
        torch.manual_seed(0)
        z = torch.randn(6, 8, requires_grad=True)
        scale = torch.randn(8, requires_grad=True)
        z1, z2 = (z * scale).chunk(2)
        losses.nt_xent(z1, z2.double(), chunk=2).loss.backward()
        losses.nt_xent(*torch.randn(6, 8).mul(scale).chunk(2)).loss.backward(torch.tensor(2.0))
        assert z.grad is not None and scale.grad is not None
        return [z.grad, scale.grad]

    wanted = gradients()
    monkeypatch.setattr(Tensor, "backward", backward)
    torch.testing.assert_close(gradients(), wanted)
