"""What a session is given and what it gives back: a plan, and a result that grows block by block.

A result is worth a report as soon as it holds one request: whatever ends a session later, what was
measured until then is kept, and the reason is told with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sglang_ic.bench.arms import Arm
from sglang_ic.bench.calibrate import Calibration
from sglang_ic.bench.endpoint import Identity
from sglang_ic.bench.record import Measured
from sglang_ic.bench.scenario import Point
from sglang_ic.bench.servers import LaunchedServer


@dataclass(frozen=True)
class Plan:
    """Everything that decides a measurement, validated."""

    arms: tuple[Arm, ...]  # the first is the reference
    points: tuple[Point, ...]
    rounds: int
    seed: int
    together: bool
    tokenizer: str | None
    launch: Callable[[Arm], LaunchedServer]

    @property
    def reference(self) -> str:
        return self.arms[0].name

    @property
    def expected_tokens(self) -> float:
        """Tokens of all blocks, the progress bar's unit."""
        once = sum(point.expected_tokens for point in self.points)
        return once * len(self.arms) * self.rounds


@dataclass
class Result:
    """What was measured; complete unless `interrupted` or an arm was retired."""

    blocks: list[Measured] = field(default_factory=list)  # each with at least one request
    identities: dict[str, Identity] = field(default_factory=dict)
    servers: dict[str, LaunchedServer] = field(default_factory=dict)  # the last of each arm
    retired: dict[str, str] = field(default_factory=dict)  # arm -> why it was given up
    left_out: dict[str, str] = field(default_factory=dict)  # point -> why
    points: dict[str, Point] = field(default_factory=dict)  # with numbers for relative values
    calibrations: dict[str, Calibration] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def is_clean(self) -> bool:
        """Whether every arm went through and no request failed."""
        errors = any(request.error for block in self.blocks for request in block.requests)
        return not self.retired and not errors
