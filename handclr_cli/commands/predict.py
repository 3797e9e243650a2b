"""$ handclr predict"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .. import choices, console, options
from ..contract.claims import Reads, Writes
from ..contract.errors import UsageError
from ..contract.inputs import STDIN
from ..contract.shipped import SHIPPED

if TYPE_CHECKING:
    from ..prediction.films import Drawn
    from ..prediction.predict_job import PredictResult
    from ..prediction.settings import PredictSettings


def predict(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUTS",
            help="Videos, images, folders of them, or globs; or shards of crops, as tar files, "
            "folders, {000..041} ranges or - for standard input.",
            show_default=False,
        ),
        Reads(".tar", deep=True),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="FILE",
            help="handclr is the bundled model, mediapipe MediaPipe's 3D landmarks; or a "
            "model.pt of handclr finetune.",
        ),
        options.MODEL,
    ] = SHIPPED,
    alone: options.Alone = False,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Table to write, a .csv, .jsonl or .npz; - is standard output.",
            show_default="-",
        ),
        Writes("table"),
    ] = None,
    form: Annotated[
        choices.TableFormat | None,
        typer.Option(
            "--format",
            help="Format of the table.",
            show_default="by the suffix; npz to standard output",
        ),
    ] = None,
    overlay: Annotated[
        str | None,
        typer.Option(
            metavar="MP4",
            help="Draw the hands on the footage; of several videos, a folder or {video}.mp4.",
            show_default=False,
        ),
        Writes("film"),
    ] = None,
    page: Annotated[
        str | None,
        typer.Option(
            metavar="HTML",
            help="Show film and hands in 3D; of several videos, a folder or {video}.html.",
            show_default=False,
        ),
        Writes("html"),
    ] = None,
    smooth: Annotated[
        bool, typer.Option("--smooth", help="Filter each hand's track over time.")
    ] = False,
    fov: Annotated[
        float,
        typer.Option(
            min=1.0,
            max=170.0,
            help="Angle of view in degrees across the longer side, where intrinsics are unknown.",
        ),
    ] = 60.0,
    bone: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            metavar="MM",
            help="Length from wrist to middle knuckle in mm, as measured on the hand.",
            show_default="as the model has it",
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Frames to look at per second of video.",
            show_default="every frame",
        ),
    ] = None,
    every: Annotated[
        int | None,
        typer.Option(min=1, help="Look at every N-th frame or image.", show_default=False),
    ] = None,
    max_hands: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=options.INT32,
            help="Maximum number of hands in a frame.",
            show_default="2",
        ),
    ] = None,
    look: Annotated[
        choices.LookName | None,
        typer.Option(help="Where to look for hands, as of handclr extract.", show_default="tiles"),
    ] = None,
    min_score: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Minimum confidence of a hand.")
    ] = 0.5,
    footage: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            help="Where the footage of shards is, if not where extract read it.",
            show_default=False,
        ),
        Reads(deep=True),
    ] = None,
    onnx: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Export the model as ONNX, and check it on these crops.",
            show_default=False,
        ),
        Writes("onnx"),
    ] = None,
    landmarker: options.Landmarker = None,
    batch: Annotated[int, typer.Option(min=1, help="Crops in a batch.")] = 128,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Processes that find hands or decode crops; 0: in this process.",
            show_default="the cores",
        ),
    ] = None,
    device: options.Device = "auto",
    strict: options.Strict = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Predict the 3D pose of each hand, in footage or in crops.

    handclr predict clip.mp4 -o poses.csv --overlay hands.mp4 --page hands.html

    handclr predict videos/ --format jsonl | jq .hand

    handclr extract new.mp4 | handclr predict - --model model.pt > predictions.npz

    handclr predict crops.tar --model model.pt --onnx model.onnx -o predictions.npz
    """
    output = _output(output, form, bool(overlay or page))
    options.prepare_files(output, onnx, overlay, page)
    console.silence_native_libraries()
    from ..prediction.predict_job import about_lines, run_predict
    from ..prediction.settings import PredictSettings

    settings = PredictSettings(
        inputs=inputs or (),
        model=model,
        alone=alone,
        output=output,
        form=form,
        overlay=overlay,
        page=page,
        smooth=smooth,
        fov=fov,
        bone=bone,
        fps=fps,
        every=every,
        max_hands=max_hands,
        look=look,
        min_score=min_score,
        footage=footage or (),
        onnx=onnx,
        landmarker=landmarker,
        batch=batch,
        workers=workers,
        device=device,
        strict=strict,
    )
    done = run_predict(settings)
    console.say(f"predict: {_hands(done)}")
    console.say(f"predict: {'; '.join(f'{name}: {text}' for name, text in about_lines(done, fov))}")
    if not done.hands:
        _warn_of_nothing(done, settings)
    for film in done.films:
        _say_film(film)
    options.skipped_exit(done.skipped)


def _output(named: str | None, form: choices.TableFormat | None, is_shown: bool) -> str | None:
    """Where the table goes: nowhere if standard output is a terminal and hands are shown."""
    if named not in (None, STDIN):
        return named
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    if is_terminal and named is None and is_shown:
        return None
    if is_terminal and form in (None, "npz"):
        why = "refusing to write binary data to the terminal; name a file, such as -o poses.csv"
        raise UsageError(f"{why}, --overlay hands.mp4 or --page hands.html")
    options.need_stdout()
    return STDIN


def _hands(done: PredictResult) -> str:
    """How many hands were predicted, and of footage, how fast."""
    left, right = done.hands["left"], done.hands["right"]
    said = f"{console.plural(done.hands.total(), 'hand')} ({left:,} left, {right:,} right)"
    if done.tracks:
        said += f" in {console.plural(done.tracks, 'track')}"
    if done.without_hand:
        said += f", {done.without_hand:,} crops without a hand"
    said += f", {done.skipped:,} skipped"
    if done.pace is None:
        return said
    videos, frames, seconds, processes = done.pace
    looked = f"{console.plural(frames, 'frame')} of {console.plural(videos, 'video')}"
    pace = f"{frames / max(seconds, 1e-9):.1f} frames a second in {_processes(processes)}"
    return f"{looked}, {said}; {pace}"


def _warn_of_nothing(done: PredictResult, settings: PredictSettings) -> None:
    """Warn that the output holds no hands."""
    if done.pace:
        every = settings.every if settings.every or settings.fps else 1
        options.warn_of_no_hand("hands", settings.min_score, every, settings.look or "tiles")
    elif done.without_hand:
        console.warn("no hand was found in the crops; the output holds no hands")
    else:
        nothing = "the input holds no crops; the output holds no hands"
        console.warn(f"{nothing}; did handclr extract find a hand?")


def _processes(count: int) -> str:
    return f"{count} process{'es' if count > 1 else ''}"


def _say_film(film: Drawn) -> None:
    """What is on an overlay or page, and what is not."""
    said = f"{console.plural(film.frames, 'frame')}, {console.plural(film.hands, 'hand')}"
    console.say(f"predict: {' and '.join(film.paths)}, {said}")
    if film.hands < film.known:
        lost = console.plural(film.known - film.hands, "hand")
        console.warn(f"{film.source}: has no frames of {lost}")
