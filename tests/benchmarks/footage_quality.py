r"""What `handclr extract` and `handclr keypoints` find in real footage, and which of their
keypoints are better.

    python tests/benchmarks/footage_quality.py --footage videos/ --fps 5 --freihand FreiHAND/ \
        --dexycb DexYCB/ --synthetic wild/ --sheet crops.png --differing differing.png \
        --json quality.json

Each footage goes once through `handclr extract --with-keypoints`, which gives the keypoints found
in the frame, and its crops through `handclr keypoints --keep-empty`, which gives those found in the
crop.

alone      MediaPipe's HandLandmarker on the same frame as it is: IMAGE mode, two hands, thresholds
           of 0.5, no padding.
hand size  the longer side of the bounding box of the keypoints, those of the frame, or the true
           ones.
track      of the crops of two neighbouring sampled frames those pairs with the largest overlap, 0.3
           (intersection over union of their boxes) or more, each crop once. A flip is a pair whose
           hands are not of one side.
labelled   a labelled hand goes with a crop in the same way, by the square that `extract` would cut
           around its true keypoints; errors are the mean distance of the 21 keypoints over the hand
           size.
mixtures   mean errors where each hand has the keypoints of one or the other: the crop's where the
           two are more than 5 % of the hand size apart, or where the crop is cut from fewer pixels
           than half of the crops, else the frame's; and where it has the mean of both.
shape      mean errors of MediaPipe's world landmarks, found in the frame, in mm.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from footage_crops import Crop, error, found, linked
from footage_mixtures import of_mixtures, of_shapes
from footage_truth import TrueHand, Truth, of_dexycb, of_freihand, of_synthetic

from handclr_cli.contract.index import ShardIndex
from handclr_cli.footage.finding import find_footage
from handclr_cli.footage.frames import Frame, Sampling
from handclr_cli.footage.landmarker import Landmarker
from handclr_cli.footage.model_file import model_file
from handclr_cli.footage.video import read_frames
from handclr_cli.report.sheets import Tile, draw_skeleton, grid_sheet, write_png

GROSS = 0.25
SURE = 0.8
RESAMPLES = 2000
TILES, DIFFERING = 100, 40
BLUE, ORANGE = (0, 114, 178), (230, 159, 0)
Row = dict[str, Any]


def main() -> None:
    arguments = parse()
    result: Row = {"labelled": {}}
    with tempfile.TemporaryDirectory() as scratch:
        work = arguments.work or Path(scratch)
        if arguments.footage:
            named = [str(path) for path in arguments.footage]
            crops = found(named, ("--fps", arguments.fps), work / "footage", arguments.workers)
            looks = looked_at(named, arguments.fps, crops, work / "looks.json")
            result |= {
                "frames": of_frames(looks),
                "tracks": of_tracks(looks, crops),
                "crops": of_crops(crops),
            }
            draw(arguments, crops, work)
        for truth in truths(arguments):
            crops = found(truth.footage, ("--every", 1), work / truth.name, arguments.workers)
            result["labelled"][truth.name] = of_labelled(truth, crops)
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def looked_at(footage: Sequence[str], fps: float, crops: list[Crop], kept: Path) -> list[Row]:
    """What MediaPipe alone finds in each sampled frame, beside what `extract` found."""
    if not kept.exists():
        counts, rows = Counter(crop.place for crop in crops), []
        model, frames = model_file(None, print), _frames(footage, fps)
        with Landmarker(model) as padded, plain_detector(model) as alone:
            for video, frame in frames:
                hands = alone.detect(wrapped(frame.image)).hand_landmarks
                row = {"video": video, "frame": frame.number, "alone": len(hands)}
                row["extract"] = counts[video, frame.number]
                # Where only one of the two has a hand: is it the padding, or what extract leaves
                # out?
                if bool(row["alone"]) != bool(row["extract"]):
                    row["padded"] = len(padded.find(frame.image))
                rows.append(row)
        kept.write_text(json.dumps(rows))
    return json.loads(kept.read_text())


def _frames(footage: Sequence[str], fps: float) -> Iterator[tuple[str, Frame]]:
    for item in find_footage(footage):
        for frame in read_frames(item, Sampling(fps), lambda error: print(error, file=sys.stderr)):
            yield item.name, frame


def plain_detector(model: Path) -> Any:
    """MediaPipe as its own documentation sets it up."""
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.HandLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(model)), num_hands=2
    )
    return vision.HandLandmarker.create_from_options(options)


def wrapped(pixels: np.ndarray) -> Any:
    from mediapipe import Image, ImageFormat

    return Image(image_format=ImageFormat.SRGB, data=pixels)


def of_frames(looks: list[Row]) -> Row:
    """Shares of frames with a hand, of all footage and of each folder."""
    folders = defaultdict(list)
    for look in looks:
        folders[look["video"].rpartition("/")[0]].append(look)
    return {
        "all": _of_frames(looks),
        "folders": {name: _of_frames(rows) for name, rows in sorted(folders.items())},
    }


def _of_frames(looks: list[Row]) -> Row:
    ours = np.array([look["extract"] for look in looks])
    alone = np.array([look["alone"] for look in looks])
    padded = np.array([look.get("padded", 0) for look in looks])
    lost = (alone > 0) & (ours == 0)
    return {
        "frames": len(looks),
        "extract": share(ours > 0),
        "alone": share(alone > 0),
        "only_extract": int(((ours > 0) & (alone == 0)).sum()),
        "only_alone": int(lost.sum()),
        "only_alone_though_found_in_the_padded_frame": int((lost & (padded > 0)).sum()),
        "hands_of_extract": int(ours.sum()),
        "hands_alone": int(alone.sum()),
    }


def of_tracks(looks: list[Row], crops: list[Crop]) -> Row:
    """Neighbouring pairs of crops of one track, and how many change sides."""
    crops_at, frames = defaultdict(list), defaultdict(list)
    for crop in crops:
        crops_at[crop.place].append(crop)
    for look in looks:
        frames[look["video"]].append(look["frame"])
    pairs: list[tuple[Crop, Crop]] = []
    for video, numbers in frames.items():
        for before, after in pairwise(numbers):
            pairs += linked(crops_at[video, before], crops_at[video, after])
    lone, sure = [], []
    for one, other in pairs:
        if len(crops_at[one.place]) == len(crops_at[other.place]) == 1:
            lone.append((one, other))
        if min(one.score, other.score) > SURE:
            sure.append((one, other))
    per_video = Counter(one.place[0] for one, _ in pairs)
    worst = Counter(one.place[0] for one, other in pairs if one.side != other.side)
    return {
        "all": _flips(pairs),
        "in_frames_with_one_hand": _flips(lone),
        "scores_over_0.8": _flips(sure),
        "worst": {video: f"{count} of {per_video[video]}" for video, count in worst.most_common(8)},
    }


def _flips(pairs: list[tuple[Crop, Crop]]) -> Row:
    flips = sum(one.side != other.side for one, other in pairs)
    return {
        "pairs": len(pairs),
        "flips": flips,
        "per_1000": round(1000 * flips / max(1, len(pairs)), 1),
    }


def of_crops(crops: list[Crop]) -> Row:
    """How many crops `keypoints` finds a hand in, whether it lies inside, and how far it is from
    the frame's.
    """
    there = [crop for crop in crops if crop.of_crop is not None]
    inside = np.array([_inside(crop) for crop in there])
    apart = np.array([crop.apart for crop in there])
    sizes = np.array([_extent(crop.of_crop) / _extent(crop.of_frame) for crop in there])
    return {
        "crops": len(crops),
        "keypoints_found": round(len(there) / len(crops), 4),
        "all_inside": round(float(inside.all(axis=1).mean()), 4),
        "joints_inside": round(float(inside.mean()), 4),
        "apart": quantiles(apart),
        "apart_over_0.25": int((apart > GROSS).sum()),
        "smaller_than_two_thirds": int((sizes < 2 / 3).sum()),
        "larger_than_three_halves": int((sizes > 3 / 2).sum()),
    }


def _inside(crop: Crop) -> np.ndarray:
    """Which of the keypoints found in the crop are in it, (21,)."""
    return np.all((crop.of_crop >= 0) & (crop.of_crop <= crop.size), axis=1)


def _extent(points: np.ndarray) -> float:
    return float(np.ptp(points, axis=0).max())


def of_labelled(truth: Truth, crops: list[Crop]) -> Row:
    """How many labelled hands are found, and the errors of both kinds of keypoints where both are
    there.
    """
    crops_at = defaultdict(list)
    for crop in crops:
        crops_at[crop.place].append(crop)
    pairs: list[tuple[TrueHand, Crop]] = []
    for place, labelled in truth.hands.items():
        pairs += linked(labelled, crops_at[place])
    hands = sum(map(len, truth.hands.values()))
    right = [hand.side == crop.side for hand, crop in pairs]
    known = [(hand, crop) for hand, crop in pairs if crop.of_crop is not None]
    both = np.array([_errors(hand, crop) for hand, crop in known]).reshape(-1, 2)
    drawn = np.random.default_rng(0).integers(len(both), size=(RESAMPLES, len(both)))
    difference = both[:, 1] - both[:, 0]
    ends = np.percentile(difference[drawn].mean(axis=1), (2.5, 97.5))
    return {
        "hands": hands,
        "extract_found": round(len(pairs) / hands, 4),
        "of_the_right_side": share(right),
        "keypoints_found": round(len(both) / hands, 4),
        "crops_of_no_labelled_hand": len(crops) - len(pairs),
        "of_frame": {**quantiles(both[:, 0]), "over_0.25": share(both[:, 0] > GROSS)},
        "of_crop": {**quantiles(both[:, 1]), "over_0.25": share(both[:, 1] > GROSS)},
        "of_frame_is_nearer": share(difference > 0),
        "mean_difference_95": [round(float(end), 4) for end in ends],
        "mixtures": of_mixtures(known, both),
        "shape": of_shapes(known),
    }


def _errors(hand: TrueHand, crop: Crop) -> tuple[float, float]:
    """Of the keypoints found in the frame, and of those found in the crop."""
    first, second = crop.in_source(crop.of_frame), crop.in_source(crop.of_crop)
    return error(first, hand.keypoints), error(second, hand.keypoints)


def quantiles(values: np.ndarray) -> Row:
    middle, high = np.percentile(values, (50, 95))
    return {
        "mean": round(float(values.mean()), 4),
        "median": round(middle, 4),
        "p95": round(high, 4),
    }


def share(flags: Any) -> float:
    return round(float(np.mean(flags)), 4)


def draw(arguments: argparse.Namespace, crops: list[Crop], work: Path) -> None:
    """A sheet of crops drawn by lot with their keypoints, and one of those where the two kinds
    differ most.
    """
    images = ShardIndex([str(work / "footage" / "keypoints.tar")])

    def image(crop: Crop) -> np.ndarray:
        return images[images.row(crop.key)].image

    if arguments.sheet:
        tiles = []
        for row in np.random.default_rng(arguments.seed).permutation(len(crops))[:TILES]:
            crop = crops[row]
            word = "" if crop.of_crop is not None else "none"
            tiles.append(Tile(image(crop), caption(crop, word), crop.of_crop))
        write_png(arguments.sheet, grid_sheet(tiles, 10))
    if arguments.differing:
        tiles, there = [], [crop for crop in crops if crop.of_crop is not None]
        for crop in sorted(there, key=lambda crop: -crop.apart)[:DIFFERING]:
            picture = draw_skeleton(image(crop), crop.of_frame, width=2, colour=BLUE)
            picture = draw_skeleton(picture, crop.of_crop, width=2, colour=ORANGE)
            tiles.append(Tile(picture, caption(crop, f"{crop.apart:.2f}")))
        write_png(arguments.differing, grid_sheet(tiles, 8))


def caption(crop: Crop, word: str) -> str:
    return f"{crop.place[0].rpartition('/')[2]} {crop.place[1]}\n{crop.side} {word}"


def truths(arguments: argparse.Namespace) -> Iterator[Truth]:
    if arguments.freihand:
        yield of_freihand(arguments.freihand)
    if arguments.dexycb:
        yield of_dexycb(arguments.dexycb)
    if arguments.synthetic:
        yield of_synthetic(arguments.synthetic)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--footage", type=Path, nargs="*", help="videos, or folders of them")
    parser.add_argument("--fps", type=float, default=5.0)
    parser.add_argument("--freihand", type=Path, help="the data set as it is unpacked")
    parser.add_argument("--dexycb", type=Path, help="the data set as it is unpacked")
    parser.add_argument("--synthetic", type=Path, help="made by handclr synth footage")
    parser.add_argument("--work", type=Path, help="keep what the commands write, and go on from it")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the sheet")
    parser.add_argument("--sheet", type=Path, help="crops by lot with their keypoints, PNG")
    parser.add_argument(
        "--differing", type=Path, help="crops where frame (blue) and crop (orange) differ most, PNG"
    )
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
