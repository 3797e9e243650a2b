"""How fast extract is for each way of looking, beside a plain loop that looks as often.

    python tests/benchmarks/looks.py videos/ --fps 5 --copies 2 --rounds 3 --json looks.json

First extract's own code goes over the footage once in this process, and it is noted where it looks
in each frame, which crops it looks at again, and which it cuts. Then the contestants take turns,
each a command of its own that is timed from start to end:

looking: a loop of cv2.VideoCapture.grab, .retrieve of the sampled frames, and for each square that
was noted a cut, cv2.copyMakeBorder, cv2.resize where extract shrinks, and HandLandmarker.detect. As
many of these at once as there are workers, each on one thread, each over all the footage: their sum
is the limit. It neither decides where to look, nor joins what it finds.
cropping: the same, and each loop cuts and encodes the crops, which extract cannot leave out.
handclr: `extract --look ...`.

Films only, each of a name of its own, none longer than five minutes.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from extraction import HANDCLR, copies, detector, print_shares, seconds

WAYS = ("once", "border", "tiles")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("footage", nargs="+", type=Path)
    parser.add_argument("--looks", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--fps", type=float, default=5.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--copies", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write all numbers")
    parser.add_argument("--loop", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--crops", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop:
        print(loop(options))
        return
    with tempfile.TemporaryDirectory() as folder:
        told = {look: compared(options, look, Path(folder) / look) for look in options.looks}
    if options.json:
        options.json.write_text(json.dumps(told, indent=2) + "\n")


def compared(
    options: argparse.Namespace, look: str, folder: Path
) -> dict[str, dict[str, list[float]]]:
    """Let the contestants take turns over the same frames, for one way of looking."""
    footage, notes = copies(options.footage, options.copies, folder / "footage"), folder / "notes"
    one = note(footage / "0", look, options.fps, notes)
    frames, looks = (options.copies * count for count in one)
    print(f"{look}: {frames:,} frames, {looks / frames:.2f} looks a frame", flush=True)
    ours = ["extract", footage, "--fps", options.fps, "--workers", options.workers, "--look", look]
    plain = [sys.executable, __file__, footage, "--fps", options.fps, "--loop", notes]
    turns: dict[str, tuple[list[object], int]] = {
        "looking": (plain, options.workers),
        "cropping": ([*plain, "--crops"], options.workers),
        "handclr": ([*HANDCLR, *ours, "-q", "-o", folder / "crops.tar"], 1),
    }
    rates: dict[str, list[float]] = {name: [] for name in turns}
    in_processor_time: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(options.rounds):
        for name, (command, times) in turns.items():
            before = processor_seconds()
            rates[name].append(times * frames / seconds(command, times))
            spent = processor_seconds() - before
            in_processor_time[name].append(times * frames / spent)
    print_shares(f"--look {look}", rates)
    print_shares(f"--look {look}, in processor time", in_processor_time)
    return {
        "rates": rates,
        "in processor time": in_processor_time,
        "looks a frame": {"handclr": [looks / frames]},
    }


def processor_seconds() -> float:
    """What the processes that have ended took, with those that they started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Notes:
    """Where extract looks, by film and sampled frame, and what it cuts.

    A look is x0, y0, x1, y1, whether it is mirrored, and the longer side of what is looked at; a
    cut is x0, y0, x1, y1, and whether it is mirrored. `crops` are those that were looked at again.
    """

    def __init__(self) -> None:
        self.films: dict[str, dict[int, dict[str, list[Any]]]] = {}
        self.film: dict[int, dict[str, list[Any]]] = {}
        self.looks: list[Any] = []
        self.crops: list[np.ndarray] = []

    def begin(self, number: int, image: np.ndarray) -> None:
        """Note the look at all of a frame."""
        height, width = image.shape[:2]
        self.looks = [(0, 0, width, height, False, max(height, width))]
        self.film[number] = {"looks": self.looks, "cuts": []}

    def count(self) -> tuple[int, int]:
        """How many frames, and how many looks."""
        frames = [frame for film in self.films.values() for frame in film.values()]
        return len(frames), sum(len(frame["looks"]) for frame in frames) + len(self.crops)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        films = {name: list(film.values()) for name, film in self.films.items()}
        (folder / "films.json").write_text(json.dumps(films))
        np.save(folder / "crops.npy", np.array(self.crops))


