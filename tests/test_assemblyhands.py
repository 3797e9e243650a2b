"""The AssemblyHands reader against the truth of a layout, its rules for valid joints, and wrong
downloads.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fake_scenes import FakeScene
from labelled_truth import assert_recovers, brightest

from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.fields import VALID
from handclr_cli.datasets.assemblyhands import AssemblyHands
from handclr_cli.datasets.labelled import Importer, Invalid, LabelledHand
from handclr_cli.synth.layouts import write_assemblyhands

CAMERAS = ["HMC_21176875", "HMC_21176623", "HMC_21110305", "HMC_21179183"]
# Where the data set keeps the joints of a right hand; those of a left one are 21 further.
WRIST, INDEX_TIP, MIDDLE_KNUCKLE = 20, 4, 11


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three moments of two hands for train, one for val; the third of four cameras sees no hand."""
    root = tmp_path_factory.mktemp("assemblyhands") / "set"
    assert write_assemblyhands(root, FakeScene, 12, lambda _: None) == 12
    return root


@pytest.fixture
def copy(layout: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(layout, tmp_path / "set"))


def file(root: Path, name: str, split: str = "train") -> Path:
    return root / "annotations" / split / f"assemblyhands_{split}_{name}_v1-1.json"


def change(root: Path, name: str, edit: Callable[[Any], object]) -> None:
    content = json.loads(file(root, name).read_text())
    edit(content)
    file(root, name).write_text(json.dumps(content))


def items(data: AssemblyHands) -> list[Any]:
    return [data[number] for number in range(len(data))]


@pytest.mark.parametrize(("split", "scene", "moments"), [("train", 0, 3), ("val", 1, 1)])
@pytest.mark.slow
def test_a_layout_is_recovered_both_hands(
    split: str, scene: int, moments: int, layout: Path
) -> None:
    data = AssemblyHands(layout, split)
    importer = Importer(data)
    found: Counter[Any] = Counter()
    assert len(data) == 2 * 3 * moments and data.notes == ()
    for number in range(len(data)):
        made = importer.make(number)
        found[made.invalid or made.side] += 1
        if made.sample is None:
            continue
        info = made.sample.info
        shot = FakeScene(scene, (636, 480), ("left", "right")).shoot(
            info["frame"] // 10, CAMERAS.index(info["camera"])
        )
        truth = shot.hands[made.side == "right"]
        assert truth.side == made.side and info["index"] == number // 2
        assert_recovers(made.sample, truth.keypoints3d, shot.intrinsics, made.side)
        if made.side == "left" and made.sample.valid[0]:
            np.testing.assert_allclose(brightest(made.sample), made.sample.keypoints2d[0], atol=0.7)
        assert np.ptp(made.sample.image, axis=2).max() == 0
        pixels = truth.keypoints3d @ shot.intrinsics.T
        pixels = pixels[:, :2] / pixels[:, 2:]
        inside = ((pixels >= 0) & (pixels < [636, 480])).all(axis=1)
        np.testing.assert_array_equal(made.sample.valid, inside)
        assert (VALID in made.sample) == (not inside.all())
    # The second camera sees the left hand only.
    assert sum(found.values()) == len(data) and found["right"] == 2 * moments
    assert found["left"] + found[Invalid.FEW_JOINTS] + found[Invalid.NO_REFERENCE] == 3 * moments
    assert found[Invalid.NO_BOX] == moments


def test_all_cameras_of_a_moment_share_its_sample(layout: Path) -> None:
    hands = [
        hand for hand in items(AssemblyHands(layout, "train")) if isinstance(hand, LabelledHand)
    ]
    moments = {(hand.info["frame"], hand.info["sample"]) for hand in hands}
    assert len(moments) == 3 == len({sample for _, sample in moments})
    assert len({(hand.info["video"], hand.info["frame"], hand.side) for hand in hands}) == len(
        hands
    )
    assert all(hand.info["subject"] == "9001" for hand in hands)


def valid_of(data: Any, invalid: list[int]) -> None:
    data["annotations"][0]["joint_valid"] = [int(joint not in invalid) for joint in range(42)]


@pytest.mark.parametrize(
    ("invalid", "reason"),
    [
        (list(range(11)), None),
        (list(range(11)) + [19], Invalid.FEW_JOINTS),
        ([WRIST], Invalid.NO_REFERENCE),
        ([MIDDLE_KNUCKLE], Invalid.NO_REFERENCE),
    ],
)
@pytest.mark.parametrize("name", ["ego_data", "joint_3d"])
def test_too_few_valid_joints_are_a_reason(
    name: str, invalid: list[int], reason: Invalid | None, copy: Path
) -> None:
    valid = [int(joint not in invalid) for joint in range(42)]

    def edit(content: Any) -> None:
        if name == "ego_data":
            content["annotations"][0]["joint_valid"] = valid
        else:
            for moments in content["annotations"].values():
                moments["000000"]["joint_valid"] = valid

    change(copy, "ego_data", lambda content: valid_of(content, []))
    change(copy, name, edit)
    item = AssemblyHands(copy, "train")[0]
    if reason:
        assert isinstance(item, tuple) and item[0] is reason
    else:
        assert isinstance(item, LabelledHand) and item.valid is not None
        # Of MediaPipe's joints those of thumb and index, and the tips of the middle finger down to
        # its knuckle.
        assert np.flatnonzero(~item.valid).tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12]


