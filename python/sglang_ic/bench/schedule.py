"""The order of blocks: every arm under every load in every round, forward and backward in turn.

Round 0 runs A B C, round 1 C B A, and so on, so a drift of the machine's speed (heat, a neighbour)
falls on all arms alike. How far an arm's blocks lie apart depends on the servers:

- all servers up: the arms take turns at each load, minutes apart;
- one server at a time: each start serves all loads of its round, since a start costs more than a
  load does.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """One arm under one load in one round."""

    arm: str
    point: int  # position in the list of points
    round: int

    def seed(self, base: int) -> int:
        """Seed of prompts and arrivals: the same in every arm, another in every round."""
        return base + 1000 * self.point + self.round


def blocks(arms: list[str], num_points: int, rounds: int, *, together: bool) -> list[Block]:
    """All blocks in the order in which they are run.

    Args:
        together: all servers stay up; otherwise an arm's loads of a round are consecutive.
    """

    def order(number: int) -> list[str]:
        return arms if number % 2 == 0 else arms[::-1]

    if together:
        return [
            Block(arm, point, number)
            for point in range(num_points)
            for number in range(rounds)
            for arm in order(number)
        ]
    return [
        Block(arm, point, number)
        for number in range(rounds)
        for arm in order(number)
        for point in range(num_points)
    ]
