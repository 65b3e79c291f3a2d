"""What a search will cost, before it is run.

Work is counted in layer-token-forwards: one layer run on one token. The exhaustive method's count
is known. The fast method's depends on what it finds; it lies between two bounds.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sglang_ic.search.constraints import Constraints, convert
from sglang_ic.search.race import FIRST_SEQUENCES


@dataclass(frozen=True)
class Cost:
    """Layer-token-forwards."""

    at_least: int
    at_most: int
    num_evaluations: int  # pairs of a step and a candidate: what the exhaustive method evaluates


def exhaustive_cost(constraints: Constraints, num_tokens: int) -> Cost:
    """Every candidate of every step, all layers, and the start."""
    evaluations = sum(len(found) for found in _candidates_by_step(constraints))
    total = (evaluations + 1) * constraints.start.num_layers * num_tokens
    return Cost(total, total, evaluations)


def fast_cost(
    constraints: Constraints, lengths: list[int], entry_below: Callable[[int], int]
) -> Cost:
    """Between one candidate a step, and all of them.

    Args:
        lengths: [Q] tokens of each sequence.
        entry_below: layer that a pass begins with which differs at the given layer.
    """
    num_layers, num_tokens = constraints.start.num_layers, sum(lengths)
    first_round = sum(lengths[:FIRST_SEQUENCES])
    # The highest layers are the cheapest to look at: at best they win, at worst they go first.
    steps = _candidates_by_step(constraints)
    work = [[num_layers - entry_below(layer) for layer in found] for found in steps]
    base = num_layers * num_tokens
    # In the first step nothing is known of any candidate: each runs in the first round.
    at_least = base + first_round * sum(work[0][:-1]) + num_tokens * sum(w[-1] for w in work)
    # At worst all candidates run, and once a step the states above the last conversion anew.
    at_most = base + num_tokens * (sum(map(sum, work)) + num_layers * (len(work) - 1))
    return Cost(at_least, at_most, sum(map(len, steps)))


def _candidates_by_step(constraints: Constraints) -> list[tuple[int, ...]]:
    """Candidates of each step if the highest one is converted each time."""
    text, steps = constraints.start.text, []
    for _ in range(constraints.num_steps):
        steps.append(constraints.candidates(text))
        text = convert(text, steps[-1][-1])
    return steps
