"""$ handclr predict: hands in space, what is skipped, what is said, and its contract as a
filter.
"""

from __future__ import annotations

import functools
import io
import math
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from dotted_hands import DotReader, write_dotted
from filter_contract import FilterContract
from labelled_helpers import CAMERA, SIZE, error_line, handclr, labelled_sample, pose
from shard_helpers import jpeg, load_npz, tar_bytes, write_shard

from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.fields import encode_object
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.kinds import FILM_MARK
from handclr_cli.contract.npz import read_npz
from handclr_cli.contract.sample import Sample
from handclr_cli.hand.placement import GIVEN, OVER_CROP, OVER_SOURCE, Cut, cut_of, placed
from handclr_cli.hand.square import to_crop
from handclr_cli.learning.encoder import Encoder
from handclr_cli.learning.pose import PoseNet
from handclr_cli.learning.posemodel import MeanPose, load_model, save_payload
from handclr_cli.learning.prediction import predict_crops

BONE = 0.09


@functools.cache
def model_bytes() -> bytes:
    buffer = io.BytesIO()
    torch.save(
        save_payload(
            PoseNet(Encoder("resnet18")), 32, MeanPose(np.zeros((21, 3), np.float32), BONE)
        ),
        buffer,
    )
    return buffer.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.pt"
    path.write_bytes(model_bytes())
    return path


def bare_crop(info: dict[str, object], side: int = 64) -> Sample:
    """A crop that knows only what its JSON says."""
    return Sample("v_00000001_l", {"jpg": jpeg(100, side), "json": encode_object(info)})


# The camera.


def test_intrinsics_are_believed_before_anything_is_assumed() -> None:
    sample = labelled_sample(3)
    cut = cut_of(sample, 60.0)
    assert cut.known == GIVEN and cut.side == SIZE
    np.testing.assert_allclose(cut.camera, CAMERA)


def test_the_assumed_angle_spans_the_longer_side_of_the_source() -> None:
    info = {"box": [100, 50, 228, 178], "source_size": [640, 480], "flipped": False}
    cut = cut_of(bare_crop(info), 90.0)
    assert cut.known == OVER_SOURCE
    # At 90 degrees the border of the source is seen at 45: x = z. In the crop, that is 412 source
    # pixels further.
    edge = cut.camera @ (1.0, 0.0, 1.0)
    assert edge[0] / edge[2] == pytest.approx((640 - 100) / 2)
    mirrored = cut_of(bare_crop({**info, "flipped": True}), 90.0).camera @ (-1.0, 0.0, 1.0)
    assert mirrored[0] / mirrored[2] == pytest.approx(64 - (640 - 100) / 2)


def test_crops_that_say_nothing_of_their_source_are_their_own() -> None:
    cut = cut_of(bare_crop({}), 60.0)
    assert (cut.known, cut.box, cut.flipped) == (OVER_CROP, (0, 0, 64, 64), False)
    edge = cut.camera @ (math.tan(math.radians(30)), 0.0, 1.0)
    assert edge[0] == pytest.approx(64)


@pytest.mark.parametrize(
    "info",
    [
        {"box": [1, 2, 3]},
        {"box": [5, 5, 5, 9]},
        {"box": "wide"},
        {"box": [0, 0, 9, 9], "source_size": 7},
        {"box": [0, 0, 9, 9], "source_size": [0, 0]},
        {"box": [0, 0, 9, 9], "source_size": [float("inf"), 9]},
    ],
)
def test_a_box_that_is_none_is_told(info: dict[str, object]) -> None:
    with pytest.raises(HandclrError, match="sample v_00000001_l: bad box or source_size"):
        cut_of(bare_crop(info), 60.0)


# In space.


