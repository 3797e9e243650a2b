"""Contrastive pre-training: SimCLR, PeCLR, TempCLR, HandCLR and SiMHand as one procedure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import console
from ..choices import MethodName, PositiveSource, TargetKind, Undo, Weighting
from ..contract.errors import UsageError
from .augmentation import Appearance, AugmentationConfig, Geometry, to_tensor
from .distributed import Ranks
from .encoder import Encoder, build_encoder
from .hardware import Autocast, ViewsMade, move
from .losses import alignment_uniformity, nt_xent, undo_geometry
from .projection import ProjectionHead
from .targets import SPREAD, PoseTargets
from .views import Views
from .warp import render_views
from .weighting import PoseWeights

CHOICES = {
    "positives": get_args(PositiveSource),
    "undo": get_args(Undo),
    "weights": get_args(Weighting),
    "targets": get_args(TargetKind),
}


@dataclass(frozen=True)
class Method:
    """A contrastive method in four choices, and the temperature of its loss.

    positives: "self", "neighbour" in time, or "mined". undo: how the geometric part of the
    augmentation is undone in latent space: "none", in units of the latent points' "extent" (PeCLR),
    with latents that were not normalised before that ("raw-extent": the same loss, but gradients
    that differ along each latent), or exactly in units of the "crop".
    weights: of pairs by their 2D pose distance (SiMHand): "none", "linear" or "sigmoid". targets:
    what a view should resemble: its "positive", or each view of the batch by how near the "pose" of
    its crop is.
    """

    positives: PositiveSource
    undo: Undo
    weights: Weighting
    targets: TargetKind = "positive"
    temperature: float = 0.5

    @property
    def joints(self) -> Literal["none", "view", "crop"]:
        """The keypoints that the loss needs: none, those in the views, or those of the crops."""
        if self.targets == "pose":
            return "crop"
        return "none" if self.weights == "none" else "view"

    def check_options(
        self, name: MethodName, pairs: Sequence[str], spread: float | None, top_k: int
    ) -> None:
        """Raise UsageError where the method of this name lacks its pairs, or ignores the others."""
        if self.positives == "mined" and not pairs:
            made = "make them with handclr pca and handclr mine"
            other = f"train without them ({console.called('method', 'simclr')})"
            needed = f"the method {name} needs them; {made}, or {other}"
            raise UsageError(needed, setting="pairs")
        if spread is not None and self.targets != "pose":
            soft = console.called("targets", "pose")
            why = f"is the width of soft targets; take {soft} too, or leave it out"
            raise UsageError(why, setting="spread")
        if top_k > 1 and self.positives != "mined":
            why = f"draws from mined positives, and here they are {self.positives}; leave it out"
            raise UsageError(why, setting="top_k")

    def record(self) -> dict[str, Any]:
        """The choices for a run's configuration; targets only where they are not the positive."""
        choices = {name: str(getattr(self, name)) for name in CHOICES}
        if self.targets == "positive":
            del choices["targets"]
        return choices


# As published but for the last, which is ours.
METHODS: dict[MethodName, Method] = {
    "simclr": Method("self", "none", "none"),
    "peclr": Method("self", "extent", "none"),
    "tempclr": Method("neighbour", "extent", "none"),
    "handclr": Method("mined", "extent", "none"),
    "simhand": Method("mined", "extent", "linear"),
    "handclr-soft": Method("mined", "crop", "none", "pose", temperature=0.1),
}


def choose_method(
    name: MethodName, temperature: float | None = None, **choices: str | None
) -> Method:
    """A preset with the choices and the temperature that are not None in place of its own.

    Raises UsageError for an unknown name or choice, and for weights together with soft targets.
    """
    if name not in METHODS:
        raise UsageError(f"choose from {', '.join(METHODS)}", setting="method")
    given: dict[str, Any] = {} if temperature is None else {"temperature": temperature}
    for setting, value in choices.items():
        if value is None:
            continue
        if value not in CHOICES[setting]:
            raise UsageError(f"choose from {', '.join(CHOICES[setting])}", setting=setting)
        given[setting] = value
    method = replace(METHODS[name], **given)
    if method.targets == "pose" and method.weights != "none":
        raise UsageError(f"goes with weights none, not {method.weights}", setting="targets")
    return method


def augmentation_of(
    method: Method, size: int, rotation: float | None, published: bool
) -> AugmentationConfig:
    """The augmentation T of a method.

    Views are rotated by `rotation` degrees, or where that is None by 45 where it is undone and not
    at all elsewhere. As published, an augmentation that is not undone leaves the geometry alone.
    Raises UsageError where views as published cannot be what is asked for.
    """
    if published and rotation is not None:
        raise UsageError(
            "published views have their own; leave out one of the two", setting="rotation"
        )
    if published and method.undo == "crop":
        why = "published views are cropped at random, which the undoing is not told; take extent"
        raise UsageError(why, setting="undo")
    undone = method.undo != "none"
    turn = (45.0 if undone else 0.0) if rotation is None else rotation
    return AugmentationConfig(size=size, rotation=turn, geometric=undone or not published)


