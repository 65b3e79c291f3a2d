"""What is measured, as frozen values: arms, stages, parts. plan_file.py reads them.

A *part* is what one command runs; all arms of its rows are measured there. A *stage* is one kind of
measurement at one context. An *arm* is a layer pattern on the fork or on upstream's own SGLang,
with the variables and flags that are its own, if it has any.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from sglang_ic.pattern import LayerPattern

ENGINES = ("stock", "fork")


class PlanError(ValueError):
    """A plan that cannot be run; the message is one line for the user."""


@dataclass(frozen=True)
class Arm:
    name: str
    engine: str  # one of ENGINES
    pattern: LayerPattern
    environment: tuple[tuple[str, str], ...] = ()  # of its server, beside the plan's
    flags: tuple[str, ...] = ()

    @property
    def changes(self) -> str:
        """What is its own, as one would type it; empty for an arm that differs by pattern alone."""
        return shlex.join([*(f"{name}={value}" for name, value in self.environment), *self.flags])

    @property
    def server(self) -> str:
        """Arms of equal text can share a server whose roles are switched."""
        return f"{self.engine} {self.changes}".rstrip()


@dataclass(frozen=True)
class Stage:
    """Lengths in tokens; what a kind does not use is empty or 0."""

    kind: str
    context: int
    rounds: int  # visits of every arm
    batch_sizes: tuple[int, ...] = ()
    new_tokens: int = 0
    tail_tokens: int = 0  # of the context: the part that is prefilled anew under the profiler

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the rows that one visit of an arm fills."""
        if self.kind == "decode":
            return tuple(f"decode {self.context} x{size}" for size in self.batch_sizes)
        if self.kind == "profile":
            return (f"profile prefill {self.context}", f"profile decode {self.context}")
        return (f"prefill {self.context}",)


@dataclass(frozen=True)
class Part:
    name: str
    arms: tuple[Arm, ...]  # the first is what the others are compared with
    stages: tuple[Stage, ...]
    switch: bool  # arms that differ by pattern alone share a server, its roles set in between
    together: bool  # all servers are up at once, and all arms take turns
    flags: tuple[str, ...]  # of every server

    @property
    def groups(self) -> tuple[tuple[Arm, ...], ...]:
        """Arms by the server that they share, in the order of the plan."""
        if not self.switch:
            return tuple((arm,) for arm in self.arms)
        servers = dict.fromkeys(arm.server for arm in self.arms)
        return tuple(tuple(a for a in self.arms if a.server == server) for server in servers)


@dataclass(frozen=True)
class Plan:
    title: str
    model: Path
    weights: str
    num_layers: int
    vocab_size: int
    parts: tuple[Part, ...]

    def part(self, name: str) -> Part:
        """Raises: PlanError: no such part."""
        found = {part.name: part for part in self.parts}
        if name not in found:
            raise PlanError(f"the plan has no part {name!r}; accepted: {', '.join(found)}")
        return found[name]
