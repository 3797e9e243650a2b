"""$ handclr import hand100m: the published annotations, mapped exactly, and their pairs."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from labelled_helpers import TRAINING, error_line, handclr

from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.npz import read_npz
from handclr_cli.contract.sample import KEY, Sample
from handclr_cli.contract.units import SKIPPED
from handclr_cli.datasets.hand100m import CropMaker, Hand100M, published_crop
from handclr_cli.datasets.hand100m_file import Annotations
from handclr_cli.datasets.labelled import Invalid
from handclr_cli.hand.square import to_source
from handclr_cli.learning.positives import mined

SIZE = (320, 240)
# Left and right, in the middle and cut off at each border of the image.
BOXES = [
    (100, 60, 160, 150),
    (-4.7, 20, 70, 90),
    (250, 30, 319, 120),
    (120, -8, 210, 60),
    (40, 180.9, 110, 240.2),
    (5, 5, 315, 230),
]


def reference_crop(box: tuple[float, ...], size: tuple[int, int]) -> list[tuple[int, int]]:
    """Where the published crop begins and ends, by axis, in plain integers."""
    low, high = [int(value) for value in box[:2]], [int(value) for value in box[2:]]
    grown = []
    for start, end in zip(low, high, strict=True):
        more = math.floor((math.floor((end - start) * 1.3) - (end - start)) / 2)
        grown.append(end + more - (start - more))
    half = max(grown) // 2
    crop = []
    for start, end, side in zip(low, high, size, strict=True):
        centre = (start + end) / 2
        crop.append((max(0, int(centre - half)), min(side, int(centre + half))))
    return crop


def annotation(number: int, image: int, side: str, shares: np.ndarray) -> dict[str, Any]:
    """A hand as the file has it; numbers are sometimes words there."""
    return {
        "image_id": str(image) if number % 2 else image,
        "hand_id": f"{1000 + number}" if number % 3 else 1000 + number,
        "boxes": json.dumps(BOXES[number % len(BOXES)]),
        "left_right": side,
        "keypoint_25d": shares.ravel().tolist(),
        "positive_sample": [1000 + (number + 6) % 12, str(1000 + (number + 7) % 12)],
        "distance": [0.25, 0.5],
    }


def in_its_crop(shares: np.ndarray, number: int) -> np.ndarray:
    """Keypoints (21, 2) in pixels of the frame, of shares of the crop that was published."""
    (x0, x1), (y0, y1) = reference_crop(BOXES[number % len(BOXES)], SIZE)
    return (x0, y0) + shares[:, :2] * (x1 - x0, y1 - y0)


def make_set(root: Path, videos: int = 2, **changes: Any) -> tuple[Path, dict[str, np.ndarray]]:
    """Frames with a bright dot at each joint, their annotation file, and the joints (21, 2) in
    pixels by hand id.
    """
    rng = np.random.default_rng(0)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    truth = {}
    for video, frame in product(range(videos), range(3)):
        picture = np.full((SIZE[1], SIZE[0], 3), 30, np.uint8)
        name = f"raw/video_{video}-x/frame_{30 * frame:06d}.jpg"
        image = {"id": len(images), "file_name": name, "width": SIZE[0], "height": SIZE[1]}
        images.append(image)
        for side in ("Left", "Right"):
            number = len(annotations)
            shares = np.column_stack([rng.uniform(0.1, 0.9, (21, 2)), rng.normal(size=21)])
            annotations.append(annotation(number, image["id"], side, shares))
            truth[str(1000 + number)] = points = in_its_crop(shares, number)
            for x, y in points:
                cv2.circle(picture, (round(x - 0.5), round(y - 0.5)), 2, (255, 255, 255), -1)
        file = root / "frames" / name.removeprefix("raw/")
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), picture, [cv2.IMWRITE_JPEG_QUALITY, 98])
    path = root / "Hand100M_test.json"
    path.write_text(
        json.dumps({"info": {}, "images": images, "annotations": annotations} | changes)
    )
    return path, truth


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, Path, dict[str, np.ndarray]]:
    path, truth = make_set(tmp_path / "set")
    return path, tmp_path / "set" / "frames", truth


def edited(path: Path, edit: Any) -> Path:
    """The annotation file after `edit` of its content."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return path


def test_the_published_crop_is_transcribed_exactly() -> None:
    rng = np.random.default_rng(1)
    low = rng.uniform(-40, 320, (3000, 2))
    boxes = np.concatenate([low, low + rng.uniform(1.01, 300, (3000, 2))], axis=1)
    boxes[::2] = np.trunc(boxes[::2])
    for box in boxes:
        (x0, x1), (y0, y1) = reference_crop(tuple(box), SIZE)
        assert published_crop(box, *SIZE) == (x0, y0, x1, y1)
    assert published_crop(np.array([9.0, 9, 9, 20]), *SIZE) == (0, 0, 0, 0)