def note(footage: Path, look: Any, fps: float, folder: Path) -> tuple[int, int]:
    """Let extract go over the footage once; gives how many frames and looks there are."""
    from handclr_cli.footage.extraction import CropSettings, Extraction, Skipped
    from handclr_cli.footage.finding import find_footage
    from handclr_cli.footage.frames import Sampling
    from handclr_cli.footage.model_file import model_file
    from handclr_cli.footage.video import pieces

    notes = Notes()
    extraction = Extraction(CropSettings(), model_file(None, print), look=look)
    with noting(notes):
        for item in find_footage([str(footage)]):
            notes.films[str(item.files[0].relative_to(footage))] = notes.film = {}
            for piece in pieces(item, Sampling(fps)):
                for found in extraction(piece):
                    for sample in () if isinstance(found, Skipped) else found:
                        cut = [*sample.info["box"], sample.info["flipped"]]
                        notes.film[sample.info["frame"]]["cuts"].append(cut)
    notes.save(folder)
    return notes.count()


@contextmanager
def noting(notes: Notes) -> Iterator[None]:
    """Have extract's code note where it looks."""
    from handclr_cli.footage import looks
    from handclr_cli.footage.extraction import Extraction

    hands, look_in, opinion = looks.Search.hands, looks.look_in, Extraction._opinion

    def noted_hands(search: Any, frame: Any) -> Any:
        notes.begin(frame.number, frame.image)
        return hands(search, frame)

    def noted_look(image: Any, box: Any, find: Any, *, mirrored: bool = False, **more: Any) -> Any:
        def noted_find(pixels: np.ndarray) -> Any:
            notes.looks.append((*map(int, box), mirrored, max(pixels.shape)))
            return find(pixels)

        return look_in(image, box, noted_find, mirrored=mirrored, **more)

    def noted_opinion(extraction: Any, pixels: np.ndarray) -> Any:
        notes.crops.append(pixels.copy())
        return opinion(extraction, pixels)

    with (
        mock.patch.object(looks.Search, "hands", noted_hands),
        mock.patch.object(looks, "look_in", noted_look),
        mock.patch.object(Extraction, "_opinion", noted_opinion),
    ):
        yield


def loop(options: argparse.Namespace) -> int:
    """What people would write who knew where to look; gives how many times it has looked."""
    import cv2
    from mediapipe import Image, ImageFormat

    cv2.setNumThreads(1)
    films = json.loads((options.loop / "films.json").read_text())
    looked = 0
    with detector() as landmarker:

        def look(pixels: np.ndarray) -> None:
            wrapped = Image(image_format=ImageFormat.SRGB, data=np.ascontiguousarray(pixels))
            landmarker.detect(wrapped)

        for copy in sorted(options.footage[0].iterdir()):
            for name, frames in films.items():
                for image, frame in zip(sampled(copy / name, options.fps), frames, strict=True):
                    for window in frame["looks"]:
                        look(shown(image, *window))
                    looked += len(frame["looks"])
                    if options.crops:
                        crops_of(image, frame["cuts"])
            for pixels in np.load(options.loop / "crops.npy"):
                border = [len(pixels)] * 4
                look(cv2.copyMakeBorder(pixels[:, ::-1], *border, cv2.BORDER_REPLICATE))
                looked += 1
    return looked


def sampled(path: Path, fps: float) -> Iterator[np.ndarray]:
    """The frames of a film that are looked at, RGB."""
    import cv2

    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    tick = -1
    while capture.grab():
        now = int(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 * fps + 1e-6)
        if now > tick:
            tick = now
            yield cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB)


def shown(
    image: np.ndarray, x0: int, y0: int, x1: int, y1: int, mirrored: bool, longest: int
) -> np.ndarray:
    """A window of an image, its edge pixels repeated where it reaches beyond."""
    import cv2

    height, width = image.shape[:2]
    pixels = image[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
    border = np.array([max(-y0, 0), max(y1 - height, 0), max(-x0, 0), max(x1 - width, 0)])
    share = longest / max(x1 - x0, y1 - y0)
    if share < 1:
        pixels = cv2.resize(pixels, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
        border = np.round(border * share).astype(int)
    if border.any():
        pixels = cv2.copyMakeBorder(pixels, *border.tolist(), cv2.BORDER_REPLICATE)
    return pixels[:, ::-1] if mirrored else pixels


def crops_of(image: np.ndarray, cuts: list[list[int]]) -> None:
    """Cut and encode crops as extract does."""
    from handclr_cli.contract.fields import encode_image
    from handclr_cli.hand.square import cut

    for *box, mirrored in cuts:
        encode_image(cut(image, tuple(box), 224, mirrored))


if __name__ == "__main__":
    main()
