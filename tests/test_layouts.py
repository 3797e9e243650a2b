"""The layouts of labelled data sets, read back by small readers of their own and held against the
scenes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import yaml
from conftest import Handclr, unpack
from fake_scenes import AWAY, FakeScene, project

from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.datasets.freihand import FreiHAND
from handclr_cli.synth import layout_dexycb
from handclr_cli.synth.layouts import (
    LAYOUTS,
    write_assemblyhands,
    write_dexycb,
    write_freihand,
)
from handclr_cli.synth.shot import HandTruth, Shot

pytestmark = pytest.mark.slow

# Where InterHand2.6M's order, which AssemblyHands has, keeps MediaPipe's joints 0 to 20.
TO_MEDIAPIPE = [20, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12, 19, 18, 17, 16]


def red_dot(path: Path) -> np.ndarray:
    """The centre of the dot, the first pixel's centre being 0, 0."""
    image = cv2.imread(str(path)).astype(float)
    weight = np.clip(image[..., 2] - np.median(image[..., 2]) - 12, 0, None)
    return np.array(
        [(weight.sum(0) @ np.arange(image.shape[1])), (weight.sum(1) @ np.arange(image.shape[0]))]
    ) / (weight.sum())


def load(path: Path) -> dict:
    return yaml.load(path.read_text(), Loader=yaml.FullLoader)


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_freihand_agrees_with_the_scenes(tmp_path: Path) -> None:
    steps: list[int] = []
    assert write_freihand(tmp_path / "set", FakeScene, 3, steps.append) == sum(steps) == 13
    base = tmp_path / "set" / "FreiHAND_pub_v2"
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == [
        "FreiHAND_pub_v2",
        "FreiHAND_pub_v2_eval",
    ]
    names = [
        f"{name}_{part}.json"
        for name in ("evaluation", "training")
        for part in ("K", "scale", "xyz")
    ]
    assert sorted(path.name for path in base.glob("*.json")) == sorted(
        set(names) - {"evaluation_xyz.json"}
    )
    for split, first, versions in (("train", 0, 4), ("eval", 3, 1)):
        data = FreiHAND(tmp_path / "set", split)
        assert data.versions == versions
        for item in data:
            scene = FakeScene(first + item.info["frame"], (224, 224), ("right",))
            shot = scene.shoot(0)
            np.testing.assert_allclose(item.keypoints3d, shot.hands[0].keypoints3d, atol=1e-9)
            np.testing.assert_allclose(item.intrinsics, shot.intrinsics, atol=1e-9)
            wrist = project(item.keypoints3d, item.intrinsics)[0]
            np.testing.assert_allclose(red_dot(item.path) + 0.5, wrist, atol=0.1)
            assert cv2.imread(str(item.path))[5, 5, 0] == 20 + 30 * (
                item.info["index"] // data.samples
            )
    xyz = np.array(json.loads((base / "training_xyz.json").read_text()))
    scale = json.loads((base / "training_scale.json").read_text())
    np.testing.assert_allclose(scale, np.linalg.norm(xyz[:, 9] - xyz[:, 10], axis=1))
    masks = [
        cv2.imread(str(base / "training" / "mask" / f"{i:08d}.jpg"), cv2.IMREAD_UNCHANGED)
        for i in range(3)
    ]
    assert len(list((base / "training" / "mask").iterdir())) == 3
    assert all((mask[10, 10], mask[30, 10], mask[100, 100]) == (255, 0, 0) for mask in masks)


def test_import_reads_freihand(tmp_path: Path, handclr: Handclr) -> None:
    write_freihand(tmp_path / "set", FakeScene, 2, lambda _: None)
    for split, count in (("train", 8), ("eval", 1)):
        done = handclr("import", "freihand", tmp_path / "set", "--split", split)
        assert done.returncode == 0, done.stderr
        assert len(unpack(done.stdout)) == count


@pytest.fixture(scope="module")
def dexycb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dexycb") / "set"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout_dexycb, "_SEQUENCES", 4)
        assert write_dexycb(root, FakeScene, 42, lambda _: None) == 40
    return root


