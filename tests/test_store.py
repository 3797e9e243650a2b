"""Decoded crops: the same bytes wherever they are kept, and decoded once."""

from __future__ import annotations

import mmap
import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from labelled_helpers import labelled_sample
from shard_helpers import write_shard

from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.sample import Sample
from handclr_cli.learning import store as store_module
from handclr_cli.learning.augmentation import LUMA
from handclr_cli.learning.loading import batches
from handclr_cli.learning.store import CropStore, choose_cache, crop_side

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def picture(side: int, seed: int = 0) -> np.ndarray:
    noise = cv2.GaussianBlur(
        np.random.default_rng(seed).normal(size=(side, side, 3)), (0, 0), side / 20
    )
    return np.clip(128 + 55 * noise / noise.std(), 0, 255).astype(np.uint8)


def index_of(
    folder: Path, sides: Sequence[int], damaged: int | None = None, name: str = "hands.tar"
) -> ShardIndex:
    samples = []
    for number, side in enumerate(sides):
        data = cv2.imencode(".jpg", picture(side, number), [cv2.IMWRITE_JPEG_QUALITY, 95])[
            1
        ].tobytes()
        # The head is whole, so that the side can be read.
        samples.append(Sample(f"crop-{number}", {"jpg": data[:200] if number == damaged else data}))
    return ShardIndex([str(write_shard(folder / name, samples))], measured=True)


@pytest.mark.parametrize(
    ("side", "sides"), [(32, [32] * 5), (20, [64, 64, 64]), (40, [64, 40, 30, 100, 81])]
)
def test_a_crop_that_is_kept_is_the_crop_that_is_not(
    tmp_path: Path, side: int, sides: list[int]
) -> None:
    index = index_of(tmp_path, sides)
    plain, kept = CropStore(index, side), CropStore(index, side, keep=range(len(sides)))
    for row in [*range(len(sides)), *reversed(range(len(sides)))]:
        assert kept[row].shape == (side, side, 3) and kept[row].dtype == np.uint8
        np.testing.assert_array_equal(kept[row], plain[row])
    if side == 32:
        np.testing.assert_array_equal(plain[1], index[1].image)


