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
from handclr_cli.datasets.import_job import run_import
from handclr_cli.datasets.import_settings import ImportAssemblyhandsSettings
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


def becomes(root: Path, count: int = 18) -> list[str]:
    """What becomes of the items: the side of the hand, or why there is none."""
    importer = Importer(AssemblyHands(root, "train"), size=32)
    assert len(importer.data) == count
    return [str(made.invalid or made.side) for made in map(importer.make, range(count))]


def test_an_image_of_another_size_than_annotated_is_skipped(copy: Path) -> None:
    before = becomes(copy)
    change(copy, "ego_data", lambda content: content["images"][0].update(width=635))
    change(copy, "ego_data", lambda content: content["images"][6].pop("width"))
    other = str(Invalid.OTHER_SIZE)
    assert becomes(copy) == [other if row < 2 else was for row, was in enumerate(before)]


def test_the_same_annotation_twice_is_taken_once_and_two_that_differ_are_not(copy: Path) -> None:
    before = becomes(copy)

    def again(content: Any) -> None:
        images, labels = content["images"], content["annotations"]
        labels.append({**labels[0], "id": 700})
        images.append({**images[0], "id": 701})
        labels.append({**labels[0], "id": 701, "image_id": 701})

    change(copy, "ego_data", again)
    repeated = str(Invalid.REPEATED)
    assert becomes(copy, 22) == [*before, *4 * [repeated]]
    valid = [int(joint != INDEX_TIP) for joint in range(42)]
    change(copy, "ego_data", lambda content: content["annotations"][-1].update(joint_valid=valid))
    assert becomes(copy, 22) == [*2 * ["with labels missing or damaged"], *before[2:]] + [
        *2 * [repeated],
        *2 * ["with labels missing or damaged"],
    ]
    change(copy, "ego_data", lambda content: content["images"][-1].update(id=0, camera="x"))
    with pytest.raises(HandclrError, match="image id 0 comes twice"):
        AssemblyHands(copy, "train")


def calibrated(edit: Callable[[Any, Any], object]) -> Callable[[Any], None]:
    """An edit of the intrinsics, and the first moment's extrinsics, of all sequences."""

    def change_all(content: Any) -> None:
        for sequence in content["calibration"].values():
            edit(sequence["intrinsics"], sequence["extrinsics"]["000000"])

    return change_all


FIRST = "HMC_21176875_mono10bit"


@pytest.mark.parametrize(
    ("name", "edit", "moments"),
    [
        ("ego_calib", calibrated(lambda _, e: e[FIRST][0].__setitem__(3, np.nan)), [0]),
        ("ego_calib", calibrated(lambda _, e: e[FIRST][1].__setitem__(1, None)), [0]),
        ("ego_calib", calibrated(lambda _, e: e.update({FIRST: [[0] * 4] * 3})), [0]),
        ("ego_calib", calibrated(lambda _, e: e[FIRST].__setitem__(0, [0.2, 0, 0, 0])), [0]),
        ("ego_calib", calibrated(lambda i, _: i[FIRST][0].__setitem__(0, 0)), [0, 1, 2]),
        ("ego_calib", calibrated(lambda i, _: i[FIRST][1].__setitem__(2, np.nan)), [0, 1, 2]),
    ],
)
def test_one_wrong_number_of_a_calibration_costs_its_images_only(
    name: str, edit: Callable[[Any], None], moments: list[int], copy: Path
) -> None:
    before, cameras = becomes(copy), items(AssemblyHands(copy, "train"))
    change(copy, name, edit)
    paths = [item[1] if isinstance(item, tuple) else item.path for item in cameras]
    after = becomes(copy)
    for row, (was, now, path) in enumerate(zip(before, after, paths, strict=True)):
        hit = FIRST in str(path) and row // 6 in moments
        assert now == (str(Invalid.BAD_CAMERA) if hit and was in ("right", "left") else was)


def test_a_moment_that_is_no_hand_is_a_reason(copy: Path) -> None:
    def flatten(content: Any) -> None:
        for moments in content["annotations"].values():
            moments["000000"]["world_coord"] = [[0.0, 0, 0]] * 42

    change(copy, "joint_3d", flatten)
    found = becomes(copy)
    assert found[0] == str(Invalid.NO_HAND)
    assert not {"left", "right"} & set(found[:6]) and {"left", "right"} <= set(found[6:])


def test_labels_in_another_unit_are_refused(copy: Path) -> None:
    def in_metres(content: Any) -> None:
        for moments in content["annotations"].values():
            for moment in moments.values():
                moment["world_coord"] = (np.array(moment["world_coord"]) / 1000).tolist()

    change(copy, "joint_3d", in_metres)
    settings = ImportAssemblyhandsSettings(root=str(copy), output=str(copy / "x.tar"))
    with pytest.raises(HandclrError, match="labels of another unit.* 1,000 times too short"):
        run_import(settings)


@pytest.mark.parametrize("frame", [-1, 100_000_000, 1680000000023456789, 3.5, "x"])
def test_a_frame_that_is_none_is_one_line(frame: object, copy: Path) -> None:
    change(copy, "ego_data", lambda content: content["images"][3].update(frame_idx=frame))
    with pytest.raises(HandclrError, match=r"ego_data.*not as in v1-1"):
        AssemblyHands(copy, "train")


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
