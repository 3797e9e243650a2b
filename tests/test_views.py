"""The data set of pairs of views: what is drawn, what is made where, and how it is batched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_helpers import SIZE, write_labelled
from shard_helpers import crop, write_shard

from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.index import ShardIndex
from handclr_cli.learning.augmentation import AugmentationConfig, apply_view, transform_points
from handclr_cli.learning.hardware import ViewsMade, views_made
from handclr_cli.learning.losses import undo_geometry
from handclr_cli.learning.positives import Positives, own
from handclr_cli.learning.published import published_view
from handclr_cli.learning.store import CropStore
from handclr_cli.learning.views import PairDataset, Seen, Views, collate_views

CONFIG = AugmentationConfig(size=32)
COUNT = 6
HERE, PUBLISHED = ViewsMade.BY_WORKERS, ViewsMade.AS_PUBLISHED
ON_DEVICE, FROM_CACHE = ViewsMade.ON_DEVICE, ViewsMade.FROM_CACHE


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> ShardIndex:
    return ShardIndex([str(write_labelled(tmp_path_factory.mktemp("views") / "hands.tar", COUNT))])


@pytest.fixture
def pool(index: ShardIndex) -> Positives:
    rows = np.arange(COUNT)
    return Positives(rows, np.column_stack([(rows + 1) % COUNT, (rows + 2) % COUNT]))


def dataset(
    index: ShardIndex, pool: Positives, made: ViewsMade = HERE, side: int = SIZE, **choices: object
) -> PairDataset:
    return PairDataset(CropStore(index, side), pool, CONFIG, seed=3, made=made, **choices)  # type: ignore[arg-type]


def items(data: PairDataset, epoch: int = 0) -> list[tuple[Seen, Seen]]:
    return [data[epoch, row] for row in range(len(data))]


def same(one: Views, other: Views) -> bool:
    def tensors(value: object) -> list[torch.Tensor]:
        return (
            [value]
            if isinstance(value, torch.Tensor)
            else [one for part in value or () for one in tensors(part)]
        )  # type: ignore[union-attr]

    return all(
        torch.equal(left, right) for left, right in zip(tensors(one), tensors(other), strict=True)
    )


def test_views_are_made_on_a_gpu_but_for_published_ones() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert views_made(cpu, "ram", published=False) is HERE
    assert views_made(cuda, "ram", published=False) is ON_DEVICE
    assert views_made(cuda, "gpu", published=False) is FROM_CACHE
    assert {views_made(device, "ram", published=True) for device in (cpu, cuda)} == {PUBLISHED}
    assert [made for made in ViewsMade if made.on_device] == [ON_DEVICE, FROM_CACHE]


@pytest.mark.parametrize("made", [HERE, PUBLISHED])
def test_a_pair_depends_on_seed_epoch_and_row_alone(
    index: ShardIndex, pool: Positives, made: ViewsMade
) -> None:
    data = dataset(index, pool, made, posed="view")
    forwards, backwards = items(data), [data[0, row] for row in reversed(range(COUNT))][::-1]
    assert same(collate_views(forwards), collate_views(backwards))
    assert not same(collate_views(forwards), collate_views(items(data, epoch=1)))
    other = PairDataset(data.store, pool, CONFIG, seed=4, made=made, posed="view")
    assert not same(collate_views(forwards), collate_views(items(other)))


def test_the_two_views_of_a_pair_are_drawn_apart(index: ShardIndex) -> None:
    for one, two in items(dataset(index, own(index))):
        assert one.row == two.row and one.view != two.view


def test_positives_change_over_the_epochs(index: ShardIndex, pool: Positives) -> None:
    data = dataset(index, pool, FROM_CACHE)
    seen = {row: {data[epoch, row][1].row for epoch in range(30)} for row in range(COUNT)}
    assert seen == {row: {(row + 1) % COUNT, (row + 2) % COUNT} for row in range(COUNT)}


@pytest.mark.parametrize("posed", ["none", "view", "crop"])
def test_the_draws_are_the_same_wherever_views_are_made(
    index: ShardIndex, pool: Positives, posed: str
) -> None:
    batches = {}
    for made in (HERE, ON_DEVICE, FROM_CACHE):
        batches[made] = collate_views(items(dataset(index, pool, made, side=54, posed=posed)))
        assert same(batches[made]._replace(images=None), batches[HERE]._replace(images=None))
    images, crops = batches[HERE].images, batches[ON_DEVICE].images
    assert (
        images is not None and images.shape == (2, COUNT, 32, 32, 3) and images.dtype == torch.uint8
    )
    assert crops is not None and crops.shape == (2, COUNT, 54, 54, 3) and crops.dtype == torch.uint8
    assert batches[FROM_CACHE].images is None


def test_a_batch_is_of_first_and_second_views(index: ShardIndex, pool: Positives) -> None:
    data = dataset(index, pool, posed="view")
    batch, pairs = collate_views(items(data)), items(data)
    assert batch.rows.shape == (2, COUNT) and batch.rows.dtype == torch.int64
    assert batch.joints is not None and batch.joints.shape == (2, COUNT, 21, 2)
    assert all(field.shape[:2] == (2, COUNT) for field in (*batch.geometry, *batch.appearance))
    floats = (*batch.geometry, *batch.appearance, batch.joints)
    assert {field.dtype for field in floats} == {torch.float32}
    for n, pair in enumerate(pairs):
        for side, one in enumerate(pair):
            sample = index[one.row]
            assert batch.rows[side, n] == one.row
            assert batch.geometry.angle[side, n].item() == pytest.approx(
                np.radians(one.view.angle_deg)
            )
            assert batch.geometry.scale[side, n].item() == pytest.approx(one.view.scale)
            assert batch.appearance.hue[side, n].item() == pytest.approx(one.view.hue)
            np.testing.assert_array_equal(batch.images[side, n], apply_view(one.view, sample.image))  # type: ignore[index]
            expected = transform_points(one.view, sample.keypoints2d / SIZE)
            np.testing.assert_allclose(batch.joints[side, n], expected, atol=1e-5)


def test_a_published_view_carries_the_geometry_that_was_recorded(
    index: ShardIndex, pool: Positives
) -> None:
    data = dataset(index, pool, PUBLISHED, posed="view")
    batch = collate_views(items(data, 5))
    assert (
        batch.images is not None
        and batch.images.shape == (2, COUNT, 32, 32, 3)
        and batch.joints is not None
    )
    for row in range(COUNT):
        rng = np.random.default_rng([3, 5, row])
        for side, crop_row in enumerate(pool.draw(row, rng)):
            sample = index[crop_row]
            expected = published_view(sample.image, sample.keypoints2d, 32, rng)
            np.testing.assert_array_equal(batch.images[side, row], expected.image)
            np.testing.assert_allclose(
                batch.joints[side, row], expected.keypoints2d / 32, atol=1e-5
            )
            assert batch.geometry.angle[side, row].item() == pytest.approx(
                np.radians(expected.angle_deg)
            )
            np.testing.assert_allclose(
                batch.geometry.translation[side, row], expected.translation, rtol=1e-6
            )


@pytest.mark.parametrize("made", list(ViewsMade))
def test_the_joints_of_the_crop_are_those_of_no_view(
    index: ShardIndex, pool: Positives, made: ViewsMade
) -> None:
    batch = collate_views(items(dataset(index, pool, made, side=54, posed="crop")))
    expected = [[index[row].keypoints2d / SIZE for row in rows] for rows in batch.rows.tolist()]
    np.testing.assert_allclose(batch.joints, expected, rtol=1e-6)  # type: ignore[arg-type]
    plain = collate_views(items(dataset(index, pool, made, side=54)))
    assert plain.joints is None and same(batch._replace(joints=None), plain)


def test_undoing_the_draws_on_the_joints_seen_gives_the_joints_of_the_crop(
    index: ShardIndex, pool: Positives
) -> None:
    """An encoder that saw the keypoints of its view would be exactly equivariant."""
    wild = replace(CONFIG, rotation=180.0, scale=(0.5, 1.5), translation=0.3)
    for config in (CONFIG, wild):
        data = PairDataset(
            CropStore(index, SIZE), pool, config, seed=1, made=FROM_CACHE, posed="view"
        )
        batch = collate_views([data[epoch, row] for epoch in range(8) for row in range(COUNT)])
        geometry = type(batch.geometry)(*(field.flatten(0, 1) for field in batch.geometry))
        assert batch.joints is not None
        undone = undo_geometry(batch.joints.flatten(0, 1).flatten(1), geometry, "crop").unflatten(
            1, (21, 2)
        )
        truth = np.stack([index[row].keypoints2d / SIZE for row in batch.rows.flatten().tolist()])
        np.testing.assert_allclose(undone, truth, atol=1e-4)


def test_keypoints_are_asked_for_only_where_they_are_needed(tmp_path: Path) -> None:
    index = ShardIndex([str(write_shard(tmp_path / "bare.tar", [crop(keypoints=False)]))])
    for made in (HERE, ON_DEVICE, FROM_CACHE):
        pair = dataset(index, own(index), made)[0, 0]
        assert pair[0].joints is None and collate_views([pair]).joints is None
        for posed in ("view", "crop"):
            with pytest.raises(
                HandclrError, match=r"bare\.tar: sample kitchen_00000000_r has no keypoints2d\.npy"
            ):
                dataset(index, own(index), made, posed=posed)[0, 0]
    with pytest.raises(HandclrError, match=r"has no keypoints2d\.npy"):
        dataset(index, own(index), PUBLISHED)[0, 0]
