"""The FreiHAND reader on a tiny copy of its layout, and the labelled crops."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.fields import VALID
from handclr_cli.datasets.freihand import FreiHAND
from handclr_cli.datasets.import_job import run_import
from handclr_cli.datasets.import_settings import ImportFreihandSettings
from handclr_cli.datasets.labelled import Importer, Invalid
from handclr_cli.hand.labelled_crop import labelled_crop, labelled_sample

CAMERA = np.array([[480.0, 0, 112], [0, 470, 110], [0, 0, 1]])


def camera(index: int) -> np.ndarray:
    return CAMERA + [[index, 0, index], [0, index, index], [0, 0, 0]]


def hand(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.04, (21, 3)) + [0.01, 0.02, 0.6]


def write_split(base: Path, prefix: str, samples: int, versions: int) -> None:
    (base / prefix / "rgb").mkdir(parents=True)
    for index in range(samples * versions):
        image = np.full((224, 224, 3), 20 * index, dtype=np.uint8)
        cv2.imwrite(str(base / prefix / "rgb" / f"{index:08d}.jpg"), image)
    (base / f"{prefix}_K.json").write_text(json.dumps([camera(i).tolist() for i in range(samples)]))
    (base / f"{prefix}_xyz.json").write_text(json.dumps([hand(i).tolist() for i in range(samples)]))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    base = tmp_path / "FreiHAND_pub_v2"
    write_split(base, "training", samples=3, versions=2)
    write_split(base, "evaluation", samples=2, versions=1)
    return base


def test_versions_share_labels(base: Path) -> None:
    images = list(FreiHAND(base, "train"))
    assert [image.path.name for image in images] == [f"{i:08d}.jpg" for i in range(6)]
    assert [image.info["sample"] for image in images] == [
        f"freihand-train-{i % 3:08d}" for i in range(6)
    ]
    assert [image.info["version"] for image in images] == ["v0"] * 3 + ["v1"] * 3
    assert [(image.info["frame"], image.info["index"]) for image in images] == [
        (i % 3, i) for i in range(6)
    ]
    assert images[4].path.is_file()
    np.testing.assert_array_equal(images[4].keypoints3d, hand(1))
    np.testing.assert_array_equal(images[4].intrinsics, camera(1))


def test_four_versions_have_their_names(tmp_path: Path) -> None:
    write_split(tmp_path, "training", samples=1, versions=4)
    assert [item.info["version"] for item in FreiHAND(tmp_path, "train")] == [
        "gs",
        "hom",
        "sample",
        "auto",
    ]


def test_both_spellings_of_the_root(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        len(FreiHAND(base, "train"))
        == len(FreiHAND(base.parent, "train"))
        == len(FreiHAND(str(base), "train"))
        == 6
    )
    assert len(FreiHAND(base, "eval")) == len(FreiHAND(base.parent, "eval")) == 2
    monkeypatch.chdir(base)
    assert len(FreiHAND(".", "train")) == 6


@pytest.mark.parametrize("root", ["FreiHAND_pub_v2", ".", "inside"])
def test_evaluation_labels_in_the_sibling_folder(
    base: Path, monkeypatch: pytest.MonkeyPatch, root: str
) -> None:
    sibling = base.parent / "FreiHAND_pub_v2_eval"
    sibling.mkdir()
    shutil.move(base / "evaluation_xyz.json", sibling / "evaluation_xyz.json")
    monkeypatch.chdir(base if root == "inside" else base.parent)
    images = list(FreiHAND("." if root == "inside" else root, "eval"))
    assert len(images) == 2
    np.testing.assert_array_equal(images[1].keypoints3d, hand(1))


@pytest.mark.parametrize(
    ("name", "split", "words"),
    [
        ("training_xyz.json", "train", ["training_xyz.json is missing", "FreiHAND_pub_v2"]),
        ("training_K.json", "train", ["training_K.json is missing"]),
        ("training/rgb", "train", ["training/rgb is missing"]),
        ("evaluation_xyz.json", "eval", ["evaluation_xyz.json is missing", "FreiHAND_pub_v2_eval"]),
        ("training/rgb/00000005.jpg", "train", ["5 images", "multiple of the 3 entries"]),
    ],
)
def test_missing_parts_are_named(base: Path, name: str, split: str, words: list[str]) -> None:
    path = base / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(HandclrError) as caught:
        FreiHAND(base, split)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_gap_in_the_numbers_is_named(base: Path) -> None:
    (base / "training/rgb/00000002.jpg").rename(base / "training/rgb/00000009.jpg")
    with pytest.raises(HandclrError, match=r"no 00000002\.jpg"):
        FreiHAND(base, "train")


def test_labels_that_do_not_fit_are_refused(base: Path, tmp_path: Path) -> None:
    (base / "training_K.json").write_text(json.dumps([CAMERA.tolist()] * 2))
    with pytest.raises(HandclrError, match="has 2 entries but .* has 3"):
        FreiHAND(base, "train")
    (base / "training_xyz.json").write_text("[[[0, 1")
    with pytest.raises(HandclrError, match="not a JSON list of numbers"):
        FreiHAND(base, "train")
    (base / "training_xyz.json").write_text("[]")
    with pytest.raises(HandclrError, match="shape"):
        FreiHAND(base, "train")
    with pytest.raises(HandclrError, match="not a folder"):
        FreiHAND(tmp_path / "nowhere", "train")
    with pytest.raises(HandclrError, match="no split 'test'"):
        FreiHAND(base, "test")


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("offset", [0.0, 0.12])
def test_labelled_crop_projects_onto_its_points(left: bool, offset: float) -> None:
    points = hand(3) + [offset, 0, 0]
    image = np.random.default_rng(0).integers(0, 255, (224, 224, 3), dtype=np.uint8)
    crop = labelled_crop(image, points, CAMERA, size=160, left=left)
    assert crop["image"].shape == (160, 160, 3)
    assert crop["image"].dtype == np.uint8
    for name in ("keypoints2d", "keypoints3d", "intrinsics"):
        assert crop[name].dtype == np.float32
    assert crop["intrinsics"][0, 0] > 0
    uvw = crop["keypoints3d"].astype(np.float64) @ crop["intrinsics"].astype(np.float64).T
    np.testing.assert_allclose(uvw[:, :2] / uvw[:, 2:], crop["keypoints2d"], atol=1e-3)

    # The same points by the box alone.
    uvw = points @ CAMERA.T
    x0, y0, x1, y1 = crop["box"]
    assert all(type(value) is int for value in crop["box"])
    assert x1 - x0 == y1 - y0
    expected = (uvw[:, :2] / uvw[:, 2:] - [x0, y0]) * 160 / (x1 - x0)
    if left:
        expected[:, 0] = 160 - expected[:, 0]
    np.testing.assert_allclose(crop["keypoints2d"], expected, atol=1e-3)
    np.testing.assert_allclose(crop["keypoints3d"], points * [-1 if left else 1, 1, 1], atol=1e-6)


@pytest.mark.parametrize("left", [False, True])
def test_labelled_crop_moves_pixels_with_points(left: bool) -> None:
    points = hand(4)
    uvw = points @ CAMERA.T
    image = np.zeros((224, 224, 3), dtype=np.uint8)
    tip = uvw[8, :2] / uvw[8, 2]
    cv2.circle(
        image,
        (int(tip[0] * 16 - 8), int(tip[1] * 16 - 8)),
        5 * 16,
        (255, 255, 255),
        -1,
        cv2.LINE_AA,
        4,
    )
    crop = labelled_crop(image, points, CAMERA, left=left)
    weight = crop["image"][..., 0].astype(np.float64)
    rows, columns = np.indices(weight.shape) + 0.5
    centre = [(columns * weight).sum() / weight.sum(), (rows * weight).sum() / weight.sum()]
    np.testing.assert_allclose(centre, crop["keypoints2d"][8], atol=0.3)


def test_joints_without_labels_lie_at_the_wrist_and_do_not_widen_the_crop() -> None:
    points, valid = hand(5), np.arange(21) % 4 != 3
    valid[[0, 9]] = True
    wild = np.where(valid[:, None], points, np.nan)
    crop = labelled_crop(np.zeros((224, 224, 3), np.uint8), wild, CAMERA, left=True, valid=valid)
    low, high = crop["keypoints2d"][valid].min(axis=0), crop["keypoints2d"][valid].max(axis=0)
    assert max(high - low) == pytest.approx(224 / 1.5, rel=0.02)
    np.testing.assert_array_equal(
        crop["keypoints2d"][~valid], np.tile(crop["keypoints2d"][0], ((~valid).sum(), 1))
    )
    np.testing.assert_array_equal(
        crop["keypoints3d"][~valid], np.tile(crop["keypoints3d"][0], ((~valid).sum(), 1))
    )
    sample = labelled_sample("key", crop, {}, 90)
    assert sample.valid.tolist() == valid.tolist()
    full = labelled_crop(np.zeros((224, 224, 3), np.uint8), points, CAMERA, valid=np.ones(21))
    assert VALID not in labelled_sample("key", full, {}, 90)


def test_a_hand_behind_the_camera_is_refused() -> None:
    with pytest.raises(HandclrError, match="front of its camera"):
        labelled_crop(np.zeros((8, 8, 3), np.uint8), hand(0) - [0, 0, 1], CAMERA)


def test_samples_carry_the_layout(base: Path) -> None:
    importer = Importer(FreiHAND(base, "train"), size=64)
    made = [importer.make(number) for number in range(6)]
    samples = [one.sample for one in made if one.sample]
    assert len(samples) == 6 and len({sample.key for sample in samples}) == 6
    assert samples[4].key == "freihand-train-v1_00000001_r"
    expected = {
        "frame": 1,
        "version": "v1",
        "index": 4,
        "sample": "freihand-train-00000001",
        "hand": "right",
    }
    assert expected.items() <= samples[4].info.items()
    assert samples[4].info["source_size"] == [224, 224] and not samples[4].info["flipped"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "with the image missing"),
        (lambda path: path.write_bytes(b""), "with a damaged image"),
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "with a damaged image"),
        (lambda path: path.write_bytes(b"not an image" + b"\xff\xd9"), "with a damaged image"),
    ],
)
def test_a_broken_image_is_a_reason_not_an_exception(
    base: Path, damage: Callable[[Path], Any], reason: str
) -> None:
    data = FreiHAND(base, "train")
    damage(data[2].path)
    made = Importer(data).make(2)
    assert (
        made.invalid is not None
        and str(made.invalid) == reason
        and made.invalid.broken
        and made.sample is None
    )


@pytest.mark.parametrize("shift", [[0, 0, -0.6], [0, 0, -0.52]])
def test_a_hand_at_or_behind_the_lens_is_a_reason(base: Path, shift: list[float]) -> None:
    data = FreiHAND(base, "train")
    data.keypoints3d[1] += shift
    # One joint a hair before the lens would need a crop of gigabytes.
    data.keypoints3d[1, :, 2] = np.where(
        data.keypoints3d[1, :, 2] > 0.1, 1e-5, data.keypoints3d[1, :, 2]
    )
    made = Importer(data).make(1)
    assert (
        made.invalid is not None
        and made.invalid == "not in front of the camera"
        and not made.invalid.broken
    )


def reasons(base: Path, split: str = "train") -> list[str]:
    """What becomes of the images: the side of the hand, or why there is none."""
    data = FreiHAND(base, split)
    made = map(Importer(data, size=64).make, range(len(data)))
    return [str(one.invalid or one.side) for one in made]


@pytest.mark.parametrize("odd", [0, 1, 5])
def test_an_image_of_another_size_than_most_is_skipped(base: Path, odd: int) -> None:
    path = base / "training" / "rgb" / f"{odd:08d}.jpg"
    cv2.imwrite(str(path), np.zeros((112, 112, 3), np.uint8))
    expected = ["right"] * 6
    expected[odd] = "with an image of another size than labelled"
    assert reasons(base) == expected


def test_images_of_the_published_set_have_its_size(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that was made smaller as a whole is no FreiHAND, though its images agree."""
    monkeypatch.setattr("handclr_cli.datasets.freihand._PUBLISHED", (3,))
    assert reasons(base) == ["right"] * 6
    for path in (base / "training" / "rgb").iterdir():
        cv2.imwrite(str(path), np.zeros((112, 112, 3), np.uint8))
    assert reasons(base) == ["with an image of another size than labelled"] * 6


