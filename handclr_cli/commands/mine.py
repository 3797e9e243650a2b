"""$ handclr mine"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from .. import console, options
from ..contract.errors import HandclrError, UsageError
from ..contract.inputs import STDIN, display_name, expand_inputs
from ..contract.npz import read_npz, write_npz
from ..contract.output import atomic_write
from ..contract.provenance import after, provenance

if TYPE_CHECKING:
    import numpy as np

    from ..similarity.quality import PairQuality


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
    truth: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SHARDS", help="Shards with keypoints3d of the crops; may be repeated.", show_default=False
        ),
    ] = None,
    truth_report: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Write what --truth says of the pairs.", show_default=False),
    ] = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Find the nearest pose in any other video for every crop.

    handclr mine pose.npz > pairs.npz

    handclr pca hands.tar | handclr mine -o pairs.npz

    With --truth, the 3D distance of a crop to its positive is given beside that to a random crop of another video
    and to the best one, over at most 2,000 crops drawn by --seed.

    handclr mine pose.npz --truth footage/truth -o pairs.npz
    """
    source, *more = expand_inputs([pose] if pose else [], ".npz")
    if more:
        raise UsageError(f"{pose}: {len(more) + 1} files; mine takes one pose file")
    if sheet and not shards:
        raise UsageError("--sheet needs the crops: name them with --shards")
    if truth_report and not truth:
        raise UsageError("--truth-report needs the true keypoints: name their shards with --truth")
    crops = expand_inputs(shards or []) if sheet else []
    truths = expand_inputs(truth) if truth else []
    if [source, *crops, *truths].count(STDIN) > 1:
        raise UsageError("standard input (-) can be read only once")
    options.prepare_output(output)
    import numpy as np

    from ..similarity.exact import mine_exact
    from ..similarity.quality import pair_quality

    arrays, origin = read_npz(source, "pose")
    keys, videos = arrays["key"], arrays["video_id"]
    if not len(keys):
        raise HandclrError(f"{display_name(source)}: no poses to mine")
    if not np.isfinite(arrays["embedding"]).all():
        raise HandclrError(f"{display_name(source)}: array 'embedding' holds values that are not finite")
    hands = _read_truth(truths, keys, display_name(source)) if truths else None
    with console.progress("mine", len(keys), "crops") as advance:
        positive, distance = mine_exact(arrays["embedding"], videos, top_k, advance)
    record = after(provenance("mine", {"top_k": top_k}, [source if source != STDIN else "-"]), [origin])
    write_npz(output, "pairs", {"key": keys, "positive": positive, "distance": distance}, record)
    if sheet:
        _draw_sheet(sheet, crops, keys, positive, distance, sheet_pairs, seed)
    quality = None if hands is None else pair_quality(hands, videos, positive[:, 0], seed=seed)
    if quality and truth_report:
        with atomic_write(truth_report) as file:
            file.write(json.dumps(quality.report(), indent=2).encode() + b"\n")
    alone = positive[:, 0] < 0
    found = distance[~alone, 0]
    quantiles = np.percentile(found, (5, 50, 95)) if len(found) else np.full(3, np.inf)
    console.say(
        f"mine: {console.plural(len(keys), 'crop')} of {console.plural(len(np.unique(videos)), 'video')}, "
        f"{int(alone.sum()):,} without a positive; distance "
        f"5% {quantiles[0]:.4f}, median {quantiles[1]:.4f}, 95% {quantiles[2]:.4f}"
    )
    if quality:
        _say_quality(quality)
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


def _read_truth(sources: list[str], keys: np.ndarray, pose: str) -> np.ndarray:
    """float32 (N, 21, 3) metres, NaN where a crop has no truth; raises HandclrError where none has."""
    import numpy as np

    from ..contract.fields import JOINTS, KEYPOINTS_3D
    from ..contract.index import ShardIndex

    names = display_name(sources[0]) + (f" and {len(sources) - 1:,} more" if len(sources) > 1 else "")
    index = ShardIndex(sources)
    hands = np.full((len(keys), JOINTS, 3), np.nan, np.float32)
    wanted = [key.decode("utf-8", "replace") for key in keys.tolist()]
    matching = [(row, key) for row, key in enumerate(wanted) if key in index]
    if not matching:
        raise HandclrError(f"--truth: no key in {names} is one of {pose}; is this the truth of the same footage?")
    for row, key in matching:
        sample = index[index.row(key)]
        if KEYPOINTS_3D in sample:
            hands[row] = sample.keypoints3d
    if np.isnan(hands).all():
        raise HandclrError(f"--truth: no sample in {names} has {KEYPOINTS_3D.suffix}; name shards with 3D labels")
    return hands


def _say_quality(quality: PairQuality) -> None:
    numbers = quality.report()
    counts = console.plural(len(quality.rows), "crop")
    if quality.sampled:
        counts = f"a sample of {counts} out of {quality.pool - quality.unpaired:,}"
    omitted = f"{quality.without_truth:,} without truth"
    if quality.unpaired:
        omitted += f", {quality.unpaired:,} without a positive that has it"
    if not len(quality.rows):
        console.say(f"mine: 3D truth: no pair to measure; {omitted}")
        return
    shown = ", ".join(
        f"{name} {numbers[f'{name}_mm']['mean']:.2f} (median {numbers[f'{name}_mm']['median']:.2f})"
        for name in ("mined", "random", "best")
    )
    console.say(f"mine: 3D distance in mm over {counts}, root-aligned: {shown}; {omitted}")
