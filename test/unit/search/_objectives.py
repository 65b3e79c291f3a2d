"""Objectives and engines whose answers are known, and a stand-in for passes from any layer."""

import json
from collections.abc import Sequence

import numpy as np

from sglang_ic.evaluate.wire import EngineError
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


class Answering:
    """An engine with the scheduler's methods; loss: ten times the sequence, plus Shared layers."""

    def __init__(self, error: str | None = None) -> None:
        self.error, self.calls = error, []
        self.losses, self.drift = 0, 0.0  # asked for so far; what each whole one adds

    def call(self, method, **kwargs):
        self.calls.append(method.removeprefix("index_cache_search_"))
        if method.endswith("begin"):
            with np.load(kwargs["data"]) as arrays:
                self.sequences = [arrays[name].tolist() for name in arrays.files]
            layers = json.loads(kwargs["wanted"])
            limit = kwargs["limit_bytes"]
            found = {"layers": layers, "bytes": kwargs["host_bytes"] if limit is None else limit}
            found["host_bytes"] = found["bytes"] // 3
        elif method.endswith("loss"):
            if self.error is not None:
                raise EngineError(self.error)
            loss = 10.0 * kwargs["sequence"] + kwargs["pattern"].count("S")
            self.losses += 1
            if kwargs["whole"]:
                loss += self.drift * self.losses
            found = {"loss": loss, "layer_tokens": 4}
        elif method.endswith("selections"):
            rows = len(json.loads(kwargs["positions"]))
            return np.save(kwargs["answer"], np.tile(np.arange(8), (2, rows, 1)))
        else:
            return None
        with open(kwargs["answer"], "w") as file:
            json.dump(found, file)

    def close(self):
        self.calls.append("close")
