"""What is usually written to pre-train by contrast, beside handclr in `pretraining.py`."""

from __future__ import annotations

import io
import math
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from handclr_cli.contract.index import ShardIndex
from handclr_cli.learning.augmentation import IMAGENET_MEAN, IMAGENET_STD, AugmentationConfig
from handclr_cli.learning.hardware import Autocast, pick_precision
from handclr_cli.learning.optim import build_optimizer, default_lr, parameter_groups
from handclr_cli.learning.pretraining import ContrastiveModel

# Called as each step begins.
Turns = Callable[[], None]


def plain(turns: Turns, options: Namespace, device: torch.device) -> None:
    from torchvision.transforms import v2

    config, size, bilinear = AugmentationConfig(), options.size, v2.InterpolationMode.BILINEAR
    areas = [fraction**2 for fraction in config.scale]
    shift = (config.translation,) * 2
    view = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomResizedCrop(size, scale=areas, ratio=(1, 1)),
            # On the small picture, which makes it several times quicker than on the crop.
            v2.RandomAffine(config.rotation, shift, interpolation=bilinear),
            v2.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue),
            v2.RandomApply([v2.GaussianBlur(13, config.blur_sigma)], p=config.blur_probability),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    model = ContrastiveModel.build(options.arch, "random", 0).to(device).train()
    positives = torch.arange(2 * options.batch, device=device).roll(options.batch)

    def nt_xent(latent: Tensor) -> Tensor:
        latent = F.normalize(latent, dim=1)
        return F.cross_entropy((latent @ latent.T / 0.5).fill_diagonal_(-math.inf), positives)

    optimizer, autocast = adamw(model, options.batch), peer_precision(options, device)
    pinned = device.type == "cuda"
    for views in loader(options, lambda image: (view(image), view(image)), pin_memory=pinned):
        turns()
        with autocast():
            latent = model(torch.cat([images.to(device, non_blocking=True) for images in views]))
        nt_xent(latent.float()).backward()
        optimizer.step()
        optimizer.zero_grad()


def lightly(turns: Turns, options: Namespace, device: torch.device) -> None:
    import torchvision
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform

    network = getattr(torchvision.models, options.arch)(weights=None)
    head = SimCLRProjectionHead(network.fc.in_features, 512, 128)
    model = nn.Sequential(*list(network.children())[:-1], nn.Flatten(), head).to(device).train()
    criterion, optimizer = NTXentLoss(), torch.optim.SGD(model.parameters(), lr=0.06)
    autocast = peer_precision(options, device)
    for views in loader(options, SimCLRTransform(input_size=options.size)):
        turns()
        with autocast():
            latents = [model(images.to(device)) for images in views]
        criterion(*(latent.float() for latent in latents)).backward()
        optimizer.step()
        optimizer.zero_grad()


class Crops(Dataset[Any]):
    """Crops in files, as it were: decoded by Pillow and transformed one by one, the same again
    after the last.
    """

    def __init__(self, options: Namespace, transform: Callable[[Any], Any]) -> None:
        self.files = [bytes(sample.members["jpg"]) for sample in ShardIndex(options.shards)]
        self.transform = transform
        self.length = options.batch * (steps_of(options) + 3 * options.workers)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, row: int) -> Any:
        from PIL import Image

        file = io.BytesIO(self.files[row % len(self.files)])
        return self.transform(Image.open(file).convert("RGB"))


def loader(options: Namespace, transform: Callable[[Any], Any], **pinned: bool) -> DataLoader[Any]:
    crops, fork = Crops(options, transform), "fork" if options.workers else None
    workers = {"num_workers": options.workers, "multiprocessing_context": fork}
    return DataLoader(crops, options.batch, shuffle=True, drop_last=True, **workers, **pinned)


def adamw(model: nn.Module, batch: int) -> torch.optim.Optimizer:
    return build_optimizer("adamw", parameter_groups([model], 1e-6), default_lr("adamw", batch))


def peer_precision(options: Namespace, device: torch.device) -> Autocast:
    return pick_precision(options.precision if device.type == "cuda" else "fp32", device)


def steps_of(options: Namespace) -> int:
    """At least as many steps as all rounds take."""
    return options.rounds * (options.warmup + options.steps) + 1
