"""Objectives whose answers are known, and a stand-in for passes that begin at any layer."""

from collections.abc import Sequence

import numpy as np

from sglang_ic.search.states import StateStore


class Synthetic:
    """Losses from a function of (pattern, sequence); every pass runs all layers."""

    def __init__(self, loss, weights: Sequence[int]) -> None:
        self.weights = list(weights)
        self.layer_token_forwards = 0
        self.asked: list[tuple[str, int]] = []
        self.bases: list[str] = []
        self._loss = loss

    def losses(self, pattern: str, sequences: Sequence[int]) -> list[float]:
        return [self.measure(pattern, sequence)[0] for sequence in sequences]

    def measure(self, pattern: str, sequence: int) -> tuple[float, int]:
        self.asked.append((pattern, sequence))
        layer_tokens = self._layers_run(pattern, sequence) * (self.weights[sequence] + 1)
        self.layer_token_forwards += layer_tokens
        return self._loss(pattern, sequence), layer_tokens

    def rebase(self, pattern: str) -> None:
        self.bases.append(pattern)

    def _layers_run(self, pattern: str, sequence: int) -> int:
        return len(pattern)


class Resuming(Synthetic):
    """The same, with the engine's own store deciding where passes begin."""

    def __init__(self, loss, weights: Sequence[int], kept_layers: Sequence[int]) -> None:
        super().__init__(loss, weights)
        self.states = StateStore(kept_layers, len(self.weights))

    def rebase(self, pattern: str) -> None:
        super().rebase(pattern)
        self.states.rebase(pattern)

    def _layers_run(self, pattern: str, sequence: int) -> int:
        start, _ = self.states.resume(sequence, pattern)
        wanted = self.states.make_room(sequence, pattern)
        self.states.record(sequence, pattern, {layer: [] for layer in wanted})
        return len(pattern) - start


def pairwise(singles, pairs, per_sequence):
    """A loss whose increases never shrink: a price per Shared layer, and one per pair of them.

    Args:
        singles: [L] prices; pairs: [L, L] prices of 0 or more.
        per_sequence: [Q] factors.
    """

    def loss(pattern: str, sequence: int) -> float:
        shared = [layer for layer, letter in enumerate(pattern) if letter == "S"]
        total = sum(singles[x] for x in shared)
        total += sum(pairs[x][y] for x in shared for y in shared if x < y)
        return float(total * per_sequence[sequence])

    return loss


def like_a_model(num_layers: int, num_sequences: int, seed: int):
    """A noisy loss: Shared layers cost more the farther the selection that they reuse is away."""
    generator = np.random.default_rng(seed)
    price = generator.gamma(1.0, 1.0, num_layers)
    noise = generator.normal(1.0, 0.5, (num_sequences, num_layers))
    level = generator.normal(3000.0, 300.0, num_sequences)

    def loss(pattern: str, sequence: int) -> float:
        total, owner = level[sequence], 0
        for layer, letter in enumerate(pattern):
            if letter == "F":
                owner = layer
            else:
                total += price[layer] * (layer - owner) ** 0.7 * noise[sequence, layer]
        return float(total)

    return loss


def greedy_by_hand(loss, weights, start: str, num_full: int, fixed) -> list[str]:
    """The paper's search in a few lines: patterns after each step."""
    pattern, found = start, []
    while pattern.count("F") > num_full:
        flips = [
            pattern[:x] + "S" + pattern[x + 1 :]
            for x in range(len(pattern))
            if pattern[x] == "F" and x not in fixed
        ]
        pattern = min(flips, key=lambda text: sum(loss(text, q) for q in range(len(weights))))
        found.append(pattern)
    return found
