"""$ handclr mine"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import choices, console, options
from ..contract.claims import Reads, Word, Writes
from ..contract.errors import UsageError
from ..contract.output import write_json

if TYPE_CHECKING:
    from ..similarity.mine_job import MineResult, MineSettings
    from ..similarity.quality import PairQuality

SAME_SHOWN = 10


def mine(
    pose: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="POSE.NPZ",
            help="Embeddings of handclr pca; several files are one pool; - is standard input.",
            show_default=False,
        ),
        Reads(".npz"),
    ] = None,
    output: options.OutputNpz = "-",
    top_k: Annotated[int, typer.Option(min=1, max=1000, help="Positives for each crop.")] = 1,
    distinct_videos: Annotated[
        bool,
        typer.Option(
            "--distinct-videos",
            help="At most one positive from each video, or each group of --exclude-by.",
        ),
    ] = False,
    max_distance: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER|PERCENT",
            help="Leave out positives farther away than this; 50% keeps those of the half of the "
            "crops whose positives are nearest.",
            show_default=False,
        ),
        Word(),
    ] = None,
    symmetric: Annotated[
        bool,
        typer.Option(
            "--symmetric", help="Keep a pair only if each is among the positives of the other."
        ),
    ] = False,
    exclude_by: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD|REGEX",
            help="Make no pairs within a group, such as a person or recording: a field of the JSON "
            "in --shards, or a regular expression on keys.",
            show_default=False,
        ),
        Word(),
    ] = None,
    near_duplicates: Annotated[
        choices.NearDuplicates | None,
        typer.Option(
            help="Find the same footage under two names. report: name it; exclude: and "
            "make no pairs of it.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="POSE.NPZ",
            help="Search for positives in these instead; a folder or a quoted pattern for many; "
            "may be repeated.",
            show_default=False,
        ),
        Reads(".npz"),
    ] = None,
    min_side_score: options.MinSideScore = 0.0,
    part: options.Part = None,
    engine: Annotated[
        choices.EngineName,
        typer.Option(help="hnsw is approximate; auto: hnsw where there is a graph, else exact."),
    ] = "auto",
    index: Annotated[
        str | None,
        typer.Option(
            metavar="HNSW",
            help="File of the graph for hnsw; built and written if it does not exist.",
            show_default=False,
        ),
        Writes("npz", once=True),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, max=options.INT32, help="CPU threads that search.", show_default="the cores"
        ),
    ] = None,
    sheet: Annotated[
        str | None,
        typer.Option(
            metavar="PNG",
            help="Draw crops beside their positives; needs --shards.",
            show_default=False,
        ),
        Writes("png"),
    ] = None,
    rank: Annotated[
        choices.RankName, typer.Option(help="Which pairs to draw, by their distance.")
    ] = "random",
    sheet_pairs: Annotated[int, typer.Option(min=1, max=400, help="How many pairs to draw.")] = 48,
    shards: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SHARDS",
            help="The crops, with --against those of its files too; may be repeated.",
            show_default=False,
        ),
        Reads(".tar"),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(metavar="PNG", help="Draw a histogram of the distances.", show_default=False),
        Writes("png"),
    ] = None,
    truth: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SHARDS",
            help="Measure the pairs by these shards with keypoints3d, matched by the square of "
            "the crop with --shards, else by key; may be repeated.",
            show_default=False,
        ),
        Reads(".tar"),
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

    handclr mine pose.npz --truth footage/truth --shards hands.tar -o pairs.npz
    """
    sources = options.sources(pose, ".npz")
    pools = options.sources(against, ".npz") if against else []
    crops = _crops(shards, sheet, exclude_by, bool(truth))
    truths = options.sources(truth) if truth else []
    options.read_once(*sources, *pools, *crops, *truths)
    if pools and pose and len(pose) > 1:
        why = f"takes one name, and {len(pose)} files follow; quote a pattern or name a folder"
        raise UsageError(why, setting="against")
    from ..similarity.mine_job import MineSettings, run_mine

    settings = MineSettings(
        pose=sources,
        output=output,
        top_k=top_k,
        distinct_videos=distinct_videos,
        max_distance=max_distance,
        symmetric=symmetric,
        exclude_by=exclude_by,
        near_duplicates=near_duplicates,
        against=pools,
        min_side_score=min_side_score,
        part=part,
        engine=engine,
        index=index,
        threads=threads,
        shards=crops,
        with_crops=sheet is not None,
        truth=truths,
        seed=seed,
    )
    _prepare_outputs(output, index=index, sheet=sheet, plot=plot, report=report)
    done = run_mine(settings)
    _say(done, bool(pools))
    if min_side_score:
        crops_left = console.plural(done.left_out, "crop")
        console.say(f"mine: {crops_left} of a doubtful side left out")
    if done.same_footage is not None:
        _say_same(done.same_footage, near_duplicates == "exclude")
    if done.truth:
        _say_quality(done.truth)
    if report:
        write_json(report, done.report())
    if plot:
        _draw_distances(done, plot)
    if sheet:
        _draw_sheet(done, sheet, rank, sheet_pairs, seed)
    if done.summary.without_positive:
        _end_without(done, settings)