@pytest.mark.parametrize("left", [False, True])
def test_hands_stand_where_they_are(left: bool) -> None:
    """With the true pose, size and camera, predictions are the truth: in the crop, in the source,
    in pixels of both.
    """
    truth = np.stack(
        [
            pose(np.random.default_rng(seed)) + (0.1 * seed - 0.2, 0.05, 0.2 * seed)
            for seed in range(5)
        ]
    )
    truth = truth * (
        (-1, 1, 1) if left else (1, 1, 1)
    )  # so that it stands in the source, left hands being left
    focal = 640 / 2 / math.tan(math.radians(35))
    pixels = np.empty((5, 21, 2))
    for hand in range(5):
        for joint in range(21):
            x, y, z = truth[hand, joint]
            pixels[hand, joint] = focal * x / z + 320, focal * y / z + 240
    boxes = [(int(at[:, 0].min()) - 9, int(at[:, 1].min()) - 9, 0, 0) for at in pixels]
    boxes = [(x, y, x + 300, y + 300) for x, y, _, _ in boxes]
    infos = [{"box": list(box), "source_size": [640, 480], "flipped": left} for box in boxes]
    cuts = [cut_of(bare_crop(info, 128), 70.0) for info in infos]
    uv = np.stack(
        [to_crop(at, box, 128, left) / 128 for at, box in zip(pixels, boxes, strict=True)]
    )
    crop3d = truth * ((-1, 1, 1) if left else (1, 1, 1))
    hands = placed(crop3d - crop3d[:, :1], uv, cuts)
    np.testing.assert_allclose(hands.source3d, truth, atol=1e-5)
    np.testing.assert_allclose(hands.keypoints3d, crop3d, atol=1e-5)
    np.testing.assert_allclose(hands.source2d, pixels, atol=1e-3)
    np.testing.assert_allclose(hands.keypoints2d, 128 * uv, atol=1e-3)
    assert hands.fitted.all() and all(array.dtype == np.float32 for array in hands[:4])
    doubled = placed(2 * (crop3d - crop3d[:, :1]), uv, cuts)
    np.testing.assert_allclose(doubled.source3d, 2 * truth, atol=1e-4)


def test_a_prediction_that_fits_nowhere_still_stands_before_the_camera() -> None:
    relative = np.stack([pose(np.random.default_rng(seed)) for seed in range(3)])
    relative -= relative[:, :1]
    uv = np.full((3, 21, 2), 0.5)
    uv[1] += np.random.default_rng(0).uniform(-1e-3, 1e-3, (21, 2))
    uv[2] = 0.5 - relative[2, :, :2]  # upside down: the least squares put it behind the camera
    camera = np.array([[200.0, 0, 32], [0, 200, 32], [0, 0, 1]])
    cut = Cut(64, (0, 0, 64, 64), False, camera, GIVEN)
    hands = placed(relative, uv, [cut] * 3)
    assert np.isfinite(hands.keypoints3d).all() and (hands.keypoints3d[..., 2] > 0).all()
    assert not hands.fitted[0] and not hands.fitted[2]
    distance = float(np.linalg.norm(hands.keypoints3d[2].mean(axis=0)))
    assert distance == pytest.approx(200 / 64, rel=0.2)  # a metre of it is a crop side


def test_a_model_that_has_diverged_is_told() -> None:
    xyz = np.zeros((2, 21, 3))
    xyz[1, 4, 2] = np.nan
    with pytest.raises(
        HandclrError,
        match=r"1 of 2 predictions hold NaN or infinite values; the model has diverged",
    ):
        placed(xyz, np.zeros((2, 21, 2)), [])


def test_no_crops_are_no_hands() -> None:
    hands = placed(np.zeros((0, 21, 3)), np.zeros((0, 21, 2)), [])
    assert [array.shape for array in hands] == [
        (0, 21, 3),
        (0, 21, 2),
        (0, 21, 3),
        (0, 21, 2),
        (0,),
        (0,),
        (0, 3, 3),
    ]


# What cannot be decoded.


