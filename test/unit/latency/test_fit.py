"""Spread, ratios and the line at zero Full layers, against values worked out by hand."""

import pytest

from sglang_ic.latency import fit


def test_spread_of_repeats():
    found = fit.spread([4.0, 1.0, 2.0])
    assert (found.num, found.median, found.min, found.max) == (3, 2.0, 1.0, 4.0)
    assert found.relative == 1.5


def test_line_through_points_that_lie_on_one():
    found = fit.no_indexer({47: 24.5, 24: 13.0, 12: 7.0})
    assert found.no_indexer == pytest.approx(1.0)
    assert found.per_layer == pytest.approx(0.5)
    assert found.worst_residual == pytest.approx(0, abs=1e-12)
    assert found.r_squared == pytest.approx(1)


def test_residuals_of_points_beside_the_line():
    # Least squares through (0, 1), (1, 0), (2, 2): slope 1/2, start 1/2, residuals 1/2, -1, 1/2.
    found = fit.no_indexer({0: 1.0, 1: 0.0, 2: 2.0})
    assert (found.no_indexer, found.per_layer) == pytest.approx((0.5, 0.5))
    assert found.residuals == pytest.approx({0: 0.5, 1: -1.0, 2: 0.5})
    assert found.worst_residual == pytest.approx(1.0)
    assert found.r_squared == pytest.approx(0.25)  # 1 - 1.5 / 2


def test_two_full_counts_are_no_line():
    assert fit.no_indexer({47: 23.0, 12: 13.0}) is None


def test_times_that_do_not_depend_on_the_indexer():
    found = fit.no_indexer({4: 2.0, 8: 2.0, 16: 2.0})
    assert (found.no_indexer, found.per_layer, found.r_squared) == (2.0, 0.0, 1.0)
