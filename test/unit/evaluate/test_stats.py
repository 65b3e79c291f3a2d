"""Means and intervals over documents, against hand-computed values."""

import math

import numpy as np
import pytest

from sglang_ic.evaluate.stats import clustered_mean, mean_interval, rate_interval


def test_clustered_mean_by_hand():
    # Two documents: sums 1 and 4 over 2 and 3 items. Mean 1, residuals -1 and 1.
    mean, error = clustered_mean([1.0, 4.0], [2, 3])
    assert mean == 1.0
    assert error == pytest.approx(math.sqrt(2 * (1 + 1)) / 5)


def test_clustered_error_of_equal_sizes_is_that_of_the_document_means():
    generator = np.random.default_rng(0)
    sums = generator.normal(size=30) * 10
    mean, error = clustered_mean(sums, [10] * 30)
    means = sums / 10
    assert mean == pytest.approx(means.mean())
    assert error == pytest.approx(means.std(ddof=1) / math.sqrt(30))


def test_correlated_items_have_a_larger_error_than_independent_ones():
    # Each of 20 documents has 10 equal items: 200 items, 20 independent facts.
    values = np.random.default_rng(1).normal(size=20)
    _, clustered = clustered_mean(values * 10, [10] * 20)
    _, naive = clustered_mean(np.repeat(values, 10), [1] * 200)
    assert clustered == pytest.approx(naive * math.sqrt(10), rel=0.05)


def test_one_document_has_no_error():
    assert clustered_mean([3.0], [6]) == (0.5, None)
    assert mean_interval(0.5, None, 1) is None
    assert rate_interval([3], [6]) is None


def test_mean_interval_is_students():
    low, high = mean_interval(1.0, 0.5, 3)
    assert (low, high) == pytest.approx((1 - 4.302653 * 0.5, 1 + 4.302653 * 0.5), abs=1e-5)


def test_rate_interval_resamples_documents():
    # Half of the documents all right, half all wrong: 10 facts, not 100.
    right, counts = [10] * 5 + [0] * 5, [10] * 10
    low, high = rate_interval(right, counts)
    assert low == pytest.approx(0.2, abs=0.05)
    assert high == pytest.approx(0.8, abs=0.05)
    assert rate_interval(right, counts) == [low, high]


def test_a_document_is_resampled_with_its_own_number_of_answers():
    low, high = rate_interval([0, 20, 1, 18, 2], [2, 20, 2, 20, 2])
    assert 0 <= low <= 41 / 46 <= high <= 1


def test_agreeing_documents_are_not_certain():
    # 16 of 16: Clopper-Pearson gives 0.025 ** (1 / 16) from below.
    low, high = rate_interval([4] * 16, [4] * 16)
    assert (low, high) == (pytest.approx(0.025 ** (1 / 16)), 1.0)
    low, high = rate_interval([0] * 16, [4] * 16, low=-1.0)
    assert high == pytest.approx(1 - 0.025 ** (1 / 16))
    assert low == -high