def test_dexycb_has_the_names_of_the_original(dexycb: Path) -> None:
    subjects = ["20200709-subject-01", "20200813-subject-02", "20200820-subject-03"]
    assert sorted(path.name for path in dexycb.iterdir()) == [*subjects, "calibration"]
    sequences = sorted(path.parent for path in dexycb.glob("*/*/meta.yml"))
    assert [path.parent.name for path in sequences] == [subjects[0], *subjects]
    assert [path.name for path in sequences[:3]] == [
        "20200709_141754",
        "20200709_141824",
        "20200813_141754",
    ]
    metas = [load(path / "meta.yml") for path in sequences]
    assert [meta["mano_sides"] for meta in metas] == [["right"], ["left"], ["left"], ["right"]]
    assert [meta["num_frames"] for meta in metas] == [2, 1, 1, 1]
    for path, meta in zip(sequences, metas, strict=True):
        assert len(meta["serials"]) == 8 and all(
            isinstance(serial, str) for serial in meta["serials"]
        )
        assert sorted(entry.name for entry in path.iterdir()) == [
            *sorted(meta["serials"]),
            "meta.yml",
        ]
        assert (
            len(load(dexycb / f"calibration/mano_{meta['mano_calib'][0]}/mano.yml")["betas"]) == 10
        )
        for serial in meta["serials"]:
            frames = range(meta["num_frames"])
            expected = [f"color_{i:06d}.jpg" for i in frames] + [
                f"labels_{i:06d}.npz" for i in frames
            ]
            assert sorted(entry.name for entry in (path / serial).iterdir()) == expected


def test_dexycb_agrees_with_the_scenes(dexycb: Path) -> None:
    absent = {"view": 0, "by number": 0}
    # Scene 3 is of the first subject again.
    for index, place in zip(
        (0, 3, 1, 2), sorted(path.parent for path in dexycb.glob("*/*/meta.yml")), strict=True
    ):
        meta = load(place / "meta.yml")
        rig = load(dexycb / f"calibration/extrinsics_{meta['extrinsics']}/extrinsics.yml")
        to_master = {
            name: np.array(values).reshape(3, 4) for name, values in rig["extrinsics"].items()
        }
        assert all(isinstance(values, tuple) for values in rig["extrinsics"].values())
        np.testing.assert_allclose(to_master[rig["master"]], np.eye(3, 4), atol=1e-9)
        scene = FakeScene(index, (640, 480), tuple(meta["mano_sides"]))
        for frame in range(meta["num_frames"]):
            world = scene.world(frame, meta["mano_sides"][0])
            for camera, serial in enumerate(meta["serials"]):
                lens = load(dexycb / f"calibration/intrinsics/{serial}_640x480.yml")["color"]
                labels = np.load(place / serial / f"labels_{frame:06d}.npz")
                image = place / serial / f"color_{frame:06d}.jpg"
                shapes = {
                    name: (labels[name].dtype.name, labels[name].shape) for name in labels.files
                }
                assert shapes == {
                    "seg": ("uint8", (480, 640)),
                    "pose_y": ("float32", (1, 3, 4)),
                    "pose_m": ("float32", (1, 51)),
                    "joint_3d": ("float32", (1, 21, 3)),
                    "joint_2d": ("float32", (1, 21, 2)),
                }
                assert cv2.imread(str(image)).shape == (480, 640, 3)
                assert set(np.unique(labels["seg"])) - {0, 255} == set(meta["ycb_ids"])
                if (labels["joint_3d"] == -1).all():
                    assert (labels["joint_2d"] == -1).all() and labels["seg"][10, 10] == 0
                    absent["view" if camera == AWAY else "by number"] += 1
                    continue
                assert labels["seg"][10, 10] == 255
                joints = labels["joint_3d"][0].astype(float)
                matrix = np.array(
                    [[lens["fx"], 0, lens["ppx"]], [0, lens["fy"], lens["ppy"]], [0, 0, 1]]
                )
                np.testing.assert_allclose(
                    project(joints, matrix), labels["joint_2d"][0], atol=1e-4
                )
                np.testing.assert_allclose(red_dot(image), labels["joint_2d"][0, 0], atol=0.1)
                in_master = joints @ to_master[serial][:, :3].T + to_master[serial][:, 3]
                tag = to_master["apriltag"]
                np.testing.assert_allclose((in_master - tag[:, 3]) @ tag[:, :3], world, atol=1e-6)
    assert absent == {"view": 5, "by number": 1}


