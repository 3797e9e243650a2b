r"""How many hands each way of looking finds (`extract --look`), how many of them are none, and what
it costs.

    python tests/benchmarks/footage_looks.py --boxes images/labels.csv --worlds wild lab \
        --away 1 4 --footage videos/ --fps 1 --sheet additions.png --json looks.json

boxes      images that show one hand each; columns image, x0, y0, x1, y1 of the CSV, the images
           beside it. A hand counts as found where the middle of one found lies in its box, and one
           found elsewhere is false.
worlds     synthetic frames with truth, --moments pictures of each of --scenes scenes; --away times
           as far from the camera as `handclr synth` has hands, in pictures of 960x720 pixels where
           that is more than once. Found: mean distance of the keypoints below half a palm.
footage    film, in order. There is no truth: hands a frame, and a sheet of what is found beyond
           one look, drawn by lot, to be judged by eye.
quarter    every film at a quarter of its size on a grey frame of the old one; a hand is found
           where "tiles" finds it at the full size.

Looks are calls of the landmarker; ms is processor time, with neither decoding nor cropping.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import torch
from synthetic_hands import palm_px

from handclr_cli.choices import LookName
from handclr_cli.footage.finding import find_footage
from handclr_cli.footage.frames import Frame, Hand, Sampling
from handclr_cli.footage.landmarker import Landmarker
from handclr_cli.footage.looks import Search, are_one
from handclr_cli.footage.model_file import model_file
from handclr_cli.footage.video import read_frames
from handclr_cli.hand.camera import project
from handclr_cli.hand.square import cut, square_box, to_crop
from handclr_cli.report.sheets import Tile, grid_sheet, write_png
from handclr_cli.synth.scenes import Scene
from handclr_cli.synth.worlds import WORLDS

HANDS = 2
FRAME, LARGE = (480, 360), (960, 720)
GREY, SHARE = 128, 4
CROP, AROUND = 224, 2.0
Fits = Callable[[Hand], bool]


@dataclass
class Look:
    """A frame to look at, what tells the hands in it, and the film that it is of."""

    frame: Frame
    truths: list[Fits]
    film: str = ""


@dataclass
class Told:
    """What a way of looking found."""

    frames: int = 0
    hands: int = 0
    truths: int = 0
    hit: int = 0
    false: int = 0
    looks: int = 0
    seconds: float = 0.0
    found: list[tuple[Look, list[Hand]]] = field(default_factory=list)

    def row(self, judged: bool) -> dict[str, Any]:
        cost = {
            "looks": round(self.looks / self.frames, 2),
            "ms": round(1000 * self.seconds / self.frames, 1),
        }
        told: dict[str, Any] = {"frames": self.frames, "hands": self.hands}
        if judged:
            told |= {"truths": self.truths, "hit": self.hit, "false": self.false}
        return told | cost


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    result: dict[str, Any] = {}
    with Landmarker(model_file(None, print), HANDS, 0.5) as landmarker:
        for name, looks, judged in suites(arguments, landmarker):
            told = {look: watch(looks(), landmarker, look) for look in arguments.look}
            result[name] = {look: told[look].row(judged) for look in told}
            print(name, json.dumps(result[name], indent=1), flush=True)
            if name == "footage" and arguments.sheet:
                draw(told, arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def watch(looks: Iterator[Look], landmarker: Landmarker, look: LookName) -> Told:
    """Look at frames in order, each film by itself."""
    told, film, search = Told(), None, None

    def find(image: np.ndarray) -> list[Hand]:
        told.looks += 1
        return landmarker.find(image)

    for each in looks:
        if search is None or each.film != film:
            search, film = Search(find, look, HANDS), each.film
        begin = time.process_time()
        hands = search.hands(each.frame)
        told.seconds += time.process_time() - begin
        told.frames += 1
        told.hands += len(hands)
        told.truths += len(each.truths)
        told.hit += sum(any(map(fits, hands)) for fits in each.truths)
        told.false += sum(not any(fits(hand) for fits in each.truths) for hand in hands)
        told.found.append((each, hands))
    return told


def suites(
    arguments: argparse.Namespace, landmarker: Landmarker
) -> Iterator[tuple[str, Callable[[], Iterator[Look]], bool]]:
    if arguments.boxes:
        yield "boxes", lambda: boxed(arguments.boxes), True
    for world, away in product(arguments.worlds, arguments.away):
        shots = list(photographed(arguments, world, away))
        yield f"{world}, {away:g} times as far", lambda shots=shots: iter(shots), True
    if arguments.footage:
        frames = list(filmed(arguments.footage, arguments.fps))
        yield "footage", lambda: iter(frames), False
        told = watch(iter(frames), landmarker, "tiles")
        small = [shrunk(look, hands) for look, hands in told.found]
        yield "footage at a quarter of its size", lambda: iter(small), True


def boxed(table: Path) -> Iterator[Look]:
    with table.open() as file:
        for row in csv.DictReader(file):
            image = cv2.cvtColor(cv2.imread(str(table.parent / row["image"])), cv2.COLOR_BGR2RGB)
            corners = [float(row[name]) for name in ("x0", "y0", "x1", "y1")]
            yield Look(Frame(0, None, image), [_in_box(np.reshape(corners, (2, 2)))], row["image"])


def _in_box(box: np.ndarray) -> Fits:
    def fits(hand: Hand) -> bool:
        middle = (hand.keypoints.min(axis=0) + hand.keypoints.max(axis=0)) / 2
        return bool(np.all(middle >= box[0]) and np.all(middle <= box[1]))

    return fits


def photographed(arguments: argparse.Namespace, world: str, away: float) -> Iterator[Look]:
    near, far = (reach / away for reach in WORLDS[world].reach)
    here, size = replace(WORLDS[world], reach=(near, far)), FRAME if away == 1 else LARGE
    for index in range(arguments.scenes):
        scene = Scene(here, arguments.seed, index, size, frames=arguments.moments, fps=1.0)
        for moment in range(arguments.moments):
            shot, truths = scene.shoot(moment), []
            for hand in shot.hands:
                limit = 0.5 * palm_px(shot, hand)
                truths.append(_on(project(hand.keypoints3d, shot.intrinsics), limit))
            yield Look(Frame(0, None, shot.image), truths, f"{index}/{moment}")


def _on(points: np.ndarray, limit: float) -> Fits:
    return lambda hand: bool(np.linalg.norm(hand.keypoints - points, axis=1).mean() < limit)


def filmed(footage: Sequence[str], fps: float) -> Iterator[Look]:
    for item in find_footage(footage):
        for frame in read_frames(item, Sampling(fps), lambda error: print(error)):
            yield Look(frame, [], item.name)


def shrunk(look: Look, hands: list[Hand]) -> Look:
    """A frame at a quarter of its size on a grey one, and where its hands are then."""
    image = look.frame.image
    small = cv2.resize(image, None, fx=1 / SHARE, fy=1 / SHARE, interpolation=cv2.INTER_AREA)
    height, width = small.shape[:2]
    y, x = (image.shape[0] - height) // 3, (image.shape[1] - width) // 3
    frame = np.full_like(image, GREY)
    frame[y : y + height, x : x + width] = small
    scale = (width / image.shape[1], height / image.shape[0])
    there = [hand.keypoints * scale + (x, y) for hand in hands]
    return Look(
        Frame(look.frame.number, look.frame.time_s, frame),
        [_on(points, 0.25 * float(np.ptp(points, axis=0).max())) for points in there],
        look.film,
    )


def draw(told: dict[str, Told], arguments: argparse.Namespace) -> None:
    """What the last way of looking finds beyond the first, by lot."""
    first, last = (told[look].found for look in (arguments.look[0], arguments.look[-1]))
    added: list[tuple[Look, Hand]] = []
    for (look, known), (_, hands) in zip(first, last, strict=True):
        added += [(look, hand) for hand in hands if not any(are_one(hand, one) for one in known)]
    print(f"{len(added)} hands are found by {arguments.look[-1]} alone")
    rows = np.random.default_rng(arguments.seed).permutation(len(added))[: arguments.additions]
    tiles = [_tile(number, *added[row]) for number, row in enumerate(sorted(rows))]
    if tiles:
        write_png(arguments.sheet, grid_sheet(tiles, 10))


def _tile(number: int, look: Look, hand: Hand) -> Tile:
    box = square_box(hand.keypoints, AROUND)
    pixels = cut(look.frame.image, box, CROP, flip=False)
    words = f"{number}: {look.film.rpartition('/')[2][:12]} {look.frame.number}"
    return Tile(pixels, words, to_crop(hand.keypoints, box, CROP, flip=False))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    looks = get_args(LookName)
    parser.add_argument("--look", nargs="+", choices=looks, default=list(looks))
    parser.add_argument("--boxes", type=Path, help="CSV of images that show one hand each")
    parser.add_argument("--worlds", nargs="*", choices=WORLDS, default=[])
    parser.add_argument("--away", nargs="+", type=float, default=[1.0])
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--moments", type=int, default=3, help="pictures of each scene")
    parser.add_argument("--footage", nargs="*", help="videos, or folders of them")
    parser.add_argument("--fps", type=float, default=1.0)
    parser.add_argument("--sheet", type=Path, help="hands that only the last --look finds, PNG")
    parser.add_argument("--additions", type=int, default=200, help="hands on the sheet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
