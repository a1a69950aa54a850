"""Bootstrap samples are drawn with replacement, the same for both sides of a comparison, and give the middle 95%."""

from __future__ import annotations

import numpy as np
import pytest

from detr_core.studies.measurements.bootstrap import draw_counts, interval, ratio_interval


def test_every_sample_has_as_many_units_as_there_are() -> None:
    counts = draw_counts(7, samples=50)
    assert counts.shape == (50, 7)
    assert (counts.sum(1) == 7).all()
    assert counts.min() == 0
    assert counts.max() > 1
    assert len(np.unique(counts, axis=0)) > 40
    assert (counts == draw_counts(7, samples=50)).all()
    assert draw_counts(200).mean(0) == pytest.approx(np.ones(200), abs=0.2)


def test_the_counts_are_those_of_the_drawn_units() -> None:
    drawn = np.random.default_rng(0).integers(0, 4, (30, 4))
    assert draw_counts(4, samples=30).tolist() == [[row.count(unit) for unit in range(4)] for row in drawn.tolist()]


def test_the_interval_is_the_middle_of_the_known_values() -> None:
    values = np.arange(1001.0)
    assert interval(values) == pytest.approx((25.0, 975.0))
    assert interval(np.concatenate([values, np.full(500, np.nan)])) == pytest.approx((25.0, 975.0))
    assert interval(np.full(3, np.nan)) is None


def test_the_interval_of_a_ratio_is_that_of_samples_of_units() -> None:
    rng = np.random.default_rng(3)
    low, high = rng.random((2, 2, 12)) + 0.5
    differences = []
    for units in np.random.default_rng(0).integers(0, 12, (1000, 12)):
        differences.append(high[0, units].sum() / high[1, units].sum() - low[0, units].sum() / low[1, units].sum())
    expected = np.quantile(differences, [0.025, 0.975])
    assert ratio_interval((low[0], low[1]), (high[0], high[1])) == pytest.approx(tuple(expected))


def test_a_single_unit_has_no_interval_and_equal_units_have_one_of_no_width() -> None:
    one, two = np.ones(1), np.ones(2)
    assert ratio_interval((one, one), (2 * one, one)) is None
    assert ratio_interval((two, two), (3 * two, two)) == (2.0, 2.0)


def test_a_sample_without_the_region_is_left_out() -> None:
    area, region = np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.0, 0.5])
    whole = np.ones(3)
    assert ratio_interval((region, area), (whole, whole)) == (0.5, 0.5)
    assert ratio_interval((np.zeros(3), np.zeros(3)), (whole, whole)) is None
