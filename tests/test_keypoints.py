"""keypoints: 21 points on the drawn hand, whatever the crop; everything else in a sample stays as
it was.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Handclr, drawn_pair, lines, pack, unpack
from drawn_hand import draw_hand, hand_joints

from handclr_cli.contract.fields import KEYPOINTS_2D, WORLD_3D, encode_array
from handclr_cli.footage.frames import Hand
from handclr_cli.footage.keypoints import find_keypoints
from handclr_cli.footage.landmarker import Landmarker
from handclr_cli.hand.square import cut, square_box, to_crop


def jpg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image[:, :, ::-1])[1].tobytes()


def keypoints_of(members: dict[str, bytes]) -> np.ndarray:
    return np.load(io.BytesIO(members["keypoints2d.npy"]), allow_pickle=False)


def tight_crop(margin: float) -> tuple[np.ndarray, np.ndarray]:
    """A crop around the joints themselves, and the joints in it."""
    joints = hand_joints()[:, :2]
    box = square_box(joints, margin)
    return cut(draw_hand(), box, 224, False), to_crop(joints, box, 224, False)


WALL = np.random.default_rng(0).normal(110, 5, (224, 224, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def mixed_shard() -> dict[str, dict[str, bytes]]:
    """A hand with members nobody knows, a crop without a hand, a damaged one, a hand in an odd
    size.
    """
    hand = jpg(tight_crop(1.5)[0])
    return {
        "foreign/one": {"jpg": hand, "cls": b"7", "note.txt": b"keep me"},
        "wall": {"jpg": jpg(WALL), "cls": b"8"},
        "damaged": {"jpg": hand[: len(hand) // 2][:300], "cls": b"9"},
        "small": {
            "jpg": jpg(cv2.resize(tight_crop(1.5)[0], (97, 97), interpolation=cv2.INTER_AREA)),
            "json": b"{}",
        },
    }


@pytest.mark.landmarker
def test_keypoints_lie_on_the_hand(handclr: Handclr, drawn_crops: bytes, tmp_path: Path) -> None:
    done = handclr("keypoints", stdin=drawn_crops)
    assert done.returncode == 0
    assert lines(done.stderr) == [
        "keypoints: 8 crops in, 8 out, 0 without a hand, 0 look like left hands, 0 skipped"
    ]
    crops, hands = unpack(drawn_crops), unpack(done.stdout)
    assert list(hands) == list(crops)
    for key, members in hands.items():
        assert {suffix: members[suffix] for suffix in crops[key]} == crops[key]
        assert set(members) - set(crops[key]) == {"keypoints2d.npy", "world3d.npy"}
        keypoints, info = keypoints_of(members), json.loads(members["json"])
        assert keypoints.dtype == np.float32 and keypoints.shape == (21, 2)
        joints = to_crop(
            drawn_pair(info["frame"])[1][info["hand"]], info["box"], 224, info["flipped"]
        )
        errors = np.linalg.norm(keypoints - joints, axis=1) / np.ptp(joints, axis=0).max()
        assert np.median(errors) < 0.035 and errors.max() < 0.12

    # From a file into numbered shards: the same samples, the same bytes.
    (tmp_path / "crops.tar").write_bytes(drawn_crops)
    shards = handclr(
        "keypoints", "crops.tar", "-o", "hands-%03d.tar", "--shard-size", "5", cwd=tmp_path
    )
    assert (shards.returncode, shards.stdout) == (0, b"")
    assert sorted(os.listdir(tmp_path)) == ["crops.tar", "hands-000.tar", "hands-001.tar"]
    first, second = (unpack((tmp_path / f"hands-00{i}.tar").read_bytes()) for i in range(2))
    assert len(first) == 5 and {**first, **second} == hands


@pytest.mark.landmarker
def test_history_names_extract(handclr: Handclr, drawn_crops: bytes) -> None:
    done = handclr("keypoints", "-q", "-", stdin=drawn_crops)
    assert done.stderr == b"" and done.stdout.startswith(b"__handclr__\0")
    record = json.loads(done.stdout[512:].split(b"\0", 1)[0])
    assert record["stage"] == "keypoints" and [past["stage"] for past in record["history"]] == [
        "extract"
    ]


@pytest.mark.landmarker
def test_only_missing_passes_the_others_on(
    handclr: Handclr, mixed_shard: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    """As they are: no second pass, not even a look at a crop that shows no hand."""
    own = encode_array(KEYPOINTS_2D, np.arange(42).reshape(21, 2))
    shard = {**mixed_shard, "wall": {**mixed_shard["wall"], "keypoints2d.npy": own}}
    (tmp_path / "a.tar").write_bytes(pack(shard))
    done = handclr("keypoints", "--only-missing", "a.tar", cwd=tmp_path)
    assert done.returncode == 3
    out, every = unpack(done.stdout), unpack(handclr("keypoints", stdin=pack(shard)).stdout)
    assert list(out) == ["foreign/one", "wall", "small"] and list(every) == ["foreign/one", "small"]
    assert out["wall"] == shard["wall"]
    assert {key: out[key] for key in every} == every
    assert lines(done.stderr)[-1] == (
        "keypoints: 4 crops in, 3 out, 0 without a hand, 0 look like left hands, 1 skipped; "
        "1 had keypoints"
    )
    record = json.loads(done.stdout[512:].split(b"\0", 1)[0])
    assert record["arguments"] == {"keep_empty": False, "min_score": 0.5, "only_missing": True}


@pytest.mark.landmarker
def test_a_shape_that_is_not_found_again_goes_with_its_keypoints(
    handclr: Handclr, mixed_shard: dict[str, dict[str, bytes]]
) -> None:
    stale = encode_array(WORLD_3D, np.zeros((21, 3)))
    shard = {key: {**mixed_shard[key], "world3d.npy": stale} for key in ("foreign/one", "wall")}
    out = unpack(handclr("keypoints", "--keep-empty", stdin=pack(shard)).stdout)
    assert set(out["wall"]) == {"jpg", "cls"}
    world = np.load(io.BytesIO(out["foreign/one"]["world3d.npy"]), allow_pickle=False)
    assert world.dtype == np.float32 and 0.05 < np.linalg.norm(world[9]) < 0.15


@pytest.mark.landmarker
@pytest.mark.parametrize("keep", [False, True])
def test_mixed_shard(
    handclr: Handclr, mixed_shard: dict[str, dict[str, bytes]], keep: bool
) -> None:
    done = handclr("keypoints", *(["--keep-empty"] if keep else []), stdin=pack(mixed_shard))
    assert done.returncode == 3
    out = unpack(done.stdout)
    assert list(out) == ["foreign/one", "wall", "small"] if keep else ["foreign/one", "small"]
    for key, members in out.items():
        assert {suffix: members[suffix] for suffix in mixed_shard[key]} == mixed_shard[key]
        assert ("keypoints2d.npy" in members) == (key != "wall")
    np.testing.assert_allclose(
        keypoints_of(out["small"]), keypoints_of(out["foreign/one"]) * 97 / 224, atol=3
    )
    warning, summary = lines(done.stderr)
    assert (
        warning.startswith("handclr: warning: standard input: sample damaged: bad jpg")
        and "skipped" in warning
    )
    kept = 3 if keep else 2
    assert (
        summary.startswith(f"keypoints: 4 crops in, {kept} out, 1 without a hand, ")
        and "1 skipped" in summary
    )


@pytest.mark.landmarker
def test_strict(handclr: Handclr, mixed_shard: dict[str, dict[str, bytes]], tmp_path: Path) -> None:
    done = handclr("keypoints", "--strict", "-o", tmp_path / "out.tar", stdin=pack(mixed_shard))
    assert done.returncode == 1 and os.listdir(tmp_path) == []
    assert len(lines(done.stderr)) == 1 and b"sample damaged" in done.stderr


@pytest.mark.landmarker
def test_upstream_that_died(handclr: Handclr, drawn_crops: bytes, tmp_path: Path) -> None:
    for cut_short in (drawn_crops[:-1024], drawn_crops[:2000]):
        done = handclr("keypoints", "-o", tmp_path / "out.tar", stdin=cut_short)
        assert done.returncode == 1 and os.listdir(tmp_path) == []
        assert len(lines(done.stderr)) == 1 and b"did the upstream command fail" in done.stderr


@pytest.mark.landmarker
@pytest.mark.parametrize("margin", [1.0, 1.2, 1.5, 2.5])
def test_crops_of_any_margin(landmarker_file: Path, margin: float) -> None:
    crop, joints = tight_crop(margin)
    with Landmarker(landmarker_file) as detector:
        hand = find_keypoints(crop, detector)
    assert hand is not None and hand.side == "right"
    errors = np.linalg.norm(hand.keypoints - joints, axis=1) / np.ptp(joints, axis=0).max()
    assert np.median(errors) < 0.035


@pytest.mark.landmarker
def test_of_two_hands_the_one_in_the_middle(landmarker_file: Path) -> None:
    image, joints = drawn_pair(0)
    with Landmarker(landmarker_file) as detector:
        for side in ("left", "right"):
            box = square_box(joints[side], 2.2)
            hand = find_keypoints(cut(image, box, 224, False), detector)
            assert hand is not None and hand.side == side
            assert (
                np.median(
                    np.linalg.norm(hand.keypoints - to_crop(joints[side], box, 224, False), axis=1)
                )
                < 8
            )


@pytest.mark.landmarker
def test_no_hand_after_all_paddings(landmarker_file: Path) -> None:
    with Landmarker(landmarker_file) as detector:
        assert find_keypoints(WALL, detector) is None


@pytest.mark.landmarker
def test_crop_that_needs_padding(landmarker_file: Path) -> None:
    pose = {"angle": 90.0, "curl": 0.6}
    joints = hand_joints(**pose)[:, :2]
    box = square_box(joints, 0.8)
    crop = cut(draw_hand(**pose), box, 224, False)
    with Landmarker(landmarker_file) as detector:
        assert detector.find(crop) == []
        hand = find_keypoints(crop, detector)
    assert hand is not None and hand.side == "right"
    assert np.median(np.linalg.norm(hand.keypoints - to_crop(joints, box, 224, False), axis=1)) < 12


class Detector:
    """Sees hands where it is told to, in crop pixels, once the padding is wide enough."""

    def __init__(self, middles: list[tuple[float, float]], border: int) -> None:
        self.middles, self.border = middles, border

    def find(self, image: np.ndarray) -> list[Hand]:
        border = (image.shape[0] - 100) // 2
        spread = np.random.default_rng(0).uniform(-20, 20, (21, 2))
        spread -= (spread.min(axis=0) + spread.max(axis=0)) / 2
        hands = [Hand(spread + middle + border, "right", 0.9) for middle in self.middles]
        return hands if border >= self.border else []


@pytest.mark.parametrize("border", [0, 25, 50, 100])
def test_keypoints_are_in_crop_pixels_whatever_the_padding(border: int) -> None:
    detector = Detector([(95, 50), (-30, 50), (55, 40)], border)
    hand = find_keypoints(WALL[:100, :100], detector)  # type: ignore[arg-type]
    assert hand is not None
    np.testing.assert_allclose(
        (hand.keypoints.min(axis=0) + hand.keypoints.max(axis=0)) / 2, (55, 40)
    )


def test_hand_beside_the_crop_is_a_false_alarm() -> None:
    assert find_keypoints(WALL[:100, :100], Detector([(-5, 50), (50, 120)], 0)) is None  # type: ignore[arg-type]


# Real pictures


@pytest.fixture(scope="module")
def right_hands(real_data: Path) -> list[np.ndarray]:
    """Fifty FreiHAND pictures; all show right hands."""
    files = sorted((real_data / "freihand" / "FreiHAND_pub_v2" / "training" / "rgb").iterdir())[::8]
    return [cv2.imread(str(file))[:, :, ::-1].copy() for file in files]


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.landmarker
def test_real_right_hands(right_hands: list[np.ndarray], landmarker_file: Path) -> None:
    """They are called right, left in a mirror, and a mirror hardly moves their keypoints."""
    with Landmarker(landmarker_file) as detector:
        plain = [find_keypoints(image, detector) for image in right_hands]
        mirrored = [
            find_keypoints(np.ascontiguousarray(image[:, ::-1]), detector) for image in right_hands
        ]
    sides = [hand.side for hand in plain if hand]
    assert len(sides) >= 0.95 * len(right_hands) and sides.count("right") >= 0.95 * len(sides)
    sides = [hand.side for hand in mirrored if hand]
    assert len(sides) >= 0.95 * len(right_hands) and sides.count("left") >= 0.90 * len(sides)
    errors = []
    for one, other in zip(plain, mirrored, strict=True):
        if one and other:
            back = other.keypoints * (-1, 1) + (right_hands[0].shape[1], 0)
            errors.append(
                np.linalg.norm(back - one.keypoints, axis=1).mean()
                / np.ptp(one.keypoints, axis=0).max()
            )
    assert np.median(errors) < 0.05, np.median(errors)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.landmarker
def test_real_left_hands_come_out_as_right_ones(
    handclr: Handclr, real_data: Path, landmarker_file: Path
) -> None:
    """Crops that extract mirrored: mirrored back, their keypoints are the mirror image."""
    videos = [
        real_data / "videos" / name
        for name in ("temugeb", "dex_retargeting", "dynhamr", "mediapipe_samples")
    ]
    done = handclr("extract", "--fps", "1", *videos, timeout=300)
    assert done.returncode == 0, done.stderr
    errors = []
    with Landmarker(landmarker_file) as detector:
        for members in unpack(done.stdout).values():
            if not json.loads(members["json"])["flipped"] or len(errors) == 30:
                continue
            crop = cv2.imdecode(np.frombuffer(members["jpg"], np.uint8), cv2.IMREAD_COLOR)[
                :, :, ::-1
            ]
            one = find_keypoints(np.ascontiguousarray(crop), detector)
            other = find_keypoints(np.ascontiguousarray(crop[:, ::-1]), detector)
            if one and other:
                back = other.keypoints * (-1, 1) + (crop.shape[1], 0)
                errors.append(
                    np.linalg.norm(back - one.keypoints, axis=1).mean()
                    / np.ptp(one.keypoints, axis=0).max()
                )
    assert len(errors) >= 10 and np.median(errors) < 0.05, (len(errors), np.median(errors))
