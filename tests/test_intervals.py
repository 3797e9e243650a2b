"""Bootstrap intervals against plain loops and known cases."""

from __future__ import annotations

import numpy as np
import pytest

from handclr_cli.evaluation import intervals, metrics
from handclr_cli.report.score_table import print_comparison


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_resampled_means_are_those_of_a_loop(rng: np.random.Generator) -> None:
    values, valid = rng.gamma(2, 10, (12, 21)), rng.random((12, 21)) < 0.7
    valid[:, [0, 9]] = True
    units = np.array(list("cabcabddbaeb"))
    found = intervals.resampled_means(values, valid, units, seed=3, resamples=40)
    names = np.unique(units)
    draws = np.random.default_rng(3).integers(len(names), size=(40, len(names)))
    for draw, mean in zip(draws, found, strict=True):
        rows = [row for name in names[draw] for row in range(12) if units[row] == name]
        by_joint = [
            np.mean([values[row, joint] for row in rows if valid[row, joint]])
            for joint in range(21)
            if any(valid[row, joint] for row in rows)
        ]
        assert mean == pytest.approx(np.mean(by_joint), rel=1e-12)


def test_versions_of_a_pose_do_not_narrow_the_interval(rng: np.random.Generator) -> None:
    values, valid = rng.gamma(2, 10, (50, 21)), np.ones((50, 21), bool)
    once = intervals.resampled_means(values, valid, np.arange(50))
    four = intervals.resampled_means(
        np.tile(values, (4, 1)), np.tile(valid, (4, 1)), np.tile(np.arange(50), 4)
    )
    np.testing.assert_allclose(four, once, rtol=1e-12)
    alone = intervals.resampled_means(
        np.tile(values, (4, 1)), np.tile(valid, (4, 1)), np.arange(200)
    )
    assert alone.std() == pytest.approx(once.std() / 2, rel=0.15)


def test_the_width_is_that_of_the_standard_error(rng: np.random.Generator) -> None:
    values = np.repeat(rng.normal(20, 5, (400, 1)), 21, axis=1)
    means = intervals.resampled_means(values, np.ones(values.shape, bool), np.arange(400))
    low, high = np.percentile(means, intervals.PERCENTILES)
    error = values[:, 0].std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_the_interval_covers_the_mean_as_often_as_it_says(rng: np.random.Generator) -> None:
    hits = 0
    for trial in range(300):
        values = np.repeat(rng.gamma(4, 5, (60, 1)), 21, axis=1)  # errors around a true mean of 20
        means = intervals.resampled_means(
            values, np.ones(values.shape, bool), np.arange(60), trial, resamples=300
        )
        low, high = np.percentile(means, intervals.PERCENTILES)
        hits += low <= 20 <= high
    assert 0.90 <= hits / 300 <= 0.98


def test_the_table_adds_intervals_around_each_number(rng: np.random.Generator) -> None:
    truth = rng.normal(0, 0.05, (60, 21, 3))
    errors = metrics.all_errors_mm(truth + rng.normal(0, 0.01, truth.shape), truth)
    valid, units = np.ones((60, 21), bool), np.arange(60)
    table = intervals.pose_table(errors, valid, units)
    plain = metrics.evaluate_pose(truth, truth)
    for name, block in table.items():
        assert set(block) == {*plain[name], "mpjpe_mm_interval", "pck_auc_interval"}
        low, high = block["mpjpe_mm_interval"]
        assert low < block["mpjpe_mm"] < high
        alone = np.percentile(
            intervals.resampled_means(errors[name], valid, units), intervals.PERCENTILES
        )
        np.testing.assert_allclose([low, high], alone)
        for area, ends in block["pck_auc_interval"].items():
            assert ends[0] <= block["pck_auc"][area] <= ends[1]
    assert table == intervals.pose_table(errors, valid, units)
    other = intervals.pose_table(errors, valid, units, seed=1)
    assert other["root"]["mpjpe_mm_interval"] != table["root"]["mpjpe_mm_interval"]


def test_one_unit_has_no_interval(rng: np.random.Generator) -> None:
    errors = {"root": rng.gamma(2, 10, (5, 21))}
    block = intervals.pose_table(errors, np.ones((5, 21), bool), np.zeros(5))["root"]
    assert block["mpjpe_mm_interval"] is None and block["pck_auc_interval"] == {
        "0-50mm": None,
        "20-50mm": None,
    }


def test_a_comparison_of_one_unit_has_no_interval(rng: np.random.Generator) -> None:
    a, b = ({"root": rng.gamma(2, 10, (5, 21))} for _ in range(2))
    row = intervals.paired_table(a, b, np.ones((5, 21), bool), np.zeros(5))["root"]
    assert row["b_minus_a_interval"] is None and row["resamples_with_b_better"] is None
    about = {"interval": {"units": 1}, "samples": 5, "a": "", "b": ""}
    print_comparison({"comparison": {"root": row}, **about})


def test_paired_differences_are_narrower_than_their_parts(rng: np.random.Generator) -> None:
    hard = rng.gamma(2, 10, (300, 1))  # what makes a sample hard is common to both
    a, b = (np.repeat(hard + rng.normal(shift, 1, (300, 1)), 21, axis=1) for shift in (3.0, 2.5))
    valid, units = np.ones(a.shape, bool), np.arange(300)
    found = intervals.paired(a, b, valid, units)
    assert found.difference == pytest.approx(b.mean() - a.mean()) and found.a == pytest.approx(
        a.mean()
    )
    assert found.low < found.difference < found.high < 0 and found.b_better == 1
    width = np.ptp(np.percentile(intervals.resampled_means(a, valid, units), intervals.PERCENTILES))
    assert found.high - found.low < width / 4
    back = intervals.paired(b, a, valid, units)
    assert (back.difference, back.low, back.high) == pytest.approx(
        (-found.difference, -found.high, -found.low)
    )
    same = intervals.paired(a, a, valid, units)
    assert (same.difference, same.low, same.high, same.b_better) == (0, 0, 0, 0)
