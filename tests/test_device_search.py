"""Exact search on a device: run on the CPU here, and on CUDA where there is one, against the other
engines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from pose_clouds import CLOUDS, clouds
from pose_engines import check, poses, search

from handclr_cli.contract.errors import HandclrError
from handclr_cli.similarity import device
from handclr_cli.similarity.device import DeviceTiles, full_float32
from handclr_cli.similarity.exact import Tiles
from handclr_cli.similarity.neighbours import EmbeddedPoses, Neighbours

MATMUL: Any = torch.backends.cuda.matmul
DEVICES = pytest.mark.parametrize(
    "where",
    [
        "cpu",
        pytest.param(
            "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
        ),
    ],
)


def on(where: str, memory: int = device.MEMORY) -> Callable[[EmbeddedPoses, int], DeviceTiles]:
    return lambda pool, first_row: DeviceTiles(
        pool, first_row, where, lambda: Tiles(pool, first_row), memory
    )


def unproven(
    pool: EmbeddedPoses, top_k: int = 1, distinct: bool = False, max_distance: float = np.inf
) -> int:
    engine = on("cpu")(pool, 0)
    engine.search(
        pool, Neighbours.nobody(len(pool.group), top_k, distinct, max_distance), lambda rows: None
    )
    return engine.fallback.answered


@pytest.fixture
def precision() -> Iterator[None]:
    """Whatever a test sets of torch's precision is set back."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision("highest")
    torch.set_float32_matmul_precision(before)


@DEVICES
@pytest.mark.parametrize("block", [4, 256])
@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.slow
def test_every_row_is_what_the_loop_finds(
    where: str, name: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "BLOCK", block)
    pool = poses(*clouds(name, np.random.default_rng(0)))
    middle = float(np.median(search(Tiles, pool, pool)[1]))
    check(on(where), pool, 10)
    check(on(where), pool, 1, cut=37)
    check(on(where), pool, 3, distinct=True, cut=37)
    check(on(where), pool, 3, max_distance=middle if np.isfinite(middle) else 1.0)


@pytest.mark.slow
@DEVICES
@pytest.mark.parametrize("memory", [1, 20_000, 1_000_000])
def test_memory_does_not_change_answers(where: str, memory: int, small_blocks: None) -> None:
    for name in ("random", "duplicates across videos", "one giant video"):
        check(on(where, memory), poses(*clouds(name, np.random.default_rng(1))), 3)


ROWS = 1500


