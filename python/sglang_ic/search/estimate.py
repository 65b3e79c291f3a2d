"""An increase of the loss from some of the sequences, and how far off it may be.

The question is not what the loss would be on all text, but what it is on the calibration set, of
which the first n of Q sequences have been seen. So errors shrink to zero as n nears Q (the
correction for sampling without replacement), and on the whole set an increase is a fact.

A *control* is something like the increase that is known of more sequences: what the same layer cost
before another one was converted. The mean is then that of the control, moved by what changed on the
first n sequences. It is right on average whatever the control is, and the better the more alike the
two are (double sampling with a difference estimator).
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


def estimate(
    differences: np.ndarray, weights: np.ndarray, control: np.ndarray | None = None
) -> Estimate:
    """Mean difference per token of two patterns, paired by sequence.

    Args:
        differences: [n] float64, sums over the first n sequences, nats.
        weights: [Q] int, predictions of each sequence, in tokens.
        control: [m] float64, n < m, sums over the first m sequences, nats; None: there is none.
    """
    seen, total = len(differences), len(weights)
    if control is None or seen == total:
        return Estimate(*_mean(differences, weights[:seen], total), seen)
    more = len(control)
    assert seen < more <= total, (seen, more, total)
    level, level_error = _mean(control, weights[:more], total)
    change, change_error = _mean(differences - control[:seen], weights[:seen], more)
    return Estimate(level + change, math.hypot(level_error, change_error), seen)


def _mean(sums: np.ndarray, counts: np.ndarray, total: int) -> tuple[float, float]:
    """Mean per token, and its standard error against the mean over `total` sequences."""
    mean, error = clustered_mean(sums, counts)
    if len(sums) == total:
        return mean, 0.0
    if error is None:
        return mean, math.inf
    return mean, error * math.sqrt((total - len(sums)) / (total - 1))


@cache
def _quantile(confidence: float, degrees: int) -> float:
    return float(stats.t.ppf(confidence, degrees))