def _crops(
    shards: Sequence[str] | None, sheet: str | None, exclude_by: str | None, truth: bool
) -> list[str]:
    """The shards of the crops, where something is to be read in them."""
    from ..contract.naming import is_field

    if sheet and not shards:
        raise UsageError("needs the crops; name them with --shards", setting="sheet")
    needed = sheet or truth or (exclude_by is not None and is_field(exclude_by))
    return options.sources(shards) if shards and needed else []


def _prepare_outputs(output: str, **beside: str | None) -> None:
    options.keep_stdout_for("pairs", **beside)
    options.prepare_output(output)
    options.prepare_files(output, *beside.values())


def _say(done: MineResult, elsewhere: bool) -> None:
    about = done.summary
    parts = [f"{about.without_positive:,} without a positive"]
    if about.distance["median"] is not None:
        low, middle, high = (about.distance[name] for name in ("p5", "median", "p95"))
        parts.append(f"distance 5% {low:.4f}, median {middle:.4f}, 95% {high:.4f}")
    if about.mutual is not None:
        parts.append(f"{about.mutual:.0%} mutual")
    if about.most_chosen_times:
        parts.append(f"one chosen {console.plural(about.most_chosen_times, 'time')}")
    if done.recall is None:
        parts.append(done.engine)
    else:
        parts.append(f"hnsw, recall {done.recall:.2%} of {done.recall_queries:,}")
    crops, videos = console.plural(about.queries, "crop"), console.plural(about.videos, "video")
    where = f" of {done.queries} against {about.pool:,} of {done.pool}" if elsewhere else ""
    console.say(f"mine: {crops} of {videos}{where}, {'; '.join(parts)}")


def _say_same(same: Sequence[dict[str, Any]], excluded: bool) -> None:
    line = f"mine: {console.plural(len(same), 'pair')} of videos show the same footage"
    if same and excluded:
        line += "; make no pairs"
    elif same:
        line += "; --near-duplicates exclude keeps them from pairing"
    console.say(line)
    for twin in sorted(same, key=lambda twin: twin["log10_chance"])[:SAME_SHOWN]:
        poses = f"{twin['coincident']} of {twin['crops']} different poses"
        console.say(f"mine: same footage: {twin['first']} and {twin['second']}, {poses}")


def _say_quality(known: PairQuality) -> None:
    counts = console.plural(len(known.rows), "crop")
    if len(known.rows) < known.pairs:
        counts = f"a sample of {counts} out of {known.pairs:,}"
    omitted = f"{known.without_truth:,} without truth"
    if known.unpaired:
        omitted += f", {known.unpaired:,} without a positive that has it"
    if not len(known.rows):
        console.say(f"mine: 3D truth: no pair to measure; {omitted}")
        return
    numbers, shown = known.report(), []
    for name in ("mined", "random", "best"):
        distance = numbers[f"{name}_mm"]
        shown.append(f"{name} {distance['mean']:.2f} (median {distance['median']:.2f})")
    where = f"mine: 3D distance in mm over {counts}, root-aligned"
    console.say(f"{where}: {', '.join(shown)}; {omitted}")


def _draw_distances(done: MineResult, path: str) -> None:
    from ..report.curves import distance_plot

    columns = done.pairs.distance.T[:5]
    distance_plot({f"rank {rank}": column for rank, column in enumerate(columns, 1)}, path)


def _draw_sheet(done: MineResult, path: str, rank: choices.RankName, count: int, seed: int) -> None:
    from ..report.pairs_page import pairs_page
    from ..report.sheets import write_png

    assert done.crops is not None
    write_png(path, pairs_page(done.pairs, done.crops, rank, count, seed))


def _end_without(done: MineResult, settings: MineSettings) -> None:
    """Say why crops have no positive; the exit code is 3 where they lack another video.

    A greatest distance, and mutual pairs alone, leave crops without one on purpose: nothing is said
    of these unless no pair is left.
    """
    from numpy import unique

    if done.alone:
        videos = len(unique(done.pairs.target_video))
        console.warn(f"{_counted(done.alone)} no positive: {_why_alone(videos, settings)}")
        raise typer.Exit(3)
    if (without := done.summary.without_positive) == done.summary.queries:
        console.warn(f"{_counted(without)} no positive: {_limits(settings)}")


def _counted(crops: int) -> str:
    return f"{console.plural(crops, 'crop')} {'has' if crops == 1 else 'have'}"


def _limits(settings: MineSettings) -> str:
    """Why limits that were asked for left no pair, and what to do."""
    if settings.max_distance is None:
        return "no two are among each other's; leave out --symmetric, or raise --top-k"
    return f"none is within --max-distance {settings.max_distance}; allow more"


def _why_alone(videos: int, settings: MineSettings) -> str:
    """Why crops have no other video to pair with, and what to do."""
    if videos > 1:
        joined = "--exclude-by" if settings.exclude_by else "--near-duplicates exclude"
        others = "add other people or recordings, or leave it out"
        return f"{joined} joins all {videos:,} videos; {others}"
    needed = "positives come from another video, and"
    if settings.against:
        return f"{needed} --against has crops of theirs only; name more pose files there"
    return (
        f"{needed} there is only one (a folder of images counts as one); add videos, cut a film of "
        "several recordings into a file for each, or name them with handclr pca --video-from; "
        "handclr pretrain --method simclr needs no pairs"
    )