def test_dexycb_puts_a_crowd_into_ten_folders(tmp_path: Path) -> None:
    class Crowd(FakeScene):
        people = 12

    assert write_dexycb(tmp_path / "set", Crowd, 96, lambda _: None) == 96
    subjects = sorted((tmp_path / "set").glob("2020*"))
    assert [len(list(path.glob("*/meta.yml"))) for path in subjects] == [2, 2] + [1] * 8


class Camera(NamedTuple):
    """Its place among the sequence's cameras, intrinsics (3, 3), and world to camera (3, 4) in a
    frame.
    """

    number: int
    intrinsics: np.ndarray
    pose: np.ndarray

    def sees(self, world: list[list[float]]) -> np.ndarray:
        return np.array(world) @ self.pose[:, :3].T + self.pose[:, 3]


def camera_of(cameras: dict[str, Any], frame: str, name: str) -> Camera:
    name += "_mono10bit"
    matrix, pose = cameras["intrinsics"][name], cameras["extrinsics"][frame][name]
    return Camera(list(cameras["intrinsics"]).index(name), np.array(matrix), np.array(pose))


def shot_of(scene: int, moment: int, camera: int) -> Shot:
    return FakeScene(scene, (636, 480), ("left", "right")).shoot(moment, camera)


class Annotations(NamedTuple):
    """What the three files of a split say: images by their number and labels, cameras and joints by
    sequence.
    """

    images: dict[int, dict[str, Any]]
    labels: list[dict[str, Any]]
    cameras: dict[str, Any]
    joints: dict[str, Any]


def annotations_of(root: Path, split: str) -> Annotations:
    start = root / "annotations" / split / f"assemblyhands_{split}"
    data, calibration, joints = (
        json.loads(Path(f"{start}_{name}_v1-1.json").read_text())
        for name in ("ego_data", "ego_calib", "joint_3d")
    )
    images = {image["id"]: image for image in data["images"]}
    cameras, points = calibration["calibration"], joints["annotations"]
    return Annotations(images, data["annotations"], cameras, points)


def assert_is_filed(root: Path, split: str, image: dict[str, Any]) -> None:
    """The image is where its sequence, camera and frame say, and of the size that it says."""
    camera, frame = image["camera"] + "_mono10bit", f"{image['frame_idx']:06d}"
    path = f"ego_images_rectified/{split}/{image['seq_name']}/{camera}/{frame}.jpg"
    assert image["file_name"] == path and (image["width"], image["height"]) == (636, 480)
    assert cv2.imread(str(root / "images" / path), cv2.IMREAD_UNCHANGED).shape == (480, 636)


def assert_agrees(
    label: dict[str, Any], part: slice, joints: np.ndarray, matrix: np.ndarray, truth: HandTruth
) -> None:
    """The part of the joints (42, 3), mm, that is the hand; they are valid inside the picture, and
    the box is that of all of them, cut to the picture.
    """
    mine = joints[part][TO_MEDIAPIPE]
    np.testing.assert_allclose(mine, 1000 * truth.keypoints3d, atol=1e-4)
    pixels = project(mine, matrix)
    inside = ((pixels >= 0) & (pixels < [636, 480])).all(axis=1)
    np.testing.assert_array_equal(np.array(label["joint_valid"])[part][TO_MEDIAPIPE], inside)
    box = label["bbox"][truth.side]
    assert (box is None) == (not inside.any())
    if box is not None:
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        np.testing.assert_allclose(box, np.clip([*low, *high], 0, [636, 480] * 2), atol=1e-4)


