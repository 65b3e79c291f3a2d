"""Means and intervals over documents.

Tokens and answers of one document are correlated, so documents are what is resampled: treating
answers as independent would make intervals too narrow.

G = documents
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
NUM_RESAMPLES = 4000
SEED = 0  # of the resampling


def clustered_mean(sums: Sequence[float], counts: Sequence[int]) -> tuple[float, float | None]:
    """Mean over all items, and its standard error clustered by document.

    Args:
        sums: [G] sum of the items of each document.
        counts: [G] number of them.
    Returns:
        The ratio of the totals, and the usual linearised standard error of a ratio; None with
        fewer than two documents.
    """
    sums, counts = np.asarray(sums, float), np.asarray(counts, float)
    mean = sums.sum() / counts.sum()
    num_documents = len(sums)
    if num_documents < 2:
        return float(mean), None
    residuals = sums - mean * counts
    scale = num_documents / (num_documents - 1)
    return float(mean), float(math.sqrt(scale * (residuals**2).sum()) / counts.sum())


def mean_interval(mean: float, error: float | None, num_documents: int) -> list[float] | None:
    """95% interval of a clustered mean (Student's t, G - 1 degrees of freedom)."""
    if error is None:
        return None
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, num_documents - 1)) * error
    return [mean - half, mean + half]


def rate_interval(
    right: Sequence[float], counts: Sequence[int], low: float = 0.0, high: float = 1.0
) -> list[float] | None:
    """95% interval of `sum(right) / sum(counts)`, by resampling documents.

    For a paired difference of two rates, give the differences in number right, and low = -1.

    Args:
        right: [G] right answers of each document.
        counts: [G] answers of each document.
        low, high: what the rate can be.
    Returns:
        None with fewer than two documents.
    """
    right, counts = np.asarray(right, float), np.asarray(counts, float)
    num_documents = len(right)
    if num_documents < 2:
        return None
    rates = right / counts
    if np.ptp(rates) == 0:
        # All documents agree, as at 100%: resampling would claim to be certain. What G agreeing
        # documents leave open is a share of others (Clopper-Pearson), which could have any rate.
        exact = stats.binomtest(num_documents, num_documents).proportion_ci(CONFIDENCE)
        others, rate = 1 - exact.low, rates[0]
        return [float(rate - others * (rate - low)), float(rate + others * (high - rate))]
    result = stats.bootstrap(
        (right, counts),
        lambda r, n, axis: r.sum(axis=axis) / n.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=NUM_RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(SEED),
    )
    return [float(result.confidence_interval.low), float(result.confidence_interval.high)]
