"""$ handclr mine"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import console, options
from ..contract import numbering
from ..contract.errors import HandclrError, UsageError
from ..contract.inputs import STDIN, display_name, expand_inputs
from ..contract.npz import write_npz
from ..contract.output import atomic_write
from ..contract.provenance import after, provenance
from ..work import cores

if TYPE_CHECKING:
    import numpy as np

    from ..contract.poses import PoseTable
    from ..similarity.mining import Mined
    from ..similarity.pool import Engine
    from ..similarity.quality import PairQuality
    from ..similarity.summary import PairSummary

SAME_SHOWN = 10


def mine(
    pose: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="POSE.NPZ",
            help="Embeddings by handclr pca; several are one pool. - is a pipe.",
            show_default=False,
        ),
    ] = None,
    output: options.OutputNpz = "-",
    top_k: Annotated[int, typer.Option(min=1, max=1000, help="Positives for each crop.")] = 1,
    distinct_videos: Annotated[
        bool,
        typer.Option(
            "--distinct-videos",
            help="At most one positive of each video, or of those that --exclude-by joins.",
        ),
    ] = False,
    max_distance: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER|PERCENT",
            help=(
                "No positive farther than this; 50%: only those of the half of the crops that have"
                " the nearest."
            ),
            show_default=False,
        ),
    ] = None,
    symmetric: Annotated[
        bool,
        typer.Option("--symmetric", help="Keep a positive only where both are among each other's."),
    ] = False,
    exclude_by: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD|REGEX",
            help=(
                "No pairs within a person or recording: a field of the JSON in --shards, or a"
                " pattern on keys."
            ),
            show_default=False,
        ),
    ] = None,
    near_duplicates: Annotated[
        str | None,
        typer.Option(
            metavar="report|exclude",
            help="Find the same footage under two names; exclude: and let it make no pairs.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="POSE.NPZ",
            help="Search these instead; a folder or a quoted pattern for many; may be repeated.",
            show_default=False,
        ),
    ] = None,
    part: options.Part = None,
    engine: Annotated[
        str,
        typer.Option(
            help=(
                "exact-cpu, exact-gpu, hnsw (approximate), or auto: hnsw where there is a graph,"
                " else exact."
            )
        ),
    ] = "auto",
    index: Annotated[
        str | None,
        typer.Option(
            metavar="HNSW",
            help="Read the graph of hnsw from here; made where it is not.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Processor threads that search.", show_default="the cores"),
    ] = None,
    sheet: Annotated[
        str | None,
        typer.Option(
            metavar="PNG",
            help="Draw crops beside their positives; needs --shards.",
            show_default=False,
        ),
    ] = None,
    rank: Annotated[
        str, typer.Option(help="Pairs to draw: best, worst, random or quantiles.")
    ] = "random",
    sheet_pairs: Annotated[int, typer.Option(min=1, max=400, help="Pairs to draw.")] = 48,
    shards: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SHARDS",
            help="The crops, of the pool too; may be repeated.",
            show_default=False,
        ),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(metavar="PNG", help="Draw the distances' histogram.", show_default=False),
    ] = None,
    truth: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SHARDS",
            help="Shards with keypoints3d of the crops; may be repeated.",
            show_default=False,
        ),
    ] = None,
    report: options.Report = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Find the nearest pose in any other video for every crop.

    handclr mine pose.npz > pairs.npz

    handclr pca hands.tar | handclr mine -o pairs.npz

    handclr pca --basis pose.npz new.tar | handclr mine --against pose.npz > new-pairs.npz

    With --truth, the 3D distance of a crop to its positive is given beside that to a random crop of
    another video and to the best one, over at most 2,000 crops drawn by --seed.

    handclr mine pose.npz --truth footage/truth -o pairs.npz
    """
    import numpy as np

    from ..contract.index import ShardIndex
    from ..contract.pairs import Pairs
    from ..contract.poses import PoseTable, all_rows
    from ..report.curves import distance_plot
    from ..report.pairs_page import RANKS, pairs_page
    from ..report.sheets import write_png
    from ..similarity import exclusion, mining, pool, quality, summary

    options.choose("--engine", engine, pool.ENGINES)
    options.choose("--rank", rank, RANKS)
    options.choose("--near-duplicates", near_duplicates or "report", ("report", "exclude"))
    field = exclude_by if exclude_by is not None and exclusion.is_field(exclude_by) else None
    sources = expand_inputs(pose or [], ".npz")
    pools = expand_inputs(against, ".npz") if against else []
    crops = _crops(shards, {"--sheet": sheet, f"--exclude-by {field}, a field,": field})
    truths = expand_inputs(truth) if truth else []
    if [*sources, *pools, *crops, *truths].count(STDIN) > 1:
        raise UsageError("standard input (-) can be read only once")
    _refuse(pose or [], sources, bool(pools), symmetric, part, near_duplicates)
    farthest, share = _ceiling(max_distance, part)
    _check_outputs(output, {"--index": index, "--sheet": sheet, "--plot": plot, "--report": report})

    queries = PoseTable(sources)
    against_table = PoseTable(pools, like=queries) if pools else queries
    span = numbering.part_of(part, len(queries))
    keys, videos, rows = all_rows(queries, against_table)
    pictures = ShardIndex(crops) if crops else None
    if sheet and pictures:
        place = pictures.rows_of(keys)
        if (place[rows] < 0).all() or (place[: len(against_table)] < 0).all():
            raise HandclrError(
                f"--sheet: the crops are not in {display_name(crops[0])}; name the shards of all"
            )
    hands = (
        quality.true_hands(ShardIndex(truths), keys, display_name(truths[0])) if truths else None
    )
    graph = _read_graph(index, engine, queries, against_table)
    name = pool.choose_engine(
        engine, len(against_table), span.stop - span.start, bool(index or graph)
    )
    if name == "hnsw" and top_k > pool.HNSW_TOP_K:
        raise UsageError(
            f"--engine hnsw finds at most {pool.HNSW_TOP_K} positives; --top-k {top_k} needs"
            " exact-cpu"
        )
    how = pool.Engine(name, threads or cores.cores(), seed=seed)
    progress = partial(console.progress, unit="crops")
    one_each = np.arange(len(queries.names), dtype=np.int32)
    searched = pool.Pool(against_table, one_each, how, progress, graph, index or against_table.name)
    if index and not os.path.exists(index):
        record = after(
            provenance("mine", {"engine": "hnsw"}, pools or sources, seed=seed),
            against_table.origins,
        )
        write_npz(index, "pose", {**against_table.arrays(), **(searched.graph() or {})}, record)

    twins = mining.same_footage(queries, searched) if near_duplicates else []
    together = [(twin.first, twin.second) for twin in twins] if near_duplicates == "exclude" else []
    if field and pictures:
        together += exclusion.by_field(
            field, pictures, queries.names, partial(_warn_missing, field)
        )
    elif exclude_by is not None:
        together += exclusion.by_key(exclude_by, keys.tolist(), videos.tolist())
    groups = exclusion.joined(len(one_each), together)
    if together:
        searched = searched.regrouped(groups)
    mined = mining.mine(
        queries, span, searched, pool.Request(top_k, distinct_videos, farthest), symmetric, seed
    )
    mined = mined.nearest(share)

    arguments = {
        "top_k": top_k,
        "distinct_videos": distinct_videos,
        "max_distance": farthest if math.isfinite(farthest) else max_distance,
        "symmetric": symmetric,
        "exclude_by": exclude_by,
        "exclude_near_duplicates": near_duplicates == "exclude",
        "part": part,
        "engine": name.partition("-")[0],
    }
    origins = queries.origins + (against_table.origins if pools else [])
    size, asked = len(against_table), rows[span]
    pairs = Pairs(
        keys[asked], videos[asked], keys[:size], videos[:size], mined.positive, mined.distance
    )
    record = after(provenance("mine", arguments, [*sources, *pools]), origins)
    write_npz(output, "pairs", pairs.arrays(elsewhere=bool(pools) or part is not None), record)

    about = summary.summarise(
        mined.positive, mined.distance, None if pools else asked, pairs.video, size
    )
    known = None
    if hands is not None:
        known = quality.pair_quality(
            hands, groups[videos], asked, mined.positive[:, 0], size, seed=seed
        )
    names = [video.decode("utf-8", "replace") for video in queries.names]
    same = [
        {**asdict(twin), "first": names[twin.first], "second": names[twin.second]} for twin in twins
    ]
    _say(
        about,
        mined,
        how,
        f" of {queries.name} against {size:,} of {against_table.name}" if pools else "",
    )
    if near_duplicates:
        _say_same(same, near_duplicates)
    if known:
        _say_quality(known)
    if report:
        found = {
            **about.report(),
            "engine": name,
            "recall": mined.recall,
            "left_to_tree": searched.left_to_tree(),
        }
        found |= {
            "near_duplicates": same if near_duplicates else None,
            "truth": known.report() if known else None,
        }
        with atomic_write(report) as file:
            file.write(json.dumps(found, indent=2).encode() + b"\n")
    if plot:
        distance_plot(
            {f"rank {number + 1}": column for number, column in enumerate(mined.distance.T[:5])},
            plot,
        )
    if sheet and pictures:
        write_png(
            sheet, pairs_page(pairs, pictures, place[asked], place[:size], rank, sheet_pairs, seed)
        )
    if about.without_positive and max_distance is None and not symmetric:
        count, has = (
            console.plural(about.without_positive, "crop"),
            ("has" if about.without_positive == 1 else "have"),
        )
        console.warn(
            f"{count} {has} no positive: no other video is left to pair with, and Eq. 1 needs one"
        )
        raise typer.Exit(3)