def test_assemblyhands_agrees_with_the_scenes(tmp_path: Path) -> None:
    root = tmp_path / "set"
    written = write_assemblyhands(root, FakeScene, 40, lambda _: None)
    count, first = 0, 0
    for split, sequences in (("train", 2), ("val", 1)):
        images, labels, cameras, joints = annotations_of(root, split)
        assert len(cameras) == len(joints) == sequences
        scenes = {name: first + number for number, name in enumerate(cameras)}
        assert [label["image_id"] for label in labels] == list(images)
        count += len(images)
        for label in labels:
            image = images[label["image_id"]]
            name, frame = image["seq_name"], f"{image['frame_idx']:06d}"
            assert_is_filed(root, split, image)
            camera = camera_of(cameras[name], frame, image["camera"])
            assert camera.number != 2, "no hand is in this camera's view"
            shot = shot_of(scenes[name], image["frame_idx"] // 10, camera.number)
            np.testing.assert_allclose(camera.intrinsics, shot.intrinsics)
            assert joints[name][frame]["joint_valid"] == [1] * 42
            seen = camera.sees(joints[name][frame]["world_coord"])
            for part, truth in zip((slice(21, 42), slice(21)), shot.hands, strict=True):
                assert_agrees(label, part, seen, camera.intrinsics, truth)
            assert (label["bbox"]["right"] is None) == (camera.number == 1)
        first += sequences
    assert count == written == 3 * (10 + 1) == len(list(root.glob("images/*/*/*/*/*.jpg")))


def test_skeleton_of_assemblyhands(tmp_path: Path) -> None:
    write_assemblyhands(tmp_path / "set", FakeScene, 1, lambda _: None)
    lines = (tmp_path / "set" / "annotations" / "skeleton.txt").read_text().splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    assert [int(row[1]) for row in rows] == list(range(42))
    parents = [int(row[2]) for row in rows]
    assert parents[:8] == [1, 2, 3, 20, 5, 6, 7, 20] and parents[20] == parents[41] == -1
    assert parents[21:41] == [parent + 21 for parent in parents[:20]]
    assert [row[0] for row in (rows[0], rows[20], rows[38], rows[41])] == [
        "r_thumb4",
        "r_wrist",
        "l_pinky3",
        "l_wrist",
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_scenes_give_the_same_bytes(layout: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        steps: list[int] = []
        assert LAYOUTS[layout](tmp_path / name / "set", FakeScene, 3, steps.append) <= sum(steps)
    assert files(tmp_path / "one") == files(tmp_path / "two")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_name_means_complete(layout: str, tmp_path: Path) -> None:
    def stop(_: int) -> None:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        LAYOUTS[layout](tmp_path / "set", FakeScene, 1, stop)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "set").mkdir()
    LAYOUTS[layout](tmp_path / "set", FakeScene, 1, lambda _: None)
    before = files(tmp_path)
    with pytest.raises(UsageError, match="not an empty folder"):
        LAYOUTS[layout](tmp_path / "set", FakeScene, 1, lambda _: None)
    with pytest.raises(UsageError, match="ask for 1 or more"):
        LAYOUTS[layout](tmp_path / "other", FakeScene, 0, lambda _: None)
    assert files(tmp_path) == before and len(list(tmp_path.iterdir())) == 1
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="not an empty folder"):
        LAYOUTS[layout](tmp_path / "file", FakeScene, 1, lambda _: None)
    with pytest.raises(HandclrError, match="cannot write .*inside"):
        LAYOUTS[layout](tmp_path / "file" / "inside", FakeScene, 1, lambda _: None)


def test_what_a_layout_cannot_say_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Restless(FakeScene):
        restless = True

    class Nobody(FakeScene):
        def shoot(self, time: int, camera: int = 0, backdrop: int = 0) -> Shot:
            shot = super().shoot(time, camera, backdrop)
            return Shot(shot.image, shot.intrinsics, shot.extrinsics, (), shot.segmentation)

    class Zoom(FakeScene):
        def shoot(self, time: int, camera: int = 0, backdrop: int = 0) -> Shot:
            shot = super().shoot(time, camera, backdrop)
            return Shot(
                shot.image,
                shot.intrinsics * 1.1**self.index,
                shot.extrinsics,
                shot.hands,
                shot.segmentation,
            )

    monkeypatch.setattr(layout_dexycb, "_SEQUENCES", 1)
    with pytest.raises(HandclrError, match="intrinsics of camera 836212060125 change"):
        write_dexycb(tmp_path / "set", Zoom, 80, lambda _: None)
    with pytest.raises(HandclrError, match="extrinsics of camera 836212060125 change"):
        write_dexycb(tmp_path / "set", Restless, 24, lambda _: None)
    with pytest.raises(HandclrError, match="no right hand"):
        write_freihand(tmp_path / "set", Nobody, 1, lambda _: None)
    assert list(tmp_path.iterdir()) == []