def test_what_an_invalid_joint_says_does_not_matter(copy: Path) -> None:
    def away(content: Any) -> None:
        for moments in content["annotations"].values():
            moments["000000"]["world_coord"][INDEX_TIP] = [1e9, 0, -1e9]

    change(copy, "ego_data", lambda content: valid_of(content, [INDEX_TIP]))
    before = Importer(AssemblyHands(copy, "train")).make(0).sample
    change(copy, "joint_3d", away)
    after = Importer(AssemblyHands(copy, "train")).make(0).sample
    assert before is not None and after is not None and before.members == after.members
    assert np.flatnonzero(~after.valid).tolist() == [8]
    change(copy, "ego_data", lambda content: valid_of(content, []))
    assert Importer(AssemblyHands(copy, "train")).make(0).invalid is Invalid.BEHIND


def test_a_moment_or_a_pose_that_is_missing_is_a_reason(copy: Path) -> None:
    change(
        copy,
        "joint_3d",
        lambda content: [moments.pop("000000") for moments in content["annotations"].values()],
    )
    change(
        copy,
        "ego_calib",
        lambda content: [c["extrinsics"].pop("000010") for c in content["calibration"].values()],
    )
    found = items(AssemblyHands(copy, "train"))
    assert [item[0] for item in found[:12] if isinstance(item, tuple)] == [Invalid.UNLABELLED] * 12
    assert any(isinstance(item, LabelledHand) for item in found[12:])


@pytest.mark.parametrize("flat", [True, False])
def test_own_2d_labels_are_compared_where_there_are_any(flat: bool, copy: Path) -> None:
    def label(content: Any) -> None:
        for annotation in content["annotations"]:
            points = [[float(joint), 2.0 * joint, float(joint != 3)] for joint in range(42)]
            annotation["keypoints"] = (
                [number for point in points for number in point] if flat else points
            )

    change(copy, "ego_data", label)
    hand = next(
        item for item in items(AssemblyHands(copy, "train")) if isinstance(item, LabelledHand)
    )
    assert hand.keypoints2d is not None
    offset = 21 * (hand.side == "left")
    assert hand.keypoints2d[8].tolist() == [offset + 4, 2 * (offset + 4)]
    assert np.isnan(hand.keypoints2d[1]).all() == (hand.side == "right")


def test_grey_and_colour_images_are_both_rgb(copy: Path) -> None:
    data = AssemblyHands(copy, "train")
    path = data[0].path if isinstance(data[0], LabelledHand) else data[0][1]
    assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).ndim == 2
    made = next(made for number in range(6) if (made := Importer(data).make(number)).sample)
    assert made.sample is not None and made.sample.image.shape == (224, 224, 3)


def test_a_missing_image_is_a_reason_a_missing_sequence_a_note(copy: Path) -> None:
    data = AssemblyHands(copy, "train")
    number = next(number for number in range(len(data)) if isinstance(data[number], LabelledHand))
    data[number].path.unlink()  # type: ignore[union-attr]
    assert Importer(data).make(number).invalid is Invalid.NO_IMAGE

    def double(content: Any) -> None:
        first = content["images"][0]
        content["images"].append(
            {
                **first,
                "id": 99,
                "seq_name": "b",
                "file_name": "ego_images_rectified/train/b/c/0.jpg",
            }
        )
        content["annotations"].insert(0, {**content["annotations"][0], "image_id": 99})

    change(copy, "ego_data", double)
    partial = AssemblyHands(copy, "train")
    assert (
        len(partial) == len(data) and "1 of 2 sequences of train have no images" in partial.notes[0]
    )
    assert partial[number].info["index"] == data[number].info["index"] + 1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda root: shutil.rmtree(root / "images"), "unpack ego_images_rectified into"),
        (lambda root: file(root, "ego_data").unlink(), r"train_ego_data_v1-1\.json is missing"),
        (lambda root: file(root, "joint_3d").unlink(), r"train_joint_3d_v1-1\.json is missing"),
        (lambda root: file(root, "ego_calib").unlink(), r"train_ego_calib_v1-1\.json is missing"),
        (lambda root: file(root, "ego_calib").write_text("{"), "cannot be read as JSON"),
        (
            lambda root: file(root, "ego_data").write_text('{"images": []}'),
            "holds no images and annotations",
        ),
        (
            lambda root: change(root, "ego_data", lambda c: c["images"][0].pop("seq_name")),
            "not as in v1-1.*seq_name",
        ),
        (lambda root: change(root, "ego_data", lambda c: c["images"].pop()), "not as in v1-1"),
        (
            lambda root: change(root, "ego_data", lambda c: c["annotations"][1].pop("bbox")),
            "not as in v1-1.*bbox",
        ),
        (
            lambda root: change(
                root, "ego_data", lambda c: c["annotations"][1]["joint_valid"].pop()
            ),
            "ego_data.*not as in v1-1",
        ),
        (
            lambda root: change(root, "joint_3d", lambda c: c.update(annotations={"x": 1})),
            "has no 42 joints for frame",
        ),
        (
            lambda root: change(
                root,
                "ego_calib",
                lambda c: [v["intrinsics"].clear() for v in c["calibration"].values()],
            ),
            "has no camera HMC_21176875_mono10bit for frame 000000",
        ),
    ],
)
def test_a_wrong_download_is_one_line(
    damage: Callable[[Path], object], words: str, copy: Path
) -> None:
    damage(copy)
    with pytest.raises(HandclrError, match=words) as caught:
        AssemblyHands(copy, "train")
    assert "\n" not in str(caught.value)


def test_other_names_are_refused(copy: Path) -> None:
    with pytest.raises(HandclrError, match="no labelled split 'test'"):
        AssemblyHands(copy, "test")
    with pytest.raises(HandclrError, match="not a folder"):
        AssemblyHands(copy / "nowhere", "val")
