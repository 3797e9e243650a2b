"""$ handclr extract"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from .. import console, options
from ..contract import numbering
from ..contract.errors import HandclrError, UsageError
from ..contract.inputs import STDIN
from ..contract.numbering import is_numbered, shards_of
from ..contract.provenance import file_checksum, provenance
from ..contract.sample import Sample
from ..contract.units import INPUTS, TOTAL, Unit, Units, UnitWriter, write_nothing
from ..work import cores

if TYPE_CHECKING:
    from ..footage.extraction import Skipped
    from ..footage.video import Piece

LOST = "worker process lost"
# As many inputs of one reason are named; shards name all.
_NAMED = 20
# With fewer frames, starting another process takes longer than it saves.
_FRAMES_PER_WORKER = 100
# What MediaPipe leaks in so many frames is little, and starting anew costs less than a percent of
# them.
_FRAMES_PER_PROCESS = 20_000


def extract(
    footage: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FOOTAGE",
            help="Videos, images, folders of them, searched in depth, or globs.",
            show_default=False,
        ),
    ] = None,
    output: options.OutputTar = "-",
    fps: Annotated[
        float | None,
        typer.Option(min=0.001, help="Frames to look at per second of video.", show_default="1.0"),
    ] = None,
    every: Annotated[
        int | None,
        typer.Option(min=1, help="Look at every N-th frame or image instead.", show_default=False),
    ] = None,
    size: options.CropSize = 224,
    margin: options.Margin = 1.5,
    min_score: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Least confidence of a hand.")
    ] = 0.5,
    max_hands: Annotated[int, typer.Option(min=1, help="Hands to find in a frame at most.")] = 2,
    balance: Annotated[
        bool,
        typer.Option("--balance", help="As many left as right hands in a shard, drawn by --seed."),
    ] = False,
    with_keypoints: Annotated[
        bool,
        typer.Option(
            "--with-keypoints", help="Keep the keypoints found in the frame, mapped into the crop."
        ),
    ] = False,
    detections: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Boxes of another detector, CSV or JSON lines.", show_default=False
        ),
    ] = None,
    quality: options.Quality = 95,
    landmarker: options.Landmarker = None,
    workers: options.Finders = None,
    part: options.Part = None,
    skip_done: Annotated[
        str | None,
        typer.Option(
            metavar="SHARDS",
            help="Leave out what the end of the pipe has made: hands-%06d.tar.",
            show_default=False,
        ),
    ] = None,
    dry_run: options.DryRun = False,
    shard_size: Annotated[int, typer.Option(min=1, help="Frames looked at per numbered shard.")] = (
        numbering.SHARD_SIZE
    ),
    overwrite: options.Overwrite = False,
    strict: options.Strict = False,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Find hands in footage and crop them, all as right hands.

    handclr extract videos/ | handclr keypoints > hands.tar

    handclr extract --fps 2 -o crops-%06d.tar videos/*.mp4
    """
    if not footage:
        raise UsageError("no footage: name videos, images, or folders of them")
    named = is_numbered(output) or bool(skip_done)
    in_units = named or (output == STDIN and bool(part))
    if (part and not in_units) or (dry_run and not named):
        raise UsageError(
            "--part and --dry-run need numbered shards: -o crops-%06d.tar, or --skip-done and a"
            " pipe"
        )
    if skip_done and output != STDIN:
        raise UsageError(
            "--skip-done: is for a pipe; with -o, finished shards are left out in any case"
        )
    if detections and (with_keypoints or every or fps):
        raise UsageError(
            "--detections: say which frames and have no keypoints; leave out --fps, --every,"
            " --with-keypoints"
        )
    if fps and every:
        raise UsageError("--fps counts by time and --every by frames; leave one out")
    fps = fps or 1.0
    if detections == STDIN and in_units:
        raise UsageError(
            "--detections -: shards are to tell what they were made of; write the boxes to a file"
        )
    if not dry_run:
        options.prepare_output(output)
    record = provenance(
        "extract",
        options.arguments(
            locals(),
            *(
                "fps",
                "every",
                "size",
                "margin",
                "min_score",
                "max_hands",
                "balance",
                "with_keypoints",
                "quality",
            ),
        ),
        footage,
        seed=seed,
    )
    console.silence_native_libraries()
    from ..footage.extraction import CropSettings, Extraction
    from ..footage.model_file import checksums, model_file
    from ..footage.plan import pieces_of, units_of
    from ..footage.video import Sampling, find_footage
    from ..work.crew import Crew

    items = find_footage(footage)
    settings = CropSettings(size, margin, min_score, quality, with_keypoints)
    boxes, model = None, None
    if detections:
        from ..footage.detections import boxes_of, read_detections

        boxes = boxes_of(read_detections(detections), items, console.warn, min_score)
        items = [item for item in items if item.id in boxes]
        record["detections"] = {} if detections == STDIN else file_checksum(detections)
    else:
        model = model_file(landmarker, console.say)
        record["model"] = checksums(model)
    sampling = Sampling(fps, every)
    work = Extraction(sampling, settings, model, max_hands)
    with Crew(work, workers or 0, _FRAMES_PER_PROCESS) as crew:
        if not dry_run and not (named and shards_of(skip_done or output)):
            # Processes that were asked for get ready while the footage is opened; a job that goes
            # on may be finished.
            crew.hire(len(items))
        stretches, frames = pieces_of(items, sampling, boxes)
        parts = units_of(stretches, frames, shard_size if in_units else None)
        units = Units(output, record, parts, overwrite, skip_done)
        mine = numbering.part_of(part, len(units.units))
        chosen, todo = units.units[mine], units.missing(mine)
        if dry_run:
            lacking = [skip_done % unit.number if skip_done else unit.path for unit in todo]
            options.list_missing("extract", lacking, len(chosen))
            return
        rows = [row for unit in todo for row in unit.rows]
        total = sum(frames[row] for row in rows)
        crew.workers = cores.finder_count(workers, total, _FRAMES_PER_WORKER)
        with console.progress("extract", total, "frames") as advance:
            answers = crew.answers((stretches[row] for row in rows), [frames[row] for row in rows])
            job = _Job(units, answers, advance, strict, balance, seed)
            for unit in todo:
                job.write(unit)
        if output == STDIN and not todo:
            write_nothing(record)
    job.conclude(chosen)