def mapped_back(sample: Sample) -> np.ndarray:
    """The keypoints of a sample in pixels of its frame."""
    info = sample.info
    return to_source(
        sample.keypoints2d.astype(np.float64), info["box"], sample.side, info["flipped"]
    )


@pytest.mark.slow
def test_keypoints_come_out_where_they_were_and_crops_show_them(small: Any, tmp_path: Path) -> None:
    path, frames, truth = small
    out, sheet, report = tmp_path / "out.tar", tmp_path / "sheet.png", tmp_path / "report.json"
    done = handclr(
        "import",
        "hand100m",
        path,
        "--root",
        frames,
        "-o",
        out,
        "--check",
        sheet,
        "--report",
        report,
    )
    text = done.stderr.decode()
    assert "import hand100m: 12 hands of 12 in Hand100M_test.json (6 left, 6 right)" in text
    assert "of the keypoints inside the annotated box, 100.00% inside the image" in text
    found = json.loads(report.read_text())
    assert (
        found["annotations"] == path.name
        and found["check"]["hands"] == 12
        and found["check"]["keypoints_in_box"] > 0.5
    )
    assert cv2.imread(str(sheet)) is not None
    index = ShardIndex([str(out)])
    assert len(index) == 12
    for row, sample in enumerate(index):
        points = truth[str(sample.info["hand_id"])]
        np.testing.assert_allclose(mapped_back(sample), points, atol=1e-3)
        assert_names_its_source(sample, row)
        x0, y0, x1, y1 = sample.info["box"]
        assert x1 - x0 == y1 - y0 and sample.image.shape == (224, 224, 3)
        for x, y in sample.keypoints2d:
            assert sample.image[int(y), int(x)].min() > 128


