"""What undoing the geometry of views in latent space can reach: of an encoder whose latents are the
keypoints that it sees, and so are moved as the view is.

    python tests/benchmarks/study/undoing.py hands.tar --pairs pairs.npz

For batches of views of crops, drawn as pre-training draws them: how often the other view is the
most similar of the batch (top1), how similar the two views are, and how similar views of different
crops are (cosines), for each way of undoing; of the crops themselves (PeCLR), and with the mined
positive in place of the second one (HandCLR). Nothing is trained.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from handclr_cli.choices import Undo
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.inputs import expand_inputs
from handclr_cli.contract.npz import read_npz
from handclr_cli.learning.augmentation import AugmentationConfig
from handclr_cli.learning.hardware import ViewsMade
from handclr_cli.learning.losses import nt_xent
from handclr_cli.learning.positives import Positives, mined, own
from handclr_cli.learning.pretraining import CHOICES, undo
from handclr_cli.learning.store import CropStore
from handclr_cli.learning.views import PairDataset, Views, collate_views

SIDE = 64


def main() -> None:
    options = parse()
    index = ShardIndex(expand_inputs(options.shards), measured=True)
    positives = {"the crop itself": own(index)}
    if options.pairs:
        positives["mined"] = mined(index, [read_npz(options.pairs, "pairs")[0]])
    print("| positives | views | undone | top1 | cosine of the two | of others |")
    print("|---|---|---|--:|--:|--:|")
    for name, pool in positives.items():
        for rotation in (0.0, 45.0):
            batches = list(drawn(CropStore(index, SIDE), pool, rotation, options))
            for how in CHOICES["undo"]:
                if how != "raw-extent":  # differs in its gradient alone
                    numbers = np.mean([told(batch, how) for batch in batches], axis=0)
                    turned = "turned" if rotation else "not turned"
                    top1, positive, negative = numbers
                    shown = f"{top1:.0%} | {positive:.2f} | {negative:.2f} |"
                    print(f"| {name} | {turned} | {how} | {shown}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shards", nargs="+", help="crops with keypoints")
    parser.add_argument("--pairs", help="pairs mined of them")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def drawn(
    store: CropStore, pool: Positives, rotation: float, options: argparse.Namespace
) -> Iterator[Views]:
    """Batches of views without their images, with the keypoints seen in them."""
    config, made = AugmentationConfig(size=SIDE, rotation=rotation), ViewsMade.FROM_CACHE
    data = PairDataset(store, pool, config, options.seed, made, posed="view")
    rows = np.random.default_rng(options.seed).permutation(len(pool)).tolist()
    for number in range(min(options.batches, len(rows) // options.batch)):
        part = rows[number * options.batch : (number + 1) * options.batch]
        yield collate_views([data[0, row] for row in part])


def told(views: Views, how: Undo) -> tuple[float, float, float]:
    """Of one batch: top1, and the mean cosines of positives and of all others."""
    assert views.joints is not None
    # As a projection head could have them: about the middle of the view, but for units of the crop.
    latent = (views.joints if how == "crop" else views.joints - 0.5).flatten(2)
    z1, z2 = undo(latent, views.geometry, how)
    top1 = nt_xent(z1, z2, views.rows[0], views.rows[1]).top1
    cosines = cosine(z1, z2)
    count = len(cosines)
    others = (cosines.sum() - cosines.trace()) / (count * (count - 1))
    return float(top1), float(cosines.trace() / count), float(others)


def cosine(z1: Tensor, z2: Tensor) -> Tensor:
    return F.normalize(z1, dim=1) @ F.normalize(z2, dim=1).T


if __name__ == "__main__":
    with torch.no_grad():
        main()
