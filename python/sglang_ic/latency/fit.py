"""Medians, spread, ratios, and what no indexer at all would take. Pure.

`None` is unknown, never zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median

MIN_COUNTS = 3


@dataclass(frozen=True)
class Spread:
    """Repeats of one number."""

    num: int
    median: float
    min: float
    max: float

    @property
    def relative(self) -> float:
        """(max - min) / median."""
        return (self.max - self.min) / self.median


def spread(values: Sequence[float]) -> Spread:
    assert values
    return Spread(len(values), median(values), min(values), max(values))


@dataclass(frozen=True)
class Fit:
    """A line of time over Full layers, through the medians of arms.

    Attributes:
        no_indexer: the line at zero Full layers, in the unit of the times.
        per_layer: its slope, the time of one layer's indexer.
        residuals: Full count -> time minus line.
        r_squared: share of the variance that the line explains.
    """

    no_indexer: float
    per_layer: float
    residuals: dict[int, float]
    r_squared: float

    @property
    def worst_residual(self) -> float:
        return max(abs(value) for value in self.residuals.values())


def no_indexer(times: Mapping[int, float]) -> Fit | None:
    """Least squares over Full counts; None for fewer than `MIN_COUNTS` of them.

    Args:
        times: Full count -> median time.
    """
    if len(times) < MIN_COUNTS:
        return None
    x_mean, y_mean = mean(times), mean(times.values())
    slope = sum((x - x_mean) * (y - y_mean) for x, y in times.items()) / sum(
        (x - x_mean) ** 2 for x in times
    )
    start = y_mean - slope * x_mean
    residuals = {x: y - (start + slope * x) for x, y in times.items()}
    total = sum((y - y_mean) ** 2 for y in times.values())
    left = sum(value**2 for value in residuals.values())
    return Fit(start, slope, residuals, 1 - left / total if total else 1.0)