def relabelled(base: Path, name: str, edit: Callable[[Any], object]) -> None:
    path = base / f"training_{name}.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "edit", "reason"),
    [
        ("K", lambda c: c[1][0].__setitem__(0, np.nan), Invalid.BAD_CAMERA),
        ("K", lambda c: c[1][1].__setitem__(2, None), Invalid.BAD_CAMERA),
        ("K", lambda c: c[1][1].__setitem__(1, 0), Invalid.BAD_CAMERA),
        ("K", lambda c: c.__setitem__(1, [[0, 0, 0]] * 3), Invalid.BAD_CAMERA),
        ("K", lambda c: c.__setitem__(1, [[2.1, 0, 0.5], [0, 2.1, 0.5], [0, 0, 1]]), "shares"),
        ("xyz", lambda c: c[1][4].__setitem__(2, np.inf), Invalid.BAD_LABELS),
        ("xyz", lambda c: c[1][4].__setitem__(2, None), Invalid.BAD_LABELS),
        ("xyz", lambda c: c.__setitem__(1, [[0.01, 0.02, 0.6]] * 21), Invalid.NO_HAND),
        ("xyz", lambda c: c[1][8].__setitem__(0, 2.0), Invalid.NO_HAND),
        ("xyz", lambda c: [joint.__setitem__(0, joint[0] + 1) for joint in c[1]], Invalid.OUTSIDE),
        ("xyz", lambda c: c.__setitem__(1, [[0, 0, 0]] * 21), Invalid.BEHIND),
    ],
)
def test_one_wrong_number_costs_its_images_only(
    base: Path, name: str, edit: Callable[[Any], object], reason: str
) -> None:
    relabelled(base, name, edit)
    expected = Invalid.BAD_CAMERA if reason == "shares" else reason
    assert reasons(base) == ["right", str(expected), "right"] * 2


@pytest.mark.parametrize(("scale", "unit"), [(1000, "millimetres"), (100, "centimetres")])
def test_labels_in_another_unit_are_refused(base: Path, scale: int, unit: str) -> None:
    xyz = np.array(json.loads((base / "training_xyz.json").read_text()))
    (base / "training_xyz.json").write_text(json.dumps((scale * xyz).tolist()))
    settings = ImportFreihandSettings(root=str(base), output=str(base / "x.tar"))
    with pytest.raises(HandclrError, match=f"labels of another unit.* {unit}") as caught:
        run_import(settings)
    assert "\n" not in str(caught.value) and not (base / "x.tar").exists()


@pytest.mark.real
def test_real_images(real_data: Path) -> None:
    for split, images in (("train", 400), ("eval", 183)):
        data = FreiHAND(real_data / "freihand", split)
        assert len(data) == images
        for number in range(0, images, 50):
            sample = Importer(data).make(number).sample
            assert sample is not None and sample.image.std() > 5
            assert 0 <= sample.keypoints2d.min() <= sample.keypoints2d.max() <= 224