def _refuse(
    pose: list[str],
    sources: list[str],
    against: bool,
    symmetric: bool,
    part: str | None,
    near_duplicates: str | None,
) -> None:
    """Raise UsageError where options contradict each other."""
    if against and len(pose) > 1:
        raise UsageError(
            f"--against takes one name, and {len(pose)} files follow; quote a pattern or name a"
            " folder"
        )
    if against and symmetric:
        raise UsageError(
            "--symmetric needs the queries in the pool; name all files without --against"
        )
    if part is not None and STDIN in sources:
        raise UsageError("--part needs files: each part reads all of them")
    if part is not None and near_duplicates:
        raise UsageError("--near-duplicates needs all crops in one run, without --part")


def _ceiling(asked: str | None, part: str | None) -> tuple[float, float]:
    """The greatest distance, and the share of the crops that keep a positive."""
    if asked is None:
        return math.inf, 1.0
    number, share = asked.removesuffix("%"), asked.endswith("%")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not (0 < value <= 100 if share else value >= 0):
        raise UsageError(
            f"--max-distance {asked}: neither a distance such as 0.3 nor a share of the crops such"
            " as 50%"
        )
    if not share:
        return value, 1.0
    if part is not None:
        raise UsageError(
            f"--max-distance {asked} needs all crops in one run, without --part; a distance"
            " does not"
        )
    return math.inf, value / 100