def test_what_cannot_be_decoded_is_left_out(tmp_path: Path) -> None:
    _, shard = write_dotted(tmp_path, 8, 1)
    samples = list(ShardIndex([str(shard)]))
    samples[1].members["jpg"] = b"no picture"
    samples[3].members["json"] = encode_object({**samples[3].info, "box": [0, 0, 0, 0]})
    index = ShardIndex([str(write_shard(tmp_path / "damaged.tar", samples))])
    errors: list[HandclrError] = []
    model = DotReader(np.zeros((21, 3), np.float32))
    read = partial(cut_of, fov_deg=60.0)
    found = list(predict_crops(model, index, read, 2, 0, errors.append))  # type: ignore[arg-type]
    assert [row for rows, _, _ in found for row in rows] == [0, 2, *range(4, len(samples))]
    assert ["bad jpg" in str(error) for error in errors] == [True, False] and "bad box" in str(
        errors[1]
    )


# The command.


@pytest.mark.slow
def test_three_lines_load_a_model_and_call_it(model: Path) -> None:
    crops = [np.full((224, 224, 3), 90, np.uint8), np.full((64, 64, 3), 200, np.uint8)]
    loaded = load_model(model)
    xyz, uv = loaded(crops)
    assert xyz.shape == (2, 21, 3) and uv.shape == (2, 21, 2)
    assert xyz.dtype == uv.dtype == np.float32 and (xyz[:, 0] == 0).all()
    stacked, _ = loaded(np.stack([crops[0]] * 3))
    np.testing.assert_allclose(stacked[2], xyz[0], atol=1e-6)


@pytest.mark.slow
def test_a_model_takes_arrays_tensors_and_lists(model: Path) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), np.uint8)
    loaded = load_model(model)
    expected = loaded(crops)
    for same in (torch.from_numpy(crops), list(crops), list(torch.from_numpy(crops))):
        for found, wanted in zip(loaded(same), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)
    assert [array.shape for array in loaded([])] == [(0, 21, 3), (0, 21, 2)]
    for wrong, told in (
        (crops[0], "not uint8 of the shape (48, 48, 3)"),
        (crops.transpose(0, 3, 1, 2), "not uint8 of the shape (3, 48, 48) for a crop"),
        (crops[:, :40], "not uint8 of the shape (40, 48, 3) for a crop"),
        (torch.from_numpy(crops) / 255, "not float32 of the shape (48, 48, 3) for a crop"),
        (["crop.jpg"], "not str in a list"),
    ):
        with pytest.raises(HandclrError, match=re.escape(told)):
            loaded(wrong)  # type: ignore[arg-type]


def depth_spread(sigma: np.ndarray) -> object:
    finite = sigma[np.isfinite(sigma)].astype(float)
    return pytest.approx(1000 * np.median(finite), abs=0.01) if len(finite) else None