def assert_names_its_source(sample: Sample, row: int) -> None:
    """Side, video, frame and number of the hand in a row of the file."""
    info, number = sample.info, 1000 + row
    assert info["hand"] == ("left" if row % 2 == 0 else "right")
    assert info["flipped"] == (info["hand"] == "left")
    assert info["video"] == f"video_{row // 6}-x" and info["frame"] == 30 * (row // 2 % 3)
    assert info["index"] == row
    assert info["hand_id"] == (number if row % 3 == 0 else str(number))
    assert info["source_size"] == list(SIZE) and info["time_s"] is None
    match = KEY.fullmatch(sample.key)
    assert match and int(match["frame"]) == info["frame"] and match["hand"] == info["hand"][0]


@pytest.mark.slow
def test_pairs_are_of_the_hands_that_are_there(small: Any, tmp_path: Path) -> None:
    path, frames, _ = small
    (frames / "video_1-x" / "frame_000030.jpg").unlink()
    edited(path, lambda content: content["annotations"][0]["positive_sample"].append("none"))
    edited(path, lambda content: content["annotations"][0]["distance"].append(9))
    out, npz = tmp_path / "out.tar", tmp_path / "pairs.npz"
    done = handclr("import", "hand100m", path, "--root", frames, "-o", out, "--pairs", npz, code=3)
    text = done.stderr.decode()
    assert (
        "frame_000030.jpg: with the image missing; skipped" in text
        and "2 with the image missing" in text
    )
    assert "10 hands, 9 with a positive; 5 positives have no crop" in text
    arrays, record = read_npz(str(npz), "pairs")
    assert record and record["stage"] == "import hand100m" and "target" not in arrays
    index = ShardIndex([str(out)])
    assert arrays["key"].tolist() == [key.encode() for key in index.keys]
    ids = [int(sample.info["hand_id"]) - 1000 for sample in index]
    assert ids == [0, 1, 2, 3, 4, 5, 6, 7, 10, 11]
    expected = [(6, 7), (7,), (), (10,), (10, 11), (11, 0), (0, 1), (1, 2), (4, 5), (5, 6)]
    for row, positives in enumerate(expected):
        kept = arrays["positive"][row]
        assert [ids[place] for place in kept if place >= 0] == list(positives)
        assert (kept[len(positives) :] == -1).all() and np.isinf(
            arrays["distance"][row, len(positives) :]
        ).all()
    assert arrays["distance"][1, 0] == 0.25 and arrays["distance"][3, 0] == 0.5
    pool = mined(index, [arrays])
    assert len(pool) == 9 and pool.table()[0].tolist() == [0, 6]


@pytest.mark.slow
def test_pretrain_takes_the_pairs(small: Any, tmp_path: Path) -> None:
    path, frames, _ = small
    read = ["import", "hand100m", path, "--root", frames, "--size", 64]
    handclr(*read, "-o", tmp_path / "out.tar", "--pairs", tmp_path / "pairs.npz")
    few = [*TRAINING, "--batch", 4, "--epochs", 1]
    more = ["--pairs", tmp_path / "pairs.npz", "--run", tmp_path / "run", "--top-k", 2]
    done = handclr("pretrain", tmp_path / "out.tar", *more, *few)
    assert "12 pairs (0 crops without one)" in done.stderr.decode()


@pytest.mark.slow
def test_parts_and_a_rerun_make_what_one_run_makes(small: Any, tmp_path: Path) -> None:
    path, frames, _ = small
    (frames / "video_0-x" / "frame_000000.jpg").unlink()
    read = [
        "import",
        "hand100m",
        path,
        "--root",
        frames,
        "--size",
        64,
        "--workers",
        0,
        "--shard-size",
        5,
    ]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    handclr(*read, "-o", whole / "x-%d.tar", "--pairs", whole / "pairs.npz", code=3)
    alone = handclr(*read, "--pairs", tmp_path / "alone.npz", code=3)
    for part in (1, 0):
        handclr(*read, "-o", parts / "x-%d.tar", "--part", f"{part}/2", code=3 * (part == 0))
    refused = error_line(
        handclr(*read, "-o", parts / "x-%d.tar", "--part", "0/2", "--pairs", "p.npz", code=2)
    )
    assert "--pairs p.npz: the pairs are of all parts" in refused
    done = handclr(*read, "-o", parts / "x-%d.tar", "--pairs", parts / "pairs.npz", code=3)
    assert (
        "3 of 3 shards there already" in done.stderr.decode()
        and "10 hands, " in done.stderr.decode()
    )
    names = ["pairs.npz", "x-0.tar", "x-1.tar", "x-2.tar"]
    assert sorted(file.name for file in parts.iterdir()) == names
    for name in names:
        assert (whole / name).read_bytes() == (parts / name).read_bytes()
    assert (tmp_path / "alone.npz").read_bytes() == (whole / "pairs.npz").read_bytes()
    assert alone.stdout
    edited(path, lambda content: content["annotations"][0].update(distance=[0.1, 0.2]))
    line = error_line(handclr(*read, "-o", parts / "x-%d.tar", code=2))
    assert "x-0.tar: made with annotations " in line and "remove the old shards" in line
    assert SKIPPED.encode() in (parts / "x-0.tar").read_bytes()
    assert b"video_0-x/frame_000000.jpg: with the image missing" in (parts / "x-0.tar").read_bytes()


@pytest.mark.slow
def test_a_frame_of_another_size_is_no_frame_of_the_set(small: Any, tmp_path: Path) -> None:
    path, frames, _ = small
    name = frames / "video_0-x" / "frame_000000.jpg"
    cv2.imwrite(str(name), np.zeros((120, 160, 3), np.uint8))
    assert CropMaker().make(Hand100M(path, frames)[0]).invalid == Invalid.OTHER_SIZE
    line = error_line(
        handclr(
            "import",
            "hand100m",
            path,
            "--root",
            frames,
            "-o",
            tmp_path / "y.tar",
            "--strict",
            code=1,
        )
    )
    assert "another size" in line and not (tmp_path / "y.tar").exists()


def test_hands_of_one_side_in_a_frame_have_keys_of_their_own(small: Any) -> None:
    path, frames, _ = small

    def all_left(content: dict[str, Any]) -> None:
        for hand in content["annotations"]:
            hand["left_right"] = "Left"

    data = Hand100M(edited(path, all_left), frames)
    keys = [data.key(row) for row in range(len(data))]
    assert len(set(keys)) == 12 and [key.endswith("_l1") for key in keys] == [False, True] * 6


def test_folders_of_one_name_and_videos_that_are_missing(small: Any, tmp_path: Path) -> None:
    path, frames, _ = small

    def spread(content: dict[str, Any]) -> None:
        for image in content["images"]:
            image["file_name"] = (
                image["file_name"]
                .replace("raw/video_0-x", "a/one")
                .replace("raw/video_1-x", "b/one")
            )

    (frames / "a").mkdir()
    (frames / "video_0-x").rename(frames / "a" / "one")
    data = Hand100M(edited(path, spread), frames)
    assert data[0].info["video"] == "a/one" and data[11].info["video"] == "b/one"
    assert data[0].path.exists() and len({data.key(row) for row in range(12)}) == 12
    assert data.notes == (f"{frames}: 1 of 2 videos have no frames, one first",)
    with pytest.raises(
        HandclrError,
        match="holds none of the annotated frames; the first is a/one/frame_000000.jpg",
    ):
        Hand100M(path, tmp_path)


def test_an_id_is_the_same_as_a_number_and_as_a_string(small: Any) -> None:
    hands = Annotations(small[0])
    assert hands.positive.tolist() == [[(row + 6) % 12, (row + 7) % 12] for row in range(12)]
    assert hands.image.tolist() == [row // 2 for row in range(12)] and hands.unknown_positives == 0
    assert hands.keypoints.dtype == np.float32 and hands.keypoints.shape == (12, 21, 2)


def hand(content: dict[str, Any]) -> dict[str, Any]:
    return content["annotations"][4]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda c: c.pop("images"), "has no list of images"),
        (lambda c: c.update(annotations={}), "has no list of annotations"),
        (lambda c: c["annotations"].clear(), "holds no annotations"),
        (lambda c: c["annotations"].insert(3, 5), "entry 3 of annotations is not as in Hand100M"),
        (lambda c: c["annotations"].insert(3, {}), "entry 3 of annotations is not as in Hand100M"),
        (lambda c: c["images"].append([]), "entry 6 of images is not as in Hand100M"),
        (
            lambda c: c["images"].append({"id": 3, "file_name": "x/frame_1.jpg"}),
            "image id 3 comes twice",
        ),
        (
            lambda c: c["images"].append({"id": 77, "file_name": 5}),
            "image 6 (5) cannot be used: file_name",
        ),
        (
            lambda c: c["images"].append({"file_name": "x.jpg"}),
            "image 6 (x.jpg) cannot be used: no 'id'",
        ),
        (
            lambda c: c["images"].append({"id": 9, "file_name": "x.jpg", "width": "w"}),
            "image 6 (x.jpg)",
        ),
        (lambda c: hand(c).update(hand_id="1005"), "hand_id 1005 comes twice"),
        (lambda c: hand(c).update(hand_id=[1]), "annotation 4 ([1]) cannot be used: [1] is no id"),
        (
            lambda c: hand(c).update(image_id=99),
            "annotation 4 (1004) is of image 99, which is not in the file",
        ),
        (lambda c: hand(c).update(boxes="[1, 2"), "annotation 4 (1004) cannot be used"),
        (lambda c: hand(c).update(boxes="[1, 2, 3]"), "boxes is not a list of 4"),
        (lambda c: hand(c).update(boxes=[1, 2, 3, None]), "annotation 4 (1004) cannot be used"),
        (lambda c: hand(c).update(boxes="[" * 100_000), "annotation 4 (1004) cannot be used"),
        (lambda c: hand(c).pop("boxes"), "cannot be used: no 'boxes'"),
        (lambda c: hand(c).update(left_right="both"), "left_right is 'both'"),
        (lambda c: hand(c).update(left_right=["Left"]), "left_right is ['Left']"),
        (lambda c: hand(c)["keypoint_25d"].pop(), "keypoint_25d is not a list of 63"),
        (
            lambda c: hand(c)["keypoint_25d"].__setitem__(7, "x"),
            "annotation 4 (1004) cannot be used",
        ),
        (lambda c: hand(c).update(positive_sample="1005"), "positive_sample is not a list"),
        (lambda c: hand(c).update(positive_sample=[{}, 2]), "{} is no id"),
        (lambda c: hand(c).update(distance=[1]), "distance is not a list of 2"),
    ],
)
def test_a_hostile_file_is_one_line(edit: Any, words: str, small: Any) -> None:
    with pytest.raises(HandclrError) as caught:
        Annotations(edited(small[0], edit))
    assert (
        words in str(caught.value)
        and str(caught.value).startswith(str(small[0]))
        and "\n" not in str(caught.value)
    )


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda c: hand(c).update(boxes="[1, 2, 3, NaN]"), Invalid.BAD_LABELS),
        (lambda c: hand(c).update(boxes=[1, 2, float("inf"), 4]), Invalid.BAD_LABELS),
        (lambda c: hand(c)["keypoint_25d"].__setitem__(7, 1e300), Invalid.BAD_LABELS),
        (lambda c: hand(c).update(boxes=[0, 0, 0, 0]), Invalid.BAD_LABELS),
        (lambda c: hand(c).update(keypoint_25d=[-3.0] * 63), Invalid.OUTSIDE),
    ],
)
def test_one_wrong_annotation_costs_its_hand_only(edit: Any, reason: Invalid, small: Any) -> None:
    path, frames, _ = small
    data = Hand100M(edited(path, edit), frames)
    made = [CropMaker(size=32).make(data[row]) for row in range(12)]
    assert [one.invalid for one in made] == [reason if row == 4 else None for row in range(12)]


