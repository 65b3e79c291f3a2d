"""Patterns to compare a searched one with, for any number of Full layers.

A checkpoint with trained sharing has indexers on some layers only: controls choose among these.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sglang_ic.evaluate.arms import random_pattern, uniform_pattern
from sglang_ic.pattern import LayerPattern, PatternError
from sglang_ic.pattern_text import parse_count, show


@dataclass(frozen=True)
class Controls:
    """Controls that were asked for."""

    uniform: bool = False
    similarity: bool = False
    num_random: int = 0

    @classmethod
    def parse(cls, given: Iterable[str]) -> "Controls":
        """From `uniform`, `similarity` and `random:N`.

        Raises:
            PatternError: anything else.
        """
        uniform, similarity, num_random = False, False, 0
        for text in given:
            if text == "uniform":
                uniform = True
            elif text == "similarity":
                similarity = True
            elif text.startswith("random:"):
                num_random = parse_count(text.removeprefix("random:"), "--control count", text)
            else:
                raise PatternError(
                    f"--control {show(text)} is unknown: use uniform, similarity or random:N"
                )
        return cls(uniform, similarity, num_random)

    def patterns(
        self, start: LayerPattern, num_full: int, overlap: np.ndarray | None
    ) -> list[tuple[str, str]]:
        """(kind, F/S text) of each control with `num_full` Full layers; random ones all differ.

        Args:
            start: its Full layers are those to choose from.
            overlap: [layers, layers] of `similarity_pattern`; None without that control.
        """
        layers = start.full_layers
        found = []
        if self.uniform:
            chosen = uniform_pattern(len(layers), num_full).full_layers
            found.append(("uniform", _spread(layers, chosen, start.num_layers)))
        if self.similarity:
            found.append(("similarity", similarity_pattern(overlap, layers, num_full)))
        drawn: dict[str, None] = {}
        # There may be fewer patterns than were asked for.
        for seed in range(100 * self.num_random):
            if len(drawn) == self.num_random:
                break
            chosen = random_pattern(len(layers), num_full, seed).full_layers
            drawn[_spread(layers, chosen, start.num_layers)] = None
        return found + [("random", text) for text in drawn]


def _spread(layers: Sequence[int], chosen: Sequence[int], num_layers: int) -> str:
    full = {layers[place] for place in chosen}
    return "".join("F" if layer in full else "S" for layer in range(num_layers))


def similarity_pattern(overlap: np.ndarray, layers: Sequence[int], num_full: int) -> str:
    """The pattern whose Shared layers reuse the most alike selections, by dynamic programming.

    Args:
        overlap: [L, L] share of tokens that two layers both select when all are Full.
        layers: those that may be Full, ascending; the first is layer 0.
    """
    num_layers = len(overlap)
    # gain[a][b]: overlap of layers a..b-1 with the selection of layer a
    gain = [np.concatenate([[0.0], np.cumsum(overlap[a:, a])]) for a in range(num_layers)]
    # best[a]: (overlap of the layers from a on with a Full, Full layers from a on)
    best = {a: (gain[a][num_layers - a], (a,)) for a in layers}
    for _ in range(num_full - 1):
        best = {
            a: max(
                (
                    (gain[a][b - a] + best[b][0], (a, *best[b][1]))
                    for b in layers
                    if b > a and b in best
                ),
                key=lambda found: found[0],
            )
            for a in layers
            if any(b > a and b in best for b in layers)
        }
    full = set(best[layers[0]][1])
    return "".join("F" if layer in full else "S" for layer in range(num_layers))
