"""The landmarker: finds drawn hands on the right side of the body, wherever they are and whatever
came before.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Handclr, drawn_pair, lines
from drawn_hand import draw_hand, hand_joints
from shard_helpers import crops, write_shard

from handclr_cli.contract.errors import HandclrError
from handclr_cli.datasets.freihand import FreiHAND
from handclr_cli.datasets.labelled import LabelledHand
from handclr_cli.footage.landmarker import Landmarker
from handclr_cli.footage.model_file import NETWORKS
from handclr_cli.hand.alignment import bone_scaled, root_relative


@pytest.fixture(scope="module")
def detector(landmarker_file: Path) -> Iterator[Landmarker]:
    with Landmarker(landmarker_file) as detector:
        yield detector


@pytest.mark.slow
@pytest.mark.landmarker
@pytest.mark.parametrize("side", ["right", "left"])
def test_drawn_hands_are_found(detector: Landmarker, side: str) -> None:
    """What the other tests stand on."""
    found, errors = 0, []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        centre = (320 + rng.uniform(-80, 80), 250 + rng.uniform(-30, 30))
        pose = (
            centre,
            rng.uniform(13, 21),
            rng.uniform(-25, 25),
            rng.uniform(0.7, 1.8),
            rng.uniform(0, 0.35),
        )
        hands = detector.find(draw_hand((480, 640), *pose, mirrored=side == "left", seed=seed))
        if [hand.side for hand in hands] == [side]:
            found += 1
            joints = hand_joints(*pose, mirrored=side == "left")[:, :2]
            errors.append(
                np.linalg.norm(hands[0].keypoints - joints, axis=1).mean()
                / np.ptp(joints, axis=0).max()
            )
    assert found >= 18
    assert np.median(errors) < 0.04


@pytest.mark.landmarker
@pytest.mark.parametrize("size", [(480, 640), (640, 400), (480, 480), (333, 517)])
def test_non_square_pictures(detector: Landmarker, size: tuple[int, int]) -> None:
    """Where the hand is found does not depend on the shape of the picture: it is the same as in the
    padded square.
    """
    centre = (size[1] / 2 + 20, size[0] / 2 + 10)
    image = draw_hand(size, centre, 13)
    (hand,) = detector.find(image)
    errors = np.linalg.norm(hand.keypoints - hand_joints(centre, 13)[:, :2], axis=1)
    assert (
        hand.keypoints.shape == (21, 2) and np.median(errors) < 0.6 * 13 and errors.max() < 2 * 13
    )

    side = max(size)
    offset = np.array([(side - size[1]) // 2, (side - size[0]) // 2])
    square = np.zeros((side, side, 3), np.uint8)
    square[offset[1] : offset[1] + size[0], offset[0] : offset[0] + size[1]] = image
    (same,) = detector.find(square)
    np.testing.assert_allclose(same.keypoints - offset, hand.keypoints, atol=1e-6)
    assert (same.side, same.score) == (hand.side, hand.score)


@pytest.mark.landmarker
def test_the_shape_is_in_the_axes_of_the_picture(detector: Landmarker) -> None:
    """Metres from the wrist; where the picture is turned by 90 degrees, the shape is."""
    image = draw_hand((480, 480), (240, 250), 14)
    (hand,) = detector.find(image)
    assert hand.world is not None and hand.world.shape == (21, 3) and (hand.world[0] == 0).all()
    assert 0.06 < np.linalg.norm(hand.world[9]) < 0.14
    assert hand.world[12, 1] < hand.world[9, 1] < 0  # fingers up: y is down
    for turns, turn in enumerate((((0, 1), (-1, 0)), ((-1, 0), (0, -1)), ((0, -1), (1, 0))), 1):
        (turned,) = detector.find(np.ascontiguousarray(np.rot90(image, turns)))
        assert turned.world is not None
        np.testing.assert_allclose(
            turned.world[:, :2], hand.world[:, :2] @ np.array(turn).T, atol=0.02
        )
        np.testing.assert_allclose(turned.world[:, 2], hand.world[:, 2], atol=0.02)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.landmarker
def test_real_shapes_are_in_the_axes_of_the_camera(detector: Landmarker, real_data: Path) -> None:
    """Of labelled right hands: after root and bone alignment nearer than 35 mm, with an axis the
    other way round twice as far at least; a mirrored picture shows the mirrored shape.
    """
    data = FreiHAND(real_data / "freihand", "eval")
    shapes, truths, mirrored = [], [], []
    for number in range(0, len(data), 9):
        item = data[number]
        assert isinstance(item, LabelledHand)
        image = cv2.cvtColor(cv2.imread(str(item.path)), cv2.COLOR_BGR2RGB)
        found = detector.find(image)
        flipped = detector.find(np.ascontiguousarray(image[:, ::-1]))
        if len(found) == len(flipped) == 1:
            shapes.append(found[0].world)
            mirrored.append(flipped[0].world)
            truths.append(item.keypoints3d)
    assert len(shapes) >= 15
    shape, truth = np.stack(shapes), root_relative(np.stack(truths))

    def error(hands: np.ndarray) -> float:
        return float(np.linalg.norm(bone_scaled(hands, truth) - truth, axis=2).mean())

    assert error(shape) < 0.035
    for axis in ((-1, 1, 1), (1, -1, 1), (1, 1, -1)):
        assert error(shape * axis) > 2 * error(shape)
    back, same = (
        float(np.linalg.norm(np.stack(mirrored) * axis - shape, axis=2).mean())
        for axis in ((-1, 1, 1), (1, 1, 1))
    )
    assert back < 0.025 < 2 * back < same


@pytest.mark.landmarker
def test_pictures_before_make_no_difference(detector: Landmarker, landmarker_file: Path) -> None:
    image = drawn_pair(1)[0]
    before = detector.find(image)
    detector.find(draw_hand(seed=3))
    with Landmarker(landmarker_file) as fresh:
        for again in (detector.find(image), fresh.find(image)):
            assert [hand.side for hand in again] == [hand.side for hand in before]
            for one, other in zip(again, before, strict=True):
                np.testing.assert_array_equal(one.keypoints, other.keypoints)


@pytest.mark.landmarker
def test_most_confident_first(detector: Landmarker, landmarker_file: Path) -> None:
    hands = detector.find(drawn_pair(0)[0])
    assert sorted(hand.side for hand in hands) == ["left", "right"]
    assert hands[0].score >= hands[1].score
    with Landmarker(landmarker_file, max_hands=1) as one:
        assert len(one.find(drawn_pair(0)[0])) == 1


@pytest.mark.landmarker
def test_views_and_read_only_pictures(detector: Landmarker) -> None:
    image = draw_hand((240, 240), (120, 125), 9)
    (hand,) = detector.find(image)
    stepped = np.repeat(image, 2, axis=1)[:, ::2]
    stepped.flags.writeable = False
    np.testing.assert_array_equal(detector.find(stepped)[0].keypoints, hand.keypoints)
    (mirrored,) = detector.find(image[:, ::-1])
    assert (hand.side, mirrored.side) == ("right", "left")


@pytest.mark.slow
def test_file_that_is_no_landmarker(tmp_path: Path) -> None:
    (tmp_path / "bad.task").write_text("no landmarker")
    with pytest.raises(HandclrError, match="bad.task: MediaPipe cannot load"):
        Landmarker(tmp_path / "bad.task")


@pytest.mark.landmarker
@pytest.mark.parametrize("command", ["extract", "keypoints"])
@pytest.mark.slow
def test_a_damaged_landmarker_is_one_line(command: str, tmp_path: Path, handclr: Handclr) -> None:
    """A file of the right form whose networks are not: MediaPipe would print pages of it."""
    with zipfile.ZipFile(tmp_path / "odd.task", "w") as task:
        for name in NETWORKS:
            task.writestr(name, bytes(5000))
    cv2.imwrite(str(tmp_path / "film.png"), np.zeros((64, 64, 3), np.uint8))
    write_shard(tmp_path / "film.tar", crops(frames=9))
    source = {"extract": "film.png", "keypoints": "film.tar"}[command]
    words = [command, source, "--landmarker", "odd.task", "--workers", "0", "-o", "x.tar"]
    done = handclr(*words, cwd=tmp_path)
    (line,) = lines(done.stderr)
    assert line.startswith("handclr: error: odd.task: MediaPipe cannot load this landmarker")
    assert done.returncode == 1 and len(line) < 300 and not (tmp_path / "x.tar").exists()