def test_the_same_hand_annotated_twice_is_taken_once(small: Any) -> None:
    path, frames, _ = small
    before = Hand100M(path, frames)
    keys = [before.key(row) for row in range(12)]

    def again(content: dict[str, Any]) -> None:
        first = content["annotations"][3]
        moved = [value + 0.01 for value in first["keypoint_25d"]]
        content["annotations"] += [
            {**first, "hand_id": 77},
            {**first, "hand_id": 78, "keypoint_25d": moved},
            {**first, "hand_id": 79, "left_right": "Left"},
            {**first, "hand_id": 80},
        ]

    data = Hand100M(edited(path, again), frames)
    found = [CropMaker(size=32).make(data[row]).invalid for row in range(12, 16)]
    assert found == [Invalid.REPEATED, None, None, Invalid.REPEATED]
    assert not Invalid.REPEATED.broken
    assert [data.key(row) for row in range(12)] == keys and data.key(13).endswith("_r2")


def test_a_distance_that_is_none_costs_its_positive_only(small: Any) -> None:
    path, _, _ = small

    def spoil(content: dict[str, Any]) -> None:
        content["annotations"][4]["distance"] = [float("nan"), 0.5]
        content["annotations"][5]["distance"] = [0.25, -1]

    hands = Annotations(edited(path, spoil))
    assert hands.positive[4:6].tolist() == [[-1, 11], [11, -1]]
    assert hands.distance[4:6].tolist() == [[np.inf, 0.5], [0.25, np.inf]]
    assert hands.unknown_positives == 2


