"""Contact sheets and plots: the files are pictures of the right size, and say what they should."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest

from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.hand.alignment import Alignment
from handclr_cli.report import curves, sheets
from handclr_cli.report.pairs_page import RANKS, choose_rows, pair_captions
from handclr_cli.report.sheets import Tile


def picture(seed: int, size: tuple[int, int] = (224, 224)) -> np.ndarray:
    return np.full((*size, 3), [40 + seed * 20 % 200, 120, 200], dtype=np.uint8)


def points(seed: int) -> np.ndarray:
    angles = np.repeat(np.linspace(-2.4, -0.8, 5), 4) + np.random.default_rng(seed).normal(
        0, 0.05, 20
    )
    radii = np.tile([50, 85, 110, 130], 5)
    fingers = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]
    return np.concatenate([[[112, 180]], fingers + [112, 180]])


def tiles(number: int, start: int = 0) -> list[Tile]:
    return [
        Tile(picture(i), f"kitchen_{i:08d}_r\n{i / 10:.3f}", points(i))
        for i in range(start, start + number)
    ]


def decoded(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def test_pair_sheet(tmp_path: Path) -> None:
    sheet = sheets.pair_sheet([tiles(3, start=i) for i in range(12)])
    sheets.write_png(tmp_path / "pairs.png", sheet)
    np.testing.assert_array_equal(decoded(tmp_path / "pairs.png"), sheet)
    height, width = sheet.shape[:2]
    assert 0.5 < width / height < 2
    assert list(tmp_path.iterdir()) == [tmp_path / "pairs.png"]


@pytest.mark.parametrize("lengths", [[1], [2], [1, 4, 2], [2] * 7])
def test_pair_sheet_takes_uneven_rows(lengths: list[int]) -> None:
    sheet = sheets.pair_sheet([tiles(n) for n in lengths])
    assert sheet.dtype == np.uint8
    assert (sheet[:8] == 255).all() and (sheet[-8:] == 255).all()
    assert (sheet[:, :8] == 255).all() and (sheet[:, -8:] == 255).all()


def test_pairs_are_closer_than_rows() -> None:
    dark = Tile(np.zeros((128, 128, 3), np.uint8))
    sheet = sheets.pair_sheet([[dark, dark]] * 8)
    across = (
        "".join("#" if value == 0 else "." for value in sheet[40, :, 0]).strip(".").split("#" * 128)
    )
    within, between = len(across[1]), len(across[2])
    assert between >= 2 * within > 0


def test_three_lines_below_eight_positives() -> None:
    row = [Tile(picture(0), "\n".join(["kitchen-1a2b3c"] * 3)) for _ in range(9)]
    sheet = sheets.pair_sheet([row, row[:3], row])
    captions = sheet[16 + sheets.TILE : 16 + sheets.TILE + 3 * 14 + 4]
    assert all(
        (captions[14 * line : 14 * (line + 1), -(sheets.TILE + 16) :] < 128).any()
        for line in range(3)
    )
    # White below the last line, before the next row, and in the place of the positives that are not
    # there.
    below = 16 + sheets.TILE + 3 * 14 + 4
    assert (sheet[below : below + 10] == 255).all()
    assert (sheet[below + 12 : below + 12 + sheets.TILE, -(sheets.TILE + 16) :] == 255).all()


def test_grid_sheet(tmp_path: Path) -> None:
    shapes = [
        Tile(picture(0, (100, 200))),
        Tile(picture(1, (200, 100))),
        Tile(picture(2, (20, 20))),
    ]
    sheet = sheets.grid_sheet(shapes, columns=2)
    assert sheet.shape == (2 * (128 + 4) - 4 + 32, 2 * (128 + 4) - 4 + 32, 3)
    # Fitted into the square, never stretched: white above the wide one, beside the tall one.
    assert (sheet[16 + 20, 16 + 64] == 255).all() and (sheet[16 + 64, 16 + 64] != 255).any()
    assert (sheet[16 + 64, 16 + 132 + 10] == 255).all()


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(HandclrError, match="nothing to draw"):
        sheets.grid_sheet([], 4)
    with pytest.raises(HandclrError, match="nothing to draw"):
        sheets.pair_sheet([[]])


def test_long_captions_lose_their_middle() -> None:
    long = "a_very_long_video_name_that_never_fits_00012345_r"
    short = sheets._fit(long)
    assert short.startswith("a_ve") and short.endswith("345_r") and ".." in short
    assert sheets._fit("short_00000001_l") == "short_00000001_l"
    with_caption = sheets.grid_sheet([Tile(picture(0), long)], 1)
    assert (with_caption[:, -16:] == 255).all()


def test_draw_skeleton() -> None:
    image = picture(0)
    drawn = sheets.draw_skeleton(image, points(0))
    assert (image == picture(0)).all()
    tip_x, tip_y = points(0)[8].astype(int)
    assert (drawn[tip_y, tip_x] == [86, 180, 233]).all()
    unseen = points(0)
    unseen[5:] = np.nan
    unseen[1:5] = 1e9
    assert sheets.draw_skeleton(image, unseen).shape == image.shape
    half = sheets.draw_skeleton(picture(0, (112, 112)), points(0), scale=0.5)
    assert (half[tip_y // 2, tip_x // 2] == [86, 180, 233]).all()


@pytest.mark.parametrize("rows", [1, 2, 500])
@pytest.mark.slow
def test_loss_plot(tmp_path: Path, rows: int) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, rows)
    records = [
        {"step": i, "loss": 5 * 0.995**i + noise[i], "lr": 0.01 * min(1, (i + 1) / 50)}
        for i in range(rows)
    ]
    path = tmp_path / "loss.png"
    curves.loss_plot(records, path)
    assert decoded(path).shape == (480, 720, 3)
    before = path.read_bytes()
    # Other rows, a diverged one and one that a resumed run wrote again change nothing.
    curves.loss_plot(
        [{"epoch": 1}, {"step": 0, "loss": 99.0}, {"step": 7, "loss": np.nan}, *records], path
    )
    assert path.read_bytes() == before


def test_loss_plot_without_a_loss(tmp_path: Path) -> None:
    with pytest.raises(HandclrError, match="nothing to plot"):
        curves.loss_plot([{"epoch": 1}], tmp_path / "loss.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dimensions", [1, 5, 14, 42])
@pytest.mark.slow
def test_variance_plot(tmp_path: Path, dimensions: int) -> None:
    ratio = 0.7 ** np.arange(dimensions)
    curves.variance_plot(ratio / ratio.sum(), tmp_path / "variance.png")
    assert decoded(tmp_path / "variance.png").shape == (480, 720, 3)


@pytest.mark.slow
def test_pck_plot(tmp_path: Path) -> None:
    thresholds = np.linspace(0, 50, 100)
    table = {
        "root+bone": (thresholds, 1 - np.exp(-thresholds / 20), 0.571),
        "procrustes": (thresholds, 1 - np.exp(-thresholds / 8), 0.842),
    }
    curves.pck_plot(table, tmp_path / "pck.png")
    assert decoded(tmp_path / "pck.png").shape == (480, 720, 3)
    first = (tmp_path / "pck.png").read_bytes()
    curves.pck_plot(table, tmp_path / "pck.png")
    assert (tmp_path / "pck.png").read_bytes() == first
    assert b"Software" not in first
    # One curve upon another is dashed, so that the colours of both are seen.
    table["procrustes+reflection"] = table["procrustes"]
    curves.pck_plot(table, tmp_path / "both.png")
    pixels = decoded(tmp_path / "both.png").reshape(-1, 3).astype(int)
    for colour in ("009e73", "d55e00"):
        channels = [int(colour[at : at + 2], 16) for at in (0, 2, 4)]
        assert (np.abs(pixels - np.array(channels)).max(axis=1) < 8).sum() > 200


DISTANCE = np.array([0.5, np.inf, 0.1, 0.3, 0.1, 0.9, 0.0, 0.3, np.inf, 0.7])


@pytest.mark.parametrize(
    ("rank", "count", "rows"),
    [
        ("best", 4, [6, 2, 4, 3]),
        ("worst", 4, [5, 9, 0, 3]),
        ("quantiles", 3, [6, 7, 5]),
        ("quantiles", 1, [6]),
        ("best", 99, [6, 2, 4, 3, 7, 0, 9, 5]),
        ("worst", 99, [5, 9, 0, 3, 7, 2, 4, 6]),
        ("quantiles", 99, [6, 2, 4, 3, 7, 0, 9, 5]),
        ("random", 99, [0, 2, 3, 4, 5, 6, 7, 9]),
    ],
)
def test_choose_rows(rank: str, count: int, rows: list[int]) -> None:
    chosen = choose_rows(DISTANCE, rank, count)
    assert chosen.dtype == np.int64 and chosen.tolist() == rows


def test_random_rows_are_those_of_the_seed() -> None:
    chosen = choose_rows(DISTANCE, "random", 4, seed=3).tolist()
    assert chosen == sorted(set(chosen)) and len(chosen) == 4 and not {1, 8} & set(chosen)
    assert choose_rows(DISTANCE, "random", 4, seed=3).tolist() == chosen
    assert any(
        choose_rows(DISTANCE, "random", 4, seed=seed).tolist() != chosen for seed in range(4, 8)
    )


@pytest.mark.parametrize("rank", RANKS)
def test_no_rows_to_choose_from(rank: str) -> None:
    videos = np.zeros(2, np.int32)
    for distance in (np.full(2, np.inf), np.full(2, np.nan)):
        assert choose_rows(distance, rank, 5, 0, videos, videos).tolist() == []


def test_an_unknown_rank() -> None:
    with pytest.raises(UsageError, match="median.*best, worst, random, quantiles"):
        choose_rows(DISTANCE, "median", 4)


def test_the_best_are_of_different_videos() -> None:
    # Rows 0 to 3 are of videos 5 and 8, whichever way round, 4 and 5 of 8 and 9, 6 of 5 and 9.
    video, other = np.array([5, 8, 5, 8, 8, 8, 9]), np.array([8, 5, 8, 5, 9, 9, 5])
    distance = np.arange(7) / 10
    assert choose_rows(distance, "best", 3, 0, video, other).tolist() == [0, 4, 6]
    assert choose_rows(distance, "worst", 3, 0, video, other).tolist() == [6, 5, 3]
    # With fewer pairs of videos than there is room, a second of each comes before a third, in order
    # of the distance.
    assert choose_rows(distance, "best", 5, 0, video, other).tolist() == [0, 1, 4, 5, 6]
    assert choose_rows(distance, "best", 6, 0, video, other).tolist() == [0, 1, 2, 4, 5, 6]
    assert choose_rows(distance, "worst", 9, 0, video, other).tolist() == [6, 5, 4, 3, 2, 1, 0]
    assert choose_rows(distance, "best", 3).tolist() == [0, 1, 2]
    for rank in ("quantiles", "random"):
        assert (
            choose_rows(distance, rank, 3, 0, video, other) == choose_rows(distance, rank, 3)
        ).all()


def test_pair_captions() -> None:
    captions = pair_captions(
        "my_trip-1a_00000012_r", ["b_00000001_l2", "not-a-key"], [0.12345, 2], [1, 3]
    )
    assert captions == [
        "my_trip-1a\n00000012_r",
        "1: d 0.1235\nb\n00000001_l2",
        "3: d 2.0000\nnot-a-key",
    ]


def drawn(path: Path, distances: dict[str, np.ndarray]) -> np.ndarray:
    curves.distance_plot(distances, path)
    return decoded(path)


@pytest.mark.parametrize(
    "values",
    [
        [],
        [np.inf] * 3,
        [np.nan],
        [0.3],
        [0.0],
        [0.0] * 5,
        [0.25] * 5,
        [0.0, 0.25],
        [1e-30, 1.0],
        [1e-40],
        [1e30] * 2,
    ],
)
@pytest.mark.slow
def test_distance_plot_takes_any_distances(tmp_path: Path, values: list[float]) -> None:
    assert drawn(tmp_path / "distances.png", {"nearest": np.array(values, np.float32)}).shape == (
        480,
        720,
        3,
    )


def test_distance_plot_without_a_series(tmp_path: Path) -> None:
    assert drawn(tmp_path / "distances.png", {}).shape == (480, 720, 3)


@pytest.mark.slow
def test_distance_plot(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.gamma(shape, 0.1, (500, 1)).astype(np.float32) for shape in (4, 6))
    path = tmp_path / "distances.png"
    one, both = drawn(path, {"rank 1": first}), drawn(path, {"rank 1": first, "rank 2": second})
    assert (one != both).any()
    before = path.read_bytes()
    # Queries without a positive and the order of the rest change nothing.
    more = np.append(first[::-1], [np.inf, np.nan])
    assert (drawn(path, {"rank 1": more, "rank 2": second}) == both).all()
    assert path.read_bytes() == before and b"Software" not in before


@pytest.mark.parametrize("tiny", [0.0, 1e-9])
@pytest.mark.slow
def test_distances_of_zero_have_their_own_bar(tmp_path: Path, tiny: float) -> None:
    distances = np.random.default_rng(0).gamma(4, 0.1, 1000)
    without = drawn(tmp_path / "distances.png", {"nearest": distances})
    distances[:30] = tiny
    sheet = drawn(tmp_path / "distances.png", {"nearest": distances})

    def blue(image: np.ndarray) -> int:
        """Coloured pixels below the legend, where the narrow bar is, or else the beginning of the
        axis.
        """
        corner = image[100:, :100].astype(int)
        return int((corner[..., 2] - corner[..., 0] > 25).sum())

    assert blue(sheet) > 4 * blue(without)


THRESHOLDS = np.linspace(0, 50, 100)
# As many curves as evaluate draws.
CURVES = {
    name: (THRESHOLDS, 1 - np.exp(-THRESHOLDS / (20 + number)), 0.5)
    for number, name in enumerate((*get_args(Alignment), "mean pose, root+bone"))
}
PLOTS: dict[str, Callable[[Path], None]] = {
    "loss": lambda path: curves.loss_plot(
        [{"step": step, "loss": 5 - step / 100, "lr": 0.01} for step in range(100)], path
    ),
    "variance": lambda path: curves.variance_plot(np.full(42, 1 / 42), path),
    "pck": lambda path: curves.pck_plot(CURVES, path),
    "distance": lambda path: curves.distance_plot(
        {f"rank {rank}": np.append(np.linspace(0, rank, 999), 0) for rank in (1, 5)}, path
    ),
}


@pytest.mark.parametrize("name", PLOTS)
def test_no_curve_runs_through_the_words_of_a_legend(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Any] = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: figures.append(figure))
    PLOTS[name](tmp_path / "plot.png")
    (figure,) = figures
    figure.draw_without_rendering()
    legends = [*figure.legends, *filter(None, (axes.get_legend() for axes in figure.axes))]
    (box,) = (legend.get_window_extent() for legend in legends)
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    for axes in figure.axes:
        assert not axes.get_tightbbox().overlaps(box)
        assert axes.get_window_extent().height > figure.bbox.height / 2
