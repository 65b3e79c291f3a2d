"""One conversion after the other: the paper's search, and a fast one that aims at its answer.

From the start pattern, each step converts the Full layer that raises the loss least by turning
Shared. *Exhaustive* evaluates every candidate on every sequence. *Fast* remembers what each
conversion cost when it was last looked at, and takes that for a lower bound: the fewer Full layers
are left, the farther away are the selections that Shared ones reuse, so a conversion hardly gets
cheaper. It looks again only where that bound could win, and races those that it looks at. The bound
does not hold for the Full layers next to a conversion: the one below serves more layers now, and
turning it Shared as well may hand them a better selection. Those are always looked at again.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sglang_ic.search.constraints import Constraints, convert
from sglang_ic.search.estimate import Estimate
from sglang_ic.search.objective import LossTable
from sglang_ic.search.race import Contestant, race

# One-sided confidence of the bound taken from a conversion that was seen on some sequences only.
# A bound that is too low costs one more look; one that is too high may cost the right answer.
BOUND_CONFIDENCE = 0.9


@dataclass(frozen=True)
class Method:
    """How much of the work may be skipped."""

    lazy: bool
    racing: bool


EXHAUSTIVE = Method(lazy=False, racing=False)
FAST = Method(lazy=True, racing=True)


@dataclass(frozen=True)
class Step:
    """One conversion."""

    layer: int
    pattern: str  # after it
    loss: float  # per token on the whole calibration set, nats
    increases: dict[int, Estimate]  # by layer, of the candidates that were evaluated
    layer_token_forwards: int  # work since the search began


def neighbours(pattern: str, layer: int) -> tuple[int, ...]:
    """The nearest Full layers below and above one."""
    full = [x for x, letter in enumerate(pattern) if letter == "F" and x != layer]
    below = [x for x in full if x < layer]
    above = [x for x in full if x > layer]
    return (*below[-1:], *above[:1])


def search(
    table: LossTable,
    constraints: Constraints,
    method: Method,
    look: Callable[[int, Estimate], None] = lambda layer, increase: None,
) -> Iterator[Step]:
    """Convert layers until the goal is reached.

    Args:
        look: told of every evaluation of a candidate.
    """
    pattern = constraints.start.text
    table.objective.rebase(pattern)
    table.all(pattern)
    bounds: dict[int, float] = {}
    looks: dict[int, tuple[str, str]] = {}
    for _ in range(constraints.num_steps):
        candidates = [
            Contestant(
                layer, convert(pattern, layer), bounds.get(layer, -math.inf), looks.get(layer)
            )
            for layer in constraints.candidates(pattern)
        ]
        verdict = race(table, pattern, candidates, method.racing, look)
        if method.lazy:
            for layer, increase in verdict.increases.items():
                bounds[layer] = increase.lower(BOUND_CONFIDENCE)
                # The one that is known of most sequences, of equals the newest.
                known = table.count(looks[layer][1]) if layer in looks else 0
                if increase.num_sequences >= known:
                    looks[layer] = (pattern, convert(pattern, layer))
            for layer in neighbours(pattern, verdict.winner):
                bounds.pop(layer, None)
                looks.pop(layer, None)
        pattern = convert(pattern, verdict.winner)
        table.objective.rebase(pattern)
        spent = table.objective.layer_token_forwards
        yield Step(verdict.winner, pattern, table.mean(pattern), verdict.increases, spent)