def test_the_number_of_a_frame_is_all_of_it(small: Any) -> None:
    path, frames, _ = small

    def long(content: dict[str, Any]) -> None:
        content["images"][2]["file_name"] = "raw/video_0-x/frame_1680000000023456789.jpg"

    with pytest.raises(HandclrError, match=r"1680000000023456789\.jpg: its number has more than"):
        Hand100M(edited(path, long), frames)


@pytest.mark.parametrize("data", [b"", b"[]", b"5", b"\xff\xfe", b"[" * 200_000])
def test_what_is_no_annotation_file_is_one_line(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(HandclrError, match=r"x\.json: (not JSON|has no list)"):
        Annotations(path)
    with pytest.raises(HandclrError, match="cannot read"):
        Annotations(tmp_path / "none.json")


@pytest.mark.slow
def test_a_truncated_file_is_one_line_and_leaves_nothing(small: Any, tmp_path: Path) -> None:
    path, frames, _ = small
    path.write_bytes(path.read_bytes()[:-100])
    line = error_line(
        handclr("import", "hand100m", path, "--root", frames, "-o", tmp_path / "x.tar", code=1)
    )
    assert "not JSON, or truncated; download it again" in line and not (tmp_path / "x.tar").exists()


@pytest.mark.slow
def test_a_frame_without_a_number_and_a_file_without_pairs_are_one_line(
    small: Any, tmp_path: Path
) -> None:
    path, frames, _ = small

    def unpaired(content: dict[str, Any]) -> None:
        for one in content["annotations"]:
            del one["positive_sample"], one["distance"]

    edited(path, unpaired)
    read = ["import", "hand100m", path, "--root", frames, "-o", tmp_path / "x.tar"]
    assert "has no positive_sample" in error_line(
        handclr(*read, "--pairs", tmp_path / "p.npz", code=1)
    )
    edited(path, lambda content: content["images"][5].update(file_name="raw/video_0-x/last.jpg"))
    with pytest.raises(HandclrError, match=r"last.jpg: has no number at the end of the name"):
        Hand100M(path, frames)


@pytest.mark.parametrize("box", ["[400, 10, 450, 60]", "[50, 50, 40, 60]", "[10, 10, 10, 30]"])
def test_a_box_that_is_nowhere_gives_no_sample(box: str, small: Any) -> None:
    path, frames, _ = small
    data = Hand100M(edited(path, lambda content: hand(content).update(boxes=box)), frames)
    assert (
        CropMaker().make(data[4]).invalid == Invalid.BAD_LABELS and CropMaker().make(data[5]).sample
    )


def test_keypoints_far_beyond_the_image_give_no_sample(small: Any) -> None:
    path, frames, _ = small
    data = Hand100M(
        edited(path, lambda content: hand(content)["keypoint_25d"].__setitem__(0, 1e6)), frames
    )
    assert CropMaker().make(data[4]).invalid == Invalid.BAD_LABELS