class _Job:
    """Makes the units that are missing, counts what became of the footage, and says so."""

    def __init__(
        self,
        units: Units,
        answers: Iterator[tuple[Piece, Iterator[list[Sample] | Skipped]]],
        advance: console.Advance,
        strict: bool,
        balance: bool,
        seed: int,
    ) -> None:
        self.units, self.answers, self.advance = units, answers, advance
        self.strict, self.balance, self.seed = strict, balance, seed
        self.counts: Counter[str] = Counter()
        self.named: Counter[str] = Counter()
        self.lost: list[Unit] = []
        self.crops = 0

    def write(self, unit: Unit) -> None:
        """Write one shard; the answers come in the order of the units."""
        from ..footage.extraction import balanced

        with self.units.write(unit) as writer:
            samples = self._samples(unit, writer)
            for sample in balanced(samples, self.seed) if self.balance else samples:
                writer.counts[sample.info["hand"]] += 1
                writer.write(sample)
            if not self.units.resumable and writer.skipped and not writer.counts["frames"]:
                raise HandclrError("none of the footage can be read; nothing was written")
        self.counts += writer.counts

    def _samples(self, unit: Unit, writer: UnitWriter) -> Iterator[Sample]:
        """The crops of a unit; frames and what was skipped are counted on the way."""
        from ..footage.extraction import Skipped
        from ..work.crew import WorkerLostError

        for _ in unit.rows:
            piece, looks = next(self.answers)
            before = writer.counts["frames"]
            try:
                for look in looks:
                    if isinstance(look, Skipped):
                        self._skip(look, writer)
                        continue
                    writer.counts["frames"] += 1
                    writer.counts["no hand"] += not look
                    self.advance(1, crops=self.crops)
                    self.crops += len(look)
                    yield from look
            except WorkerLostError as error:
                self._skip(
                    Skipped(f"{piece.footage.files[0]}: {error}", piece.footage.name, LOST), writer
                )
                self.lost.append(unit)
            # A video counts where it begins.
            writer.counts["videos"] += piece.start == 0 and writer.counts["frames"] > before

    def _skip(self, skipped: Skipped, writer: UnitWriter) -> None:
        if self.strict:
            raise HandclrError(skipped.line)
        writer.counts[skipped.reason] += 1
        writer.skipped.append(f"{skipped.name}: {skipped.reason}")
        self.named[skipped.reason] += 1
        if self.named[skipped.reason] <= _NAMED:
            more = (
                "; more of these are only counted" if self.named[skipped.reason] == _NAMED else ""
            )
            console.warn(f"{skipped.line}; skipped{more}")

    def conclude(self, chosen: list[Unit]) -> None:
        """Say what was done, and exit with 3 where footage was skipped, now or by an
        earlier run.
        """
        there = [unit for unit in chosen if self.units.done(unit)]
        total = self.counts
        for unit in there:
            counts = self.units.counts(unit)
            total += counts
            if counts[LOST]:
                self.lost.append(unit)
        del total[TOTAL]
        left, right = total["left"], total["right"]
        skipped = {reason: count for reason, count in total.items() if reason not in INPUTS}
        words = [
            f"extract: {console.plural(total['frames'], 'frame')} of"
            f" {console.plural(total['videos'], 'video')}, {console.plural(left + right, 'crop')}"
            f" ({left:,} left, {right:,} right), {total['no hand']:,} frames without a hand,"
            f" {sum(skipped.values()):,} inputs skipped"
        ]
        if there:
            words.append(f"{len(there):,} of {console.plural(len(chosen), 'shard')} there already")
        console.say("; ".join(words))
        if chosen and not left + right:
            console.warn(
                "--balance: all hands are of one side; the output holds no crops"
                if self.balance and total["frames"] > total["no hand"]
                else "no hand was found; the output holds no crops"
            )
        if self.lost and self.units.resumable:
            names = ", ".join(unit.path for unit in self.lost)
            console.warn(
                f"footage was lost with the process that worked on it; remove {names} to have it"
                " tried again"
            )
        options.skipped_exit(sum(skipped.values()))
