"""An increase of the loss from some of the sequences, and how far off it may be.

The question is not what the loss would be on all text, but what it is on the calibration set, of
which the first n of Q sequences have been seen. So errors shrink to zero as n nears Q (the
correction for sampling without replacement), and on the whole set an increase is a fact.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import stats

from sglang_ic.evaluate.stats import clustered_mean


@dataclass(frozen=True)
class Estimate:
    """A mean per token, nats, seen on the first `num_sequences`."""

    mean: float
    # Standard error against the mean over the whole set: 0 with all seen, inf with one of several.
    error: float
    num_sequences: int

    def lower(self, confidence: float) -> float:
        """What the mean over the whole set is above, with this one-sided confidence."""
        if self.error == 0:
            return self.mean
        if math.isinf(self.error):
            return -math.inf
        return self.mean - _quantile(confidence, self.num_sequences - 1) * self.error


def estimate(differences: np.ndarray, weights: np.ndarray) -> Estimate:
    """Mean difference per token of two patterns, paired by sequence.

    Args:
        differences: [n] float64, sums over the first n sequences, nats.
        weights: [Q] int, predictions of each sequence, in tokens.
    """
    seen, total = len(differences), len(weights)
    mean, error = clustered_mean(differences, weights[:seen])
    if seen == total:
        return Estimate(mean, 0.0, seen)
    if error is None:
        return Estimate(mean, math.inf, seen)
    return Estimate(mean, error * math.sqrt((total - seen) / (total - 1)), seen)


@cache
def _quantile(confidence: float, degrees: int) -> float:
    return float(stats.t.ppf(confidence, degrees))
