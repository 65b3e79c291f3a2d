"""Which patterns are measured against which: a pure plan.

The reference comes first. Control arms have as many Full layers as a given pattern, so that what
they lack is only the choice of layers: one with the Full layers evenly spread, or N random ones.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sglang_ic.config import describe_layers
from sglang_ic.pattern import LayerPattern, PatternError
from sglang_ic.pattern_text import parse_count, show


@dataclass(frozen=True)
class Arm:
    """One thing to measure: a pattern in an engine, or a server."""

    name: str
    kind: Literal["reference", "pattern", "uniform", "random"]
    pattern: LayerPattern | None  # None: a server that does not tell
    seed: int | None = None  # of a random pattern
    url: str | None = None


@dataclass(frozen=True)
class Controls:
    """Control arms that were asked for."""

    uniform: bool = False
    num_random: int = 0

    @classmethod
    def parse(cls, given: Iterable[str]) -> "Controls":
        """From `uniform` and `random:N`.

        Raises:
            PatternError: anything else.
        """
        uniform, num_random = False, 0
        for text in given:
            if text == "uniform":
                uniform = True
            elif text.startswith("random:"):
                num_random = parse_count(text.removeprefix("random:"), "--control count", text)
            else:
                raise PatternError(f"--control {show(text)} is unknown: use uniform or random:N")
        return cls(uniform, num_random)


def uniform_pattern(num_layers: int, num_full: int) -> LayerPattern:
    """`num_full` Full layers spread evenly, layer 0 among them."""
    full = {layer * num_layers // num_full for layer in range(num_full)}
    return _pattern(full, num_layers, f"uniform@{num_full}")


def random_pattern(num_layers: int, num_full: int, seed: int) -> LayerPattern:
    """Layer 0 and `num_full - 1` others that are drawn without replacement."""
    generator = np.random.default_rng([seed, num_layers, num_full])
    others = generator.choice(num_layers - 1, num_full - 1, replace=False) + 1
    return _pattern({0, *others.tolist()}, num_layers, f"random@{num_full}/seed:{seed}")


def _pattern(full: set[int], num_layers: int, source: str) -> LayerPattern:
    text = "".join("F" if layer in full else "S" for layer in range(num_layers))
    return LayerPattern(text, source)


def plan(
    reference: str, patterns: Sequence[str], controls: Controls, num_layers: int
) -> tuple[tuple[Arm, ...], tuple[str, ...]]:
    """Arms of one engine, the reference first, and notes for the user.

    Args:
        reference, patterns: anything that --index-cache-pattern takes.
    Raises:
        PatternError: a pattern that is none, or that is given twice.
    """
    arms = [Arm(reference, "reference", LayerPattern.parse(reference, num_layers))]
    given: dict[str, Arm] = {}
    for text in patterns:
        # The reference measured twice shows the engine's own noise.
        name = f"{text} again" if text == reference else text
        arm = Arm(name, "pattern", LayerPattern.parse(text, num_layers))
        if arm.pattern.text in given:
            raise PatternError(
                f"--pattern {show(text)} and --pattern {show(given[arm.pattern.text].name)} are "
                "the same pattern: keep one"
            )
        given[arm.pattern.text] = arm
    arms += given.values()
    notes, taken = [], {arm.pattern.text: arm.name for arm in arms}
    # A control has Full layers only: beside candidate layers it would lack more than the choice.
    chosen = [arm.pattern for arm in given.values() if not arm.pattern.num_candidate]
    counts = dict.fromkeys(pattern.num_full for pattern in chosen)
    for num_full in (count for count in counts if count < num_layers):
        if controls.uniform:
            pattern = uniform_pattern(num_layers, num_full)
            if pattern.text in taken:
                notes.append(f"{pattern.source} is the same as {taken[pattern.text]}")
            else:
                arms.append(Arm(pattern.source, "uniform", pattern))
                taken[pattern.text] = pattern.source
        drawn = _random_arms(num_layers, num_full, controls.num_random, taken)
        if len(drawn) < controls.num_random:
            notes.append(
                f"only {len(drawn)} of {controls.num_random} random patterns: no more with "
                f"{num_full} Full of {num_layers} layers differ from the others"
            )
        arms += drawn
    return tuple(arms), tuple(notes)


def _random_arms(num_layers: int, num_full: int, count: int, taken: dict[str, str]) -> list[Arm]:
    """Up to `count` random patterns that differ from all in `taken`, which learns them."""
    arms: list[Arm] = []
    # There may be fewer patterns than were asked for: with 1 Full layer there is a single one.
    for seed in range(100 * count):
        pattern = random_pattern(num_layers, num_full, seed)
        if pattern.text not in taken and len(arms) < count:
            arms.append(Arm(pattern.source, "random", pattern, seed=seed))
            taken[pattern.text] = pattern.source
    return arms


def own_pattern(indexer_layers: frozenset[int] | None, num_layers: int) -> LayerPattern | None:
    """The pattern of a checkpoint that ships trained sharing; None when any layer can be Full.

    Args:
        indexer_layers: layers with indexer weights; None when unknown.
    Raises:
        PatternError: layer 0 has none.
    """
    if indexer_layers is None or indexer_layers >= set(range(num_layers)):
        return None
    if 0 not in indexer_layers:
        raise PatternError(
            f"the checkpoint has indexer weights on {describe_layers(indexer_layers)} only: "
            "layer 0 must have them, this model cannot run"
        )
    return _pattern(set(indexer_layers), num_layers, "the checkpoint's own")
