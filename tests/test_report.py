"""Contact sheets and plots: the files are pictures of the right size, and say what they should."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from handclr_cli.contract.errors import HandclrError
from handclr_cli.report import curves, sheets
from handclr_cli.report.sheets import Tile


def picture(seed: int, size: tuple[int, int] = (224, 224)) -> np.ndarray:
    return np.full((*size, 3), [40 + seed * 20 % 200, 120, 200], dtype=np.uint8)


def points(seed: int) -> np.ndarray:
    angles = np.repeat(np.linspace(-2.4, -0.8, 5), 4) + np.random.default_rng(seed).normal(0, 0.05, 20)
    radii = np.tile([50, 85, 110, 130], 5)
    fingers = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]
    return np.concatenate([[[112, 180]], fingers + [112, 180]])


def tiles(number: int, start: int = 0) -> list[Tile]:
    return [Tile(picture(i), f"kitchen_{i:08d}_r\n{i / 10:.3f}", points(i)) for i in range(start, start + number)]


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


def test_grid_sheet(tmp_path: Path) -> None:
    shapes = [Tile(picture(0, (100, 200))), Tile(picture(1, (200, 100))), Tile(picture(2, (20, 20)))]
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
def test_loss_plot(tmp_path: Path, rows: int) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, rows)
    records = [{"step": i, "loss": 5 * 0.995**i + noise[i], "lr": 0.01 * min(1, (i + 1) / 50)} for i in range(rows)]
    path = tmp_path / "loss.png"
    curves.loss_plot(records, path)
    assert decoded(path).shape == (480, 720, 3)
    before = path.read_bytes()
    # Other rows, a diverged one and one that a resumed run wrote again change nothing.
    curves.loss_plot([{"epoch": 1}, {"step": 0, "loss": 99.0}, {"step": 7, "loss": np.nan}, *records], path)
    assert path.read_bytes() == before


def test_loss_plot_without_a_loss(tmp_path: Path) -> None:
    with pytest.raises(HandclrError, match="nothing to plot"):
        curves.loss_plot([{"epoch": 1}], tmp_path / "loss.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dimensions", [1, 5, 14, 42])
def test_variance_plot(tmp_path: Path, dimensions: int) -> None:
    ratio = 0.7 ** np.arange(dimensions)
    curves.variance_plot(ratio / ratio.sum(), tmp_path / "variance.png")
    assert decoded(tmp_path / "variance.png").shape == (480, 720, 3)


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