def hard(name: str) -> EmbeddedPoses:
    rng = np.random.default_rng(2)
    group = np.arange(ROWS) // 37
    videos = group[-1] + 1
    if name == "walks":
        walked = np.cumsum(rng.normal(size=(ROWS, 14)) * 0.02, axis=0)
        return poses(
            walked - walked[group * 37] + rng.normal(size=(videos, 14))[group],
            rng.permutation(videos)[group],
        )
    if name == "copies":
        return poses(
            rng.normal(size=(200, 14))[rng.integers(0, 200, ROWS)], rng.integers(0, 40, ROWS)
        )
    if name == "one point far away":
        return poses(np.concatenate([[[1e6] * 14], rng.normal(size=(ROWS - 1, 14))]), group)
    if name == "far from the origin":
        return poses(rng.normal(size=(ROWS, 14)) + 1e4, group)
    assert name == "sizes of all kinds"
    return poses(
        rng.normal(size=(300, 3)) * 10.0 ** rng.integers(-25, 18, (300, 1)),
        rng.integers(0, 60, 300),
    )


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that few poses are many blocks, most of which are given up."""
    monkeypatch.setattr(device, "BLOCK", 16)
    monkeypatch.setattr(device, "QUERIES", 400)


@DEVICES
@pytest.mark.parametrize(
    "name", ["walks", "copies", "one point far away", "far from the origin", "sizes of all kinds"]
)
@pytest.mark.slow
def test_agrees_with_tiles_to_the_last_bit(where: str, name: str, small_blocks: None) -> None:
    pool = hard(name)
    for top_k, distinct in ((1, False), (10, False), (3, True)):
        found, expected = (Neighbours.nobody(len(pool.group), top_k, distinct) for _ in range(2))
        on(where)(pool, 5).search(pool, found, lambda rows: None)
        Tiles(pool, 5).search(pool, expected, lambda rows: None)
        for part in ("row", "squared", "group"):
            np.testing.assert_array_equal(getattr(found, part), getattr(expected, part))


@pytest.mark.slow
def test_most_answers_are_proven(small_blocks: None) -> None:
    for name in ("walks", "far from the origin", "one point far away"):
        assert unproven(hard(name)) <= 2, name
    assert unproven(hard("walks"), 3, distinct=True) < 15
    assert unproven(hard("walks"), 3, max_distance=0.01) == 0


def test_queries_of_other_groups_and_beyond_reach() -> None:
    rng = np.random.default_rng(3)
    pool = poses(rng.normal(size=(300, 5)) * 1e-20, rng.integers(2, 9, 300) * 2)
    queries = poses(
        rng.normal(size=(80, 5)) * 10.0 ** rng.integers(-22, 30, (80, 1)), rng.integers(0, 20, 80)
    )
    for one, other in zip(
        search(on("cpu"), queries, pool, 3), search(Tiles, queries, pool, 3), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_too_few_poses() -> None:
    for rows in (1, 2, 5):
        positive, _ = check(
            on("cpu"), poses(np.random.default_rng(0).normal(size=(rows, 3)), np.zeros(rows)), 2
        )
        assert (positive == -1).all()
    some, nobody = poses(np.ones((20, 14)), np.arange(20)), poses(np.ones((0, 14)), [])
    assert search(on("cpu"), nobody, some, 2)[0].shape == (0, 2)
    assert (search(on("cpu"), some, nobody, 2)[0] == -1).all()


def test_scores_of_fewer_digits_are_not_believed(
    small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if TF32 were forced from outside."""

    def hide_and_round(scores: torch.Tensor, first: int, own: Any) -> None:
        scores.copy_(scores.bfloat16().float())
        hide(scores, first, own)

    hide = device._hide_own
    monkeypatch.setattr(device, "_hide_own", hide_and_round)
    pool = hard("walks")
    assert unproven(pool) == ROWS
    check(on("cpu"), pool.take(slice(0, ROWS, 5)))


def settings() -> list[object]:
    new = [MATMUL.fp32_precision] if hasattr(MATMUL, "fp32_precision") else []
    return [MATMUL.allow_tf32, torch.get_float32_matmul_precision(), *new]


@pytest.mark.parametrize("wanted", ["highest", "high", "medium"])
def test_the_precision_that_was_set_is_set_again(wanted: str, precision: None) -> None:
    torch.set_float32_matmul_precision(wanted)
    before = settings()
    check(on("cpu"), poses(*clouds("random", np.random.default_rng(0))))
    with pytest.raises(ZeroDivisionError), full_float32("cpu"):
        raise ZeroDivisionError
    assert settings() == before


def test_the_old_switch_is_set_again(precision: None) -> None:
    MATMUL.allow_tf32 = True
    before = settings()
    with full_float32("cpu"):
        pass
    assert settings() == before and MATMUL.allow_tf32


@pytest.mark.skipif(
    not hasattr(MATMUL, "fp32_precision"), reason="torch before 2.9 has no such switch"
)
def test_the_new_switch_is_set_again(precision: None) -> None:
    MATMUL.fp32_precision = "tf32"
    with full_float32("cpu"):
        assert MATMUL.fp32_precision == "ieee"
    assert MATMUL.fp32_precision == "tf32"


@pytest.mark.parametrize("wanted", ["highest", "medium"])
def test_as_torch_before_2_9_does_it(
    wanted: str, precision: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cuda, "matmul", None)
    monkeypatch.setattr(torch.backends.mkldnn, "matmul", None)
    torch.set_float32_matmul_precision(wanted)
    with full_float32("cpu"):
        assert torch.get_float32_matmul_precision() == "highest"
    assert torch.get_float32_matmul_precision() == wanted


def test_autocast_does_not_change_answers(small_blocks: None) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert unproven(hard("walks")) <= 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_no_device_is_said_in_one_line() -> None:
    with pytest.raises(HandclrError, match="needs CUDA"):
        on("cuda")(poses([[0.0]], [0]), 0)
