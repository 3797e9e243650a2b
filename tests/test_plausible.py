"""Which hands can be hands, and what unit those are in that cannot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from labelled_helpers import labelled_sample, pose, write_labelled

from handclr_cli.contract import fields
from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.npz import as_keys, write_npz
from handclr_cli.contract.provenance import provenance
from handclr_cli.contract.sample import Sample
from handclr_cli.contract.shards import ShardOutput
from handclr_cli.evaluation import labels as evaluation_labels
from handclr_cli.evaluation.predictions import read_predictions
from handclr_cli.hand.joints import MIDDLE_MCP, WRIST
from handclr_cli.hand.plausible import bone_lengths, plausible, require_hands, wrong_unit
from handclr_cli.learning import training_labels


def hands(count: int = 9) -> np.ndarray:
    return np.stack([pose(np.random.default_rng(number)) for number in range(count)])


def test_bones_are_those_of_the_fingers() -> None:
    hand = np.zeros((1, 21, 3))
    hand[0, :, 0] = np.arange(21) ** 2
    lengths = bone_lengths(hand)[0].tolist()
    assert lengths[:5] == [1, 3, 5, 7, 25] and lengths[16:] == [289, 35, 37, 39]
    valid = np.ones((1, 21), bool)
    valid[0, 6] = False
    assert np.flatnonzero(np.isnan(bone_lengths(hand, valid)[0])).tolist() == [5, 6]


@pytest.mark.parametrize("scale", [0.4, 1.0, 1.6])
def test_children_and_giants_are_hands(scale: float) -> None:
    assert plausible(scale * hands()).all() and wrong_unit(scale * hands()) == ""


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        (1000, "1,000 times too long: are these millimetres?"),
        (100, "100 times too long: are these centimetres?"),
        (0.01, "100 times too short"),
        (0.001, "1,000 times too short"),
    ],
)
def test_another_unit_is_named(scale: float, words: str) -> None:
    assert not plausible(scale * hands()).any()
    wrong = wrong_unit(scale * hands())
    assert wrong.startswith("a typical bone has ") and wrong.endswith(words)
    some = np.concatenate([scale * hands(3), hands()])
    assert wrong_unit(some) == ""
    assert plausible(some).tolist() == [False] * 3 + [True] * 9


def degenerate(edit: Callable[[np.ndarray], object]) -> np.ndarray:
    found = hands(1)
    edit(found[0])
    return found


@pytest.mark.parametrize(
    "hand",
    [
        np.zeros((1, 21, 3)),
        np.full((1, 21, 3), -1.0),
        np.full((1, 21, 3), np.nan),
        degenerate(lambda one: one.__setitem__(slice(5, 21), one[4])),
        degenerate(lambda one: one.__setitem__(MIDDLE_MCP, one[WRIST])),
        degenerate(lambda one: one.__setitem__(8, [0.5, 0, 0.5])),
        degenerate(lambda one: one.__setitem__(8, 0) or one.__setitem__(12, 900)),
    ],
    ids=["zero", "missing", "nan", "one point", "no reference bone", "far tip", "very far tip"],
)
def test_a_pose_that_no_hand_takes(hand: np.ndarray) -> None:
    assert not plausible(hand).any() and wrong_unit(hand) == ""


def test_what_has_no_label_says_nothing() -> None:
    hand, valid = hands(1), np.ones((1, 21), bool)
    hand[0, 8], valid[0, 8] = 1e9, False
    assert plausible(hand, valid).all() and not plausible(hand).any()


def test_labels_are_required_to_be_hands_in_metres() -> None:
    valid = np.ones((9, 21), bool)
    require_hands(hands(), valid, str)
    with pytest.raises(HandclrError, match=r"the labels are not in metres: a typical bone has 20"):
        require_hands(1000 * hands(), valid, str)
    some = hands()
    some[4:6] = 0
    with pytest.raises(HandclrError, match=r"2 of 9 labelled samples have bones .* first is row 4"):
        require_hands(some, valid, "row {}".format)


def shard(path: Path, scale: Callable[[int], float]) -> ShardIndex:
    """Labelled samples as another program may have written them."""
    with ShardOutput(str(path), provenance("test", {})) as out:
        for number in range(4):
            sample: Sample = labelled_sample(number)
            found = scale(number) * sample.keypoints3d
            sample.members[fields.KEYPOINTS_3D.suffix] = fields.encode_array(
                fields.KEYPOINTS_3D, found
            )
            out.write(Sample(sample.key, sample.members))
    return ShardIndex([str(path)])


@pytest.mark.parametrize(
    "read", [evaluation_labels.read_labels, training_labels.read_training_labels]
)
def test_trainers_and_evaluation_refuse_foreign_labels_of_another_unit(
    read: Callable[[ShardIndex], object], tmp_path: Path
) -> None:
    read(shard(tmp_path / "good.tar", lambda _: 1))
    with pytest.raises(HandclrError, match="not in metres.*are these millimetres") as caught:
        read(shard(tmp_path / "mm.tar", lambda _: 1000))
    assert "\n" not in str(caught.value)
    with pytest.raises(HandclrError, match="1 of 4 labelled samples.* first is video0-v0_00"):
        read(shard(tmp_path / "one.tar", lambda number: 0 if number == 2 else 1))


def test_predictions_of_another_unit_are_refused_and_a_bad_model_is_not(tmp_path: Path) -> None:
    index = ShardIndex([str(write_labelled(tmp_path / "x.tar", 4))])
    labels = evaluation_labels.read_labels(index)
    path = str(tmp_path / "p.npz")
    for scale in (1.0, 0.0, 20.0):
        arrays = {"key": as_keys(index.keys), "keypoints3d": scale * labels.keypoints3d}
        write_npz(path, "predictions", arrays, provenance("test", {}))
        read_predictions(path, labels)
    arrays["keypoints3d"] = 1000 * labels.keypoints3d
    write_npz(path, "predictions", arrays, provenance("test", {}))
    with pytest.raises(HandclrError, match=r"p\.npz: keypoints3d is not in metres: .*millimetres"):
        read_predictions(path, labels)


@pytest.mark.real
def test_real_hands_are_plausible(real_data: Path) -> None:
    poses = np.load(real_data / "poses" / "dexycb_joints.npz", allow_pickle=False)["keypoints3d"]
    assert plausible(poses).all() and wrong_unit(poses) == ""
    for split in ("training", "evaluation"):
        path = real_data / "freihand" / "FreiHAND_pub_v2" / f"{split}_xyz.json"
        assert plausible(np.array(json.loads(path.read_text()))).all()
