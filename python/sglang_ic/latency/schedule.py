"""The order of visits: which arm is measured when. Pure.

Arms take turns in every round, forward and backward (A B C, C B A), so a drift of the machine's
speed falls on all of them. Arms whose servers cannot be up at once take turns within their server.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sglang_ic.latency.plan import Arm, Part, Stage


@dataclass(frozen=True)
class Visit:
    """One arm, once, at one stage."""

    stage: Stage
    arm: Arm
    round: int
    group: int  # position in Part.groups: its server

    @property
    def keys(self) -> tuple[tuple[str, str, int], ...]:
        """(row, arm, round) of everything that the visit measures."""
        return tuple((row, self.arm.name, self.round) for row in self.stage.rows)


def visits(part: Part) -> list[Visit]:
    """All visits of a part, in order."""
    numbered = [(number, arm) for number, arms in enumerate(part.groups) for arm in arms]
    if part.together:
        return _turns(part, numbered)
    return [
        visit
        for number in range(len(part.groups))
        for visit in _turns(part, [one for one in numbered if one[0] == number])
    ]


def _turns(part: Part, arms: list[tuple[int, Arm]]) -> list[Visit]:
    return [
        Visit(stage, arm, number, group)
        for stage in part.stages
        for number in range(stage.rounds)
        for group, arm in (arms if number % 2 == 0 else arms[::-1])
    ]


def open_visits(part: Part, done: Iterable[tuple[str, str, int]]) -> list[Visit]:
    """Those of which something is still missing.

    Args:
        done: (row, arm, round) of what was measured before.
    """
    have = set(done)
    return [visit for visit in visits(part) if not have.issuperset(visit.keys)]