def _check_outputs(output: str, beside: dict[str, str | None]) -> None:
    for option, path in beside.items():
        if path == STDIN:
            raise UsageError(f"{option} -: standard output is for the pairs; name a file")
    options.prepare_output(output)
    options.prepare_files(output, *beside.values())


def _warn_missing(field: str, videos: int) -> None:
    console.warn(
        f"--exclude-by {field}: {console.plural(videos, 'video')} without it in the shards: kept"
        " apart by video only"
    )


def _crops(shards: list[str] | None, needed_by: dict[str, object]) -> list[str]:
    """The shards of the crops, where an option needs them."""
    for option, asked in needed_by.items():
        if asked and not shards:
            raise UsageError(f"{option} needs the crops: name them with --shards")
    return expand_inputs(shards or []) if any(needed_by.values()) else []


def _read_graph(
    index: str | None, engine: str, queries: PoseTable, pool: PoseTable
) -> dict[str, np.ndarray] | None:
    """The graph in the file of --index, where it is there, else the pool's own; none for an exact
    engine.
    """
    if engine not in ("auto", "hnsw"):
        if index:
            raise UsageError(f"--index is for --engine hnsw, not {engine}")
        return None
    if index is None or not os.path.exists(index):
        return pool.graph()
    from ..contract.poses import PoseTable

    graph = PoseTable([index], like=queries).graph()
    if graph is None:
        raise HandclrError(
            f"{index}: has no graph; name a file that is not there, or one made by --index"
        )
    return graph


def _say(about: PairSummary, mined: Mined, how: Engine, where: str) -> None:
    parts = [f"{about.without_positive:,} without a positive"]
    shown = {
        "5%": about.distance["p5"],
        "median": about.distance["median"],
        "95%": about.distance["p95"],
    }
    if spread := ", ".join(
        f"{name} {value:.4f}" for name, value in shown.items() if value is not None
    ):
        parts.append(f"distance {spread}")
    if about.mutual is not None:
        parts.append(f"{about.mutual:.0%} mutual")
    parts.append(f"one chosen {console.plural(about.most_chosen_times, 'time')}")
    parts.append(
        how.name
        if mined.recall is None
        else f"hnsw, recall {mined.recall:.2%} of {mined.recall_queries:,}"
    )
    crops, videos = console.plural(about.queries, "crop"), console.plural(about.videos, "video")
    console.say(f"mine: {crops} of {videos}{where}, {'; '.join(parts)}")


def _say_same(same: list[dict[str, Any]], near_duplicates: str) -> None:
    done = (
        "make no pairs"
        if near_duplicates == "exclude"
        else "--near-duplicates exclude keeps them from pairing"
    )
    console.say(
        f"mine: {console.plural(len(same), 'pair')} of videos show the same footage"
        + f"; {done}" * bool(same)
    )
    for twin in sorted(same, key=lambda twin: twin["log10_chance"])[:SAME_SHOWN]:
        poses = f"{twin['coincident']} of {twin['crops']} different poses"
        console.say(f"mine: same footage: {twin['first']} and {twin['second']}, {poses}")


def _say_quality(known: PairQuality) -> None:
    numbers = known.report()
    counts = console.plural(len(known.rows), "crop")
    if len(known.rows) < known.pairs:
        counts = f"a sample of {counts} out of {known.pairs:,}"
    omitted = f"{known.without_truth:,} without truth"
    if known.unpaired:
        omitted += f", {known.unpaired:,} without a positive that has it"
    if not len(known.rows):
        console.say(f"mine: 3D truth: no pair to measure; {omitted}")
        return
    shown = ", ".join(
        f"{name} {numbers[f'{name}_mm']['mean']:.2f} (median {numbers[f'{name}_mm']['median']:.2f})"
        for name in ("mined", "random", "best")
    )
    console.say(f"mine: 3D distance in mm over {counts}, root-aligned: {shown}; {omitted}")
