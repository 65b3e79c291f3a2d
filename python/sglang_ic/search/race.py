"""The best of several patterns, evaluated as little as possible.

*Lazy*: a pattern is looked at only while the bound that it brings could still win. *Racing*: a
pattern is evaluated on a few sequences, then on more, and is dropped once its paired difference
to the leader is above zero with confidence. The winner has always been evaluated on every
sequence, and no pattern whose bound is below the winner's increase was left unseen. Without racing
the winner is exactly the best one, provided that no bound is too high.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from sglang_ic.search.estimate import Estimate, estimate
from sglang_ic.search.objective import LossTable

# One-sided confidence with which a pattern is dropped against the leader of the moment. A race has
# several rounds and several patterns, each of them a chance to drop the best: hence more than 95%.
CONFIDENCE = 0.98
FIRST_SEQUENCES = 4  # in the first round; fewer say next to nothing about their own spread
GROWTH = 1.5  # of the rounds: large ones look on after the matter is settled


@dataclass(frozen=True)
class Contestant:
    """A pattern that may win."""

    key: Hashable  # of equals, the first in order wins
    pattern: str
    bound: float = -math.inf  # the increase is believed to be at least this, nats per token
    # (base, pattern) of an earlier look, whose increases these are believed to be like.
    earlier: tuple[str, str] | None = None


@dataclass(frozen=True)
class Verdict:
    """How a race went."""

    winner: Hashable
    increases: dict[Hashable, Estimate]  # of those that were evaluated, in that order


def rounds(num_sequences: int, racing: bool) -> list[int]:
    """Sequences seen after each round: 4, 6, 9, ... and all; without racing all at once."""
    if not racing:
        return [num_sequences]
    sizes = []
    size = FIRST_SEQUENCES
    while size < num_sequences:
        sizes.append(size)
        size = int(size * GROWTH)
    return [*sizes, num_sequences]


def race(
    table: LossTable,
    base: str,
    contestants: Sequence[Contestant],
    racing: bool,
    look: Callable[[Hashable, Estimate], None] = lambda key, increase: None,
) -> Verdict:
    """Find the contestant with the smallest increase of the loss over `base`.

    Args:
        look: told of every evaluation: who, and the increase so far.
    """
    assert contestants, "a race without contestants"
    order = {one.key: place for place, one in enumerate(contestants)}
    sizes = rounds(table.num_sequences, racing)
    waiting = sorted(contestants, key=lambda one: (one.bound, order[one.key]), reverse=True)
    running: dict[Hashable, Contestant] = {}
    increases: dict[Hashable, Estimate] = {}

    def evaluate(one: Contestant, count: int) -> None:
        increase = table.increases(base, one.pattern, count)
        control = _earlier(table, one, count)
        increases[one.key] = estimate(increase, table.weights, control)
        look(one.key, increases[one.key])

    while True:
        leader = min(
            running.values(),
            key=lambda one: (increases[one.key].mean, order[one.key]),
            default=None,
        )
        # Equal bounds may hide an equal that comes first in order.
        if waiting and (leader is None or waiting[-1].bound <= increases[leader.key].mean):
            entering = waiting.pop()
            known = table.count(entering.pattern)
            evaluate(entering, max([size for size in sizes if size <= known], default=sizes[0]))
            running[entering.key] = entering
            continue
        for one in list(running.values()):
            if one is not leader and _hopeless(table, base, one, leader):
                del running[one.key]
        behind = [one for one in running.values() if increases[one.key].num_sequences < sizes[-1]]
        if not behind:
            return Verdict(leader.key, increases)
        if len(running) == 1:
            # About to be confirmed: what its passes hand on will be of use to the next race.
            table.objective.rebase(leader.pattern)
        # The one that has been seen least, and of these the most promising.
        one = min(behind, key=lambda x: (increases[x.key].num_sequences, increases[x.key].mean))
        evaluate(one, min(size for size in sizes if size > increases[one.key].num_sequences))


def _hopeless(table: LossTable, base: str, one: Contestant, leader: Contestant) -> bool:
    """Whether `one` is worse than the leader, on the sequences that both have been seen on."""
    seen, seen_leader = table.count(one.pattern), table.count(leader.pattern)
    count = min(seen, seen_leader)
    if count == table.num_sequences:
        return False  # facts need no verdict, and the end of the race compares them
    gap = table.first(one.pattern, count) - table.first(leader.pattern, count)
    # What is known of more sequences: the leader itself if it is ahead, or its earlier look.
    mine, other = _earlier(table, one, count), _earlier(table, leader, count)
    if seen_leader > count:
        other = table.increases(base, leader.pattern, seen_leader)
    control = None
    if mine is not None and other is not None:
        both = min(len(mine), len(other))
        control = mine[:both] - other[:both]
    return estimate(gap, table.weights, control).lower(CONFIDENCE) > 0


def _earlier(table: LossTable, one: Contestant, count: int) -> np.ndarray | None:
    """[m] increases of an earlier look, if they are known of more than `count` sequences."""
    if one.earlier is None or table.count(one.earlier[1]) <= count:
        return None
    return table.increases(*one.earlier, table.count(one.earlier[1]))