@pytest.mark.slow
def test_predictions_say_how_they_were_made(model: Path, tmp_path: Path) -> None:
    broken = labelled_sample(1)
    broken.members["jpg"] = b"no picture"
    bare = labelled_sample(2)
    del bare.members["intrinsics.npy"]
    shard = write_shard(tmp_path / "in.tar", [labelled_sample(0), broken, bare])
    done = handclr("predict", shard, "--model", model, "--bone", 180, "--workers", 0, code=3)
    (tmp_path / "p.npz").write_bytes(done.stdout)
    arrays, meta = read_npz(str(tmp_path / "p.npz"), "predictions")
    assert meta is not None
    assert [key.decode() for key in arrays["key"]] == [
        labelled_sample(number).key for number in (0, 2)
    ]
    assert meta["cameras"] == {GIVEN: 1, OVER_CROP: 1}
    assert meta["reference_bone"] == {"mm": 180.0, "of": "as measured"}
    assert arrays["depth_sigma"].shape == (2,) and (arrays["depth_sigma"] > 0).all()
    spread = depth_spread(arrays["depth_sigma"])
    assert meta["depth_sigma"]["median_mm"] == spread
    assert "size and the camera taken as right" in meta["depth_sigma"]["definition"]
    assert meta["placed_by_extent"] == np.isinf(arrays["depth_sigma"]).sum()
    assert meta["arguments"] == {"fov": 60.0, "bone": 180.0} and list(meta["model"]) == ["model.pt"]
    assert [past["stage"] for past in meta["history"]] == ["extract"]
    said = done.stderr.decode().splitlines()
    assert "bad jpg" in said[0] and said[0].endswith("skipped")
    assert said[1] == "predict: 2 hands (0 left, 2 right), 1 skipped"
    assert said[2].startswith(
        "predict: predicted by: model.pt; "
        "camera: 1 intrinsics, 1 assumed across the crop (60 degrees); "
        "size: reference bone 180.0 mm, as measured"
    )
    told = re.search(r"; depth: \+/- (\d+) mm if size and camera are right \(median\)", said[2])
    assert (told is None) == (spread is None)
    strict = handclr(
        "predict", shard, "--model", model, "--strict", "-o", tmp_path / "s.npz", code=1
    )
    assert b"bad jpg" in strict.stderr and not (tmp_path / "s.npz").exists()
    loaded = load_model(model)
    xyz, uv = loaded([labelled_sample(number).image for number in (0, 2)])
    np.testing.assert_allclose(arrays["keypoints2d"][0], uv[0] * SIZE, atol=1e-2)
    rooted = arrays["keypoints3d"][0] - arrays["keypoints3d"][0, :1]
    bone = np.median(np.linalg.norm(xyz[:, 9], axis=1))
    np.testing.assert_allclose(rooted, xyz[0] * (0.18 / bone), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_an_overlay_beside_the_predictions(model: Path, tmp_path: Path) -> None:
    video, shard = write_dotted(tmp_path, 9, 2)
    out, arrays = tmp_path / "hands.mp4", tmp_path / "p.npz"
    options = ("--model", model, "--workers", 0, "-o", arrays)
    done = handclr("predict", shard, *options, "--overlay", out, "--footage", video)
    assert f"{out}, 5 frames, 4 hands" in done.stderr.decode()
    assert out.stat().st_size > 1000 and len(load_npz(arrays)["key"]) == 4
    again = handclr("predict", shard, *options, "--overlay", out, "--footage", video)
    assert again.stderr == done.stderr  # it may replace what it drew, but no other film
    other = tmp_path / "films" / "dots.mp4"
    other.parent.mkdir()
    for data in (out.read_bytes()[: -len(FILM_MARK)], b"notes"):
        other.write_bytes(data)
        folder = ("--overlay", other.parent, "--footage", video)
        line = error_line(handclr("predict", shard, *options, *folder, code=2))
        assert f"{other} exists and is not a film that handclr drew; name another" in line
        assert other.read_bytes() == data
    lost = handclr("predict", shard, *options, "--overlay", tmp_path / "no.mp4", code=2)
    assert b"name it, or its folder, as the footage" in lost.stderr


@pytest.mark.slow
class TestFilter(FilterContract):
    """What is wrong with the input is said before torch is loaded; the rest, seconds each, is
    write_npz's.
    """

    name = "predict"
    test_data_on_stdout_and_words_on_stderr = test_output_is_the_same_beside_a_terminal = None
    test_a_closed_pipe = test_a_full_disk = test_a_device_stays_a_device = None

    def arguments(self, folder: Path) -> list[str]:
        path = folder.parent / "model-of-predict.pt"
        if not path.exists():
            path.write_bytes(model_bytes())
        return ["predict", "--model", str(path), "--workers", "0"]

    def good(self) -> bytes:
        return tar_bytes([labelled_sample(number) for number in range(2)])

    def large(self) -> bytes:
        return tar_bytes([labelled_sample(number) for number in range(80)])

    def complete(self, data: bytes) -> bool:
        try:
            return "meta" in load_npz(data)
        except (ValueError, EOFError, OSError):
            return False


def test_the_declaration_has_what_predict_writes() -> None:
    from handclr_cli.contract.npz import PREDICTIONS

    assert {array.name for array in PREDICTIONS} >= {
        "key",
        "keypoints3d",
        "keypoints2d",
        "source3d",
        "source2d",
        "depth_sigma",
    }