def test_no_memory_is_reserved_for_crops_that_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an input, a training on few labelled crops keeps these alone."""
    index, asked, reserve = index_of(tmp_path, [40] * 6), [], mmap.mmap
    monkeypatch.setattr(mmap, "mmap", lambda file, size: asked.append(size) or reserve(file, size))
    crops, plain = CropStore(index, 40, keep=np.array([4, 1])), CropStore(index, 40)
    assert asked == [2 * (40 * 40 * 3 + 1)]
    for row in (1, 0, 4, 4, 5, 1):
        np.testing.assert_array_equal(crops[row], plain[row])
    assert [row for row in range(6) if np.shares_memory(crops[row], crops[row])] == [1, 4]


@pytest.mark.parametrize(
    ("wide", "side"),
    [
        (224, 112),
        (224, 80),
        (226, 100),
        (225, 100),
        (64, 32),
    ],
)
def test_decoding_at_half_the_side_is_close_to_decoding_and_averaging(
    tmp_path: Path, wide: int, side: int
) -> None:
    """In luma, that is: JPEG has the colours at half the side, and the two ways enlarge them
    differently.
    """
    index = index_of(tmp_path, [wide] * 3)
    crops = CropStore(index, side)
    for row in range(3):
        whole = cv2.resize(index[row].image, (side, side), interpolation=cv2.INTER_AREA).astype(
            float
        )
        difference = np.abs((crops[row] - whole) @ LUMA)
        assert difference.mean() < 0.5 and difference.max() < 4
        np.testing.assert_allclose(crops[row].mean(axis=(0, 1)), whole.mean(axis=(0, 1)), atol=0.5)


def test_crops_of_several_sides_are_of_one(tmp_path: Path) -> None:
    """The first is wide enough to be halved, others are not; what was drawn stays where it was."""
    sides = [100, 98, 60, 49, 200, 51]
    crops = CropStore(index_of(tmp_path, sides), 50)
    for row, side in enumerate(sides):
        whole = cv2.resize(
            picture(side, row)[:, :, ::-1], (50, 50), interpolation=cv2.INTER_AREA
        ).astype(float)
        assert crops[row].shape == (50, 50, 3)
        assert np.abs(crops[row] - whole).mean() < 4


@pytest.mark.parametrize("side", [64, 32, 20])
@pytest.mark.parametrize("keep", [(), range(3)], ids=["decoded", "kept"])
def test_a_damaged_crop_is_named(tmp_path: Path, side: int, keep: Sequence[int]) -> None:
    crops = CropStore(index_of(tmp_path, [64] * 3, damaged=1), side, keep)
    for _ in range(2):
        assert crops[0].shape == crops[2].shape == (side, side, 3)
        with pytest.raises(HandclrError, match=r"hands\.tar: sample crop-1"):
            crops[1]


def test_a_crop_that_is_not_square_or_not_there_is_named(tmp_path: Path) -> None:
    flat = cv2.imencode(".jpg", np.zeros((64, 60, 3), np.uint8))[1].tobytes()
    samples = [labelled_sample(0), Sample("flat", {"jpg": flat}), Sample("bare", {"json": b"{}"})]
    index = ShardIndex([str(write_shard(tmp_path / "hands.tar", samples))])
    for side in (64, 30):
        with pytest.raises(HandclrError, match=r"hands\.tar: sample flat: .*not square"):
            CropStore(index, side)[1]
        with pytest.raises(HandclrError, match=r"hands\.tar: sample bare has no jpg"):
            CropStore(index, side)[2]


@pytest.mark.slow
def test_workers_share_what_any_of_them_has_decoded(tmp_path: Path) -> None:
    crops = CropStore(index_of(tmp_path, [64] * 7), 40, keep=range(7))
    decode, decoded = crops._decode, multiprocessing.get_context("fork").Value("i", 0)

    def counted(row: int) -> np.ndarray:
        with decoded.get_lock():
            decoded.value += 1
        return decode(row)

    crops._decode = counted  # type: ignore[method-assign]
    seen = []
    for rows in ([[0, 1], [2, 3], [4]], [[6, 5], [4, 3], [2, 1, 0]]):
        with batches(crops, rows, np.stack, 2, CPU) as loaded:
            seen.append(
                dict(
                    zip(
                        [row for some in rows for row in some],
                        np.concatenate(list(loaded)),
                        strict=True,
                    )
                )
            )
    assert decoded.value == 7
    for row in range(7):
        np.testing.assert_array_equal(seen[1][row], decode(row))
        np.testing.assert_array_equal(crops[row], decode(row))
    assert decoded.value == 7


@pytest.mark.slow
def test_workers_start_beside_threads_of_opencv(tmp_path: Path) -> None:
    """What this process has decoded, for a probe say, must not keep its workers waiting: repeated,
    as it is a race.
    """
    crops = CropStore(index_of(tmp_path, [64] * 2), 30)
    before = cv2.getNumThreads()
    try:
        for _ in range(3):
            cv2.setNumThreads(4)
            cv2.GaussianBlur(picture(512), (0, 0), 3.0)
            with batches(crops, [[0], [1]], np.stack, 2, CPU) as loaded:
                assert len(list(loaded)) == 2
    finally:
        cv2.setNumThreads(before)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.slow
def test_all_crops_come_to_the_device_in_order(
    tmp_path: Path,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(store_module, "_FILL_BATCH", 3)
    crops = CropStore(index_of(tmp_path, [64] * 7), 30)
    there = crops.on_device(CPU, workers)
    assert there.dtype == torch.uint8 and there.shape == (7, 30, 30, 3)
    np.testing.assert_array_equal(there.numpy(), np.stack([crops[row] for row in range(7)]))
    some = crops.on_device(CPU, workers, [5, 2, 6, 0])
    np.testing.assert_array_equal(some.numpy(), there.numpy()[[5, 2, 6, 0]])
    index, unread = index_of(tmp_path, [64] * 7, 4, "bad.tar"), set[str]()
    bad = CropStore(index, 30).on_device(CPU, workers, unread=unread)
    assert not unread  # the trainers count what is known to be damaged
    index.damaged.clear()
    CropStore(index, 30).on_device(CPU, workers, [5, 2, 4, 6], unread)
    assert [line.split(": ")[1] for line in unread] == ["sample crop-4"]
    assert (bad[4] == 128).all() and "sample crop-4" in capsys.readouterr().err
    np.testing.assert_array_equal(np.delete(bad.numpy(), 4, 0), np.delete(there.numpy(), 4, 0))


def test_the_side_is_as_wanted_but_not_above_the_crops(tmp_path: Path) -> None:
    """Not above the largest that is sound, that is, whichever comes first."""
    for sides, damaged in (([64, 100], None), ([100, 64], None), ([200, 64, 100], 0)):
        index = index_of(tmp_path, sides, damaged)
        found = [crop_side(index, wanted) for wanted in (128 / 0.6, 32 / 0.6, 40.0)]
        assert found == [100, 54, 40] and crop_side(index) == 100
    assert index.sides.tolist() == [0, 64, 100]
    assert str(index.damaged[0]).endswith("sample crop-0: jpg: damaged, or cut short")
    assert crop_side(index_of(tmp_path, [], name="none.tar"), 53.3) == 54


@pytest.mark.parametrize(
    ("asked", "warped", "free", "expected"),
    [
        ("auto", False, 2400, "ram"),
        ("auto", False, 2399, "none"),
        ("auto", False, 0, "none"),
        ("auto", True, 2400, "gpu"),
        ("auto", True, 2399, "none"),
        ("none", False, 0, "none"),
        ("ram", False, 1200, "ram"),
        ("ram", False, 1199, HandclrError),
        ("gpu", True, 1200, "gpu"),
        ("gpu", True, 1199, HandclrError),
        ("gpu", False, 9999, UsageError),
        ("disk", True, 9999, UsageError),
    ],
)
def test_crops_are_kept_where_there_is_room(
    asked: str, warped: bool, free: int, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four crops of 10 px need 1,200 bytes; auto takes half of what is free at most."""
    monkeypatch.setattr(store_module, "free_memory", lambda device=None: free)
    device = CUDA if warped else CPU
    if isinstance(expected, str):
        assert choose_cache(asked, 4, 10, device, warped) == expected
    else:
        with pytest.raises(expected, match="cache: "):  # type: ignore[call-overload]
            choose_cache(asked, 4, 10, device, warped)


def test_memory_is_shared_with_the_other_processes_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = {None: 9600, CUDA: 0}
    monkeypatch.setattr(store_module, "free_memory", lambda device=None: free[device])
    assert choose_cache("auto", 4, 10, CUDA, True, neighbours=4) == "ram"
    assert choose_cache("auto", 4, 10, CUDA, True, neighbours=5) == "none"
