"""What a search asks, and the table of the answers.

The search knows a model only as an `Objective`: losses of some sequences under a pattern. Loss is
the language-model loss, -log p of the true next token.

# Q = calibration sequences
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Objective(Protocol):
    """Losses of patterns, on calibration sequences that never change.

    Attributes:
        weights: [Q] predictions of each sequence, in tokens.
        layer_token_forwards: work so far: layers run times tokens, summed over all passes.
    """

    weights: Sequence[int]
    layer_token_forwards: int

    def losses(self, pattern: str, sequences: Sequence[int]) -> list[float]:
        """Sum of each sequence's losses in nats, under a pattern of F and S."""
        ...

    def rebase(self, pattern: str) -> None:
        """The patterns asked for from now on are mostly this one with a layer changed.

        Only a hint: what `losses` answers does not depend on it, what it costs does.
        """
        ...


class LossTable:
    """Each pattern's losses on the first sequences, asked for once."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.weights = np.asarray(objective.weights, dtype=np.int64)  # [Q]
        self._losses: dict[str, list[float]] = {}

    @property
    def num_sequences(self) -> int:
        return len(self.weights)

    def count(self, pattern: str) -> int:
        """Sequences that the pattern's losses are known of."""
        return len(self._losses.get(pattern, ()))

    def first(self, pattern: str, count: int) -> np.ndarray:
        """[count] float64: the sums of losses of the first `count` sequences, nats."""
        known = self._losses.setdefault(pattern, [])
        if len(known) < count:
            known += self.objective.losses(pattern, range(len(known), count))
        return np.array(known[:count])

    def increases(self, base: str, pattern: str, count: int) -> np.ndarray:
        """[count] float64: how much more than `base` a pattern costs, sums of nats."""
        return self.first(pattern, count) - self.first(base, count)

    def all(self, pattern: str) -> np.ndarray:
        """[Q] float64, nats."""
        return self.first(pattern, self.num_sequences)

    def mean(self, pattern: str) -> float:
        """Loss per token over the whole calibration set, nats."""
        return float(self.all(pattern).sum() / self.weights.sum())