class ContrastiveModel(nn.Module):
    """Encoder and projection head: normalised images (N, 3, H, W) to latent vectors (N, 128)."""

    def __init__(self, encoder: Encoder, head: ProjectionHead) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    @classmethod
    def build(cls, arch: str, init: str, seed: int) -> ContrastiveModel:
        """Make the encoder as `build_encoder` does, and a head with weights drawn from the seed."""
        encoder = build_encoder(arch, init, seed)
        return cls(encoder, ProjectionHead(encoder.channels, seed=seed))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(images))


@dataclass
class Objective:
    """The contrastive loss of a batch of views, and its gradients in the model.

    size: of the views, px. parts: in how many the images are encoded; the loss is that of the whole
    batch (gradient caching, Gao 2021), but batch norms see a part at a time. crops: uint8 (N, R, R,
    3) on the device, where it has them. spread: width of soft targets, in median distances.
    """

    model: nn.Module
    method: Method
    size: int
    device: torch.device
    autocast: Autocast = contextlib.nullcontext
    ranks: Ranks = Ranks()  # noqa: RUF009
    parts: int = 1
    made: ViewsMade = ViewsMade.BY_WORKERS
    crops: Tensor | None = None
    spread: float = SPREAD

    def __call__(self, views: Views) -> dict[str, Tensor]:
        """Leave the gradients in the model; returns the loss and what tells how training goes."""
        views = move(views, self.device)
        if self.parts == 1:
            latent = self._encode(views)
            losses = self._losses(latent, views)
            losses["loss"].backward()
            return losses
        shares = [_share(views, part, self.parts) for part in range(self.parts)]
        with torch.no_grad(), _norms_unmoved(self.model):
            latent = torch.cat([self._encode(share) for share in shares], dim=1)
        losses = self._losses(latent.requires_grad_(), views)
        losses["loss"].backward()
        assert latent.grad is not None
        grads = latent.grad.chunk(self.parts, dim=1)
        for number, (share, grad) in enumerate(zip(shares, grads, strict=True)):
            with self._synchronised(last=number == self.parts - 1):
                self._encode(share).backward(grad)
        return losses

    def _encode(self, views: Views) -> Tensor:
        """Views to latent vectors, float32 (2, N, 128)."""
        with self.autocast():
            latent = self.model(self._images(views))
        return latent.float().unflatten(0, (2, -1))

    def _images(self, views: Views) -> Tensor:
        images = self.crops[views.rows] if self.crops is not None else views.images
        assert images is not None
        if not self.made.on_device:
            return to_tensor(images.flatten(0, 1))
        appearance = Appearance(*(field.flatten(0, 1) for field in views.appearance))
        return render_views(images.flatten(0, 1), _flat(views.geometry), appearance, self.size)

    def _losses(self, latent: Tensor, views: Views) -> dict[str, Tensor]:
        latent = undo(latent, views.geometry, self.method.undo)
        z1, z2 = (self.ranks.gather(z) for z in latent)
        rows1, rows2 = (self.ranks.gather(rows) for rows in views.rows)
        weights, targets = self._by_pose(views)
        contrast = nt_xent(
            z1,
            z2,
            rows1,
            rows2,
            temperature=self.method.temperature,
            own=self.ranks.share(len(z1)),
            weights=weights,
            targets=targets,
        )
        alignment, uniformity = alignment_uniformity(*latent)
        return {
            "loss": contrast.loss,
            "top1": contrast.top1,
            "alignment": alignment,
            "uniformity": uniformity,
        }

    def _by_pose(self, views: Views) -> tuple[PoseWeights | None, PoseTargets | None]:
        """What the loss takes from the poses of the whole batch: weights, or soft targets."""
        method = self.method
        if views.joints is None or method.joints == "none":
            return None, None
        joints1, joints2 = (self.ranks.gather(joints) for joints in views.joints)
        if method.targets == "pose":
            return None, PoseTargets(joints1, joints2, self.spread)
        if method.weights == "none":
            return None, None
        return PoseWeights(joints1, joints2, method.weights), None

    def _synchronised(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Average gradients over the processes once, with the last part."""
        if last or not isinstance(self.model, nn.parallel.DistributedDataParallel):
            return contextlib.nullcontext()
        return self.model.no_sync()


def undo(latent: Tensor, geometry: Geometry, how: Undo) -> Tensor:
    """Undo the geometry of views on their latents: (2, N, 2K) to the same shape."""
    if how == "none":
        return latent
    if how == "extent":
        latent = F.normalize(latent, dim=2)
    unit: Literal["crop", "extent"] = "crop" if how == "crop" else "extent"
    return undo_geometry(latent.flatten(0, 1), _flat(geometry), unit).unflatten(0, (2, -1))


def _flat(geometry: Geometry) -> Geometry:
    return Geometry(*(field.flatten(0, 1) for field in geometry))


def _share(views: Views, part: int, parts: int) -> Views:
    """Part of the pairs of a batch."""

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.chunk(parts, dim=1)[part]
        return type(value)(*map(cut, value)) if isinstance(value, tuple) else value

    return cut(views)


@contextlib.contextmanager
def _norms_unmoved(model: nn.Module) -> Iterator[None]:
    """Keep the running statistics of batch norms in a block: its images will pass once more."""
    kind = nn.modules.batchnorm._BatchNorm
    norms = [module for module in model.modules() if isinstance(module, kind)]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
