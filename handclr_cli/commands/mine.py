"""$ handclr mine"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .. import console, options
from ..contract.errors import HandclrError, UsageError
from ..contract.inputs import STDIN, display_name, expand_inputs
from ..contract.npz import read_npz, write_npz
from ..contract.provenance import after, provenance

if TYPE_CHECKING:
    import numpy as np


def mine(
    pose: Annotated[
        str | None,
        typer.Argument(metavar="POSE.NPZ", help="Embeddings by handclr pca, or - for a pipe.", show_default=False),
    ] = None,
    output: options.OutputNpz = "-",
    top_k: Annotated[int, typer.Option(min=1, max=1000, help="Positives for each crop.")] = 1,
    sheet: Annotated[
        str | None,
        typer.Option(metavar="PNG", help="Draw crops beside their positives; needs --shards.", show_default=False),
    ] = None,
    shards: Annotated[
        list[str] | None,
        typer.Option(metavar="SHARDS", help="The crops for --sheet; may be repeated.", show_default=False),
    ] = None,
    sheet_pairs: Annotated[int, typer.Option(min=1, max=400, help="Pairs to draw.")] = 48,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Find the nearest pose in any other video for every crop.

    handclr mine pose.npz > pairs.npz

    handclr pca hands.tar | handclr mine -o pairs.npz
    """
    source, *more = expand_inputs([pose] if pose else [], ".npz")
    if more:
        raise UsageError(f"{pose}: {len(more) + 1} files; mine takes one pose file")
    if sheet and not shards:
        raise UsageError("--sheet needs the crops: name them with --shards")
    crops = expand_inputs(shards or []) if sheet else []
    if STDIN in crops and source == STDIN:
        raise UsageError("standard input (-) can be read only once")
    options.prepare_output(output)
    import numpy as np

    from ..similarity.exact import mine_exact

    arrays, origin = read_npz(source, "pose")
    keys, videos = arrays["key"], arrays["video_id"]
    if not len(keys):
        raise HandclrError(f"{display_name(source)}: no poses to mine")
    if not np.isfinite(arrays["embedding"]).all():
        raise HandclrError(f"{display_name(source)}: array 'embedding' holds values that are not finite")
    with console.progress("mine", len(keys), "crops") as advance:
        positive, distance = mine_exact(arrays["embedding"], videos, top_k, advance)
    record = after(provenance("mine", {"top_k": top_k}, [source if source != STDIN else "-"]), [origin])
    write_npz(output, "pairs", {"key": keys, "positive": positive, "distance": distance}, record)
    if sheet:
        _draw_sheet(sheet, crops, keys, positive, distance, sheet_pairs, seed)
    alone = positive[:, 0] < 0
    found = distance[~alone, 0]
    quantiles = np.percentile(found, (5, 50, 95)) if len(found) else np.full(3, np.inf)
    console.say(
        f"mine: {console.plural(len(keys), 'crop')} of {console.plural(len(np.unique(videos)), 'video')}, "
        f"{int(alone.sum()):,} without a positive; distance "
        f"5% {quantiles[0]:.4f}, median {quantiles[1]:.4f}, 95% {quantiles[2]:.4f}"
    )
    if alone.any():
        console.warn(f"{int(alone.sum()):,} crops have no positive: all crops are of one video, Eq. 1 needs another")
        raise typer.Exit(3)


def _draw_sheet(
    path: str,
    sources: list[str],
    keys: np.ndarray,
    positive: np.ndarray,
    distance: np.ndarray,
    count: int,
    seed: int,
) -> None:
    import numpy as np

    from ..contract.index import ShardIndex
    from ..report.sheets import Tile, pair_sheet, write_png

    index = ShardIndex(sources)

    def tile(row: int, apart: float | None = None) -> Tile:
        key = keys[row].decode()
        sample = index[index.row(key)]
        return Tile(sample.image, key if apart is None else f"d {apart:.4f}\n{key}", sample.keypoints2d)

    drawable = np.array([key.decode() in index for key in keys])
    rows = np.flatnonzero((positive[:, 0] >= 0) & drawable & drawable[positive[:, 0]])
    if not len(rows):
        raise HandclrError(f"--sheet: the crops in {', '.join(sources)} are not those of the pairs")
    chosen = np.sort(np.random.default_rng(seed).permutation(rows)[:count]).tolist()
    pairs = [[tile(row), tile(positive[row, 0], distance[row, 0])] for row in chosen]
    write_png(path, pair_sheet(pairs))
