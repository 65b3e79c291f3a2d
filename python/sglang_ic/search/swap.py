"""Exchange a Full and a Shared layer while that lowers the loss: what greedy steps cannot undo."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sglang_ic.search.constraints import Constraints
from sglang_ic.search.estimate import Estimate
from sglang_ic.search.objective import LossTable
from sglang_ic.search.race import Contestant, race

STAY = (-1, -1)  # the contestant that changes nothing; it wins ties


@dataclass(frozen=True)
class Swap:
    """One exchange that lowered the loss."""

    to_shared: int
    to_full: int
    pattern: str  # after it
    loss: float  # per token on the whole calibration set, nats


def refine(
    table: LossTable,
    pattern: str,
    constraints: Constraints,
    max_swaps: int,
    racing: bool,
    look: Callable[[tuple[int, int], Estimate], None] = lambda swap, increase: None,
) -> Iterator[Swap]:
    """Yield the best exchange, then the best one after it, until none helps or `max_swaps`."""
    for _ in range(max_swaps):
        table.objective.rebase(pattern)
        contestants = [Contestant(STAY, pattern)]
        contestants += [
            Contestant(swap, exchange(pattern, *swap)) for swap in exchanges(pattern, constraints)
        ]
        winner = race(table, pattern, contestants, racing, look).winner
        if winner == STAY:
            return
        pattern = exchange(pattern, *winner)
        yield Swap(*winner, pattern, table.mean(pattern))


def exchanges(pattern: str, constraints: Constraints) -> list[tuple[int, int]]:
    """(layer to make Shared, layer to make Full) of every exchange that the constraints allow.

    A layer can be Full only if it was when the search began. With pipeline blocks both are in one
    block, which keeps its number of Full layers.
    """
    return [
        (to_shared, to_full)
        for block in constraints.blocks
        for to_shared in block
        if pattern[to_shared] == "F" and to_shared not in constraints.fixed
        for to_full in block
        if pattern[to_full] == "S" and constraints.start.is_full(to_full)
    ]


def exchange(pattern: str, to_shared: int, to_full: int) -> str:
    letters = list(pattern)
    letters[to_shared], letters[to_full] = "S", "F"
    return "".join(letters)
