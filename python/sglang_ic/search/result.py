"""What a search found, as one JSON-ready document: `pattern.json`.

`--index-cache-pattern pattern.json@4` reads `num_layers` and `patterns`; the rest says how good
each pattern is, and how that is known. Losses are nats per token over the calibration set; an
increase is over the start pattern, paired by sequence.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from sglang_ic.evaluate.stats import clustered_mean
from sglang_ic.search.greedy import Step
from sglang_ic.search.objective import LossTable
from sglang_ic.search.swap import Swap

SCHEMA_VERSION = 1


@dataclass
class Found:
    """What a search has found so far."""

    start: str
    steps: list[Step] = field(default_factory=list)
    swaps: list[Swap] = field(default_factory=list)
    controls: list[tuple[str, str]] = field(default_factory=list)  # (kind, F/S text), measured
    overlap: np.ndarray | None = None  # [layers, layers]

    @property
    def pattern(self) -> str:
        """The newest one."""
        if self.swaps:
            return self.swaps[-1].pattern
        return self.steps[-1].pattern if self.steps else self.start

    @property
    def patterns(self) -> list[str]:
        """By Full count, the start first; the last one after its swaps."""
        return [self.start, *(step.pattern for step in self.steps[:-1]), self.pattern][
            : len(self.steps) + 1
        ]


def document(found: Found, table: LossTable, facts: dict[str, Any], complete: bool) -> dict:
    """The document as of now.

    Args:
        facts: settings, model, data, versions: what the search itself does not know.
        complete: whether all was done that was asked for.
    """
    controls = [_control(table, found.start, *control) for control in found.controls]
    by_count = {str(text.count("F")): text for text in found.patterns}
    losses = {count: _loss(table, text) for count, text in by_count.items()}
    increases = {count: _increase(table, found.start, text) for count, text in by_count.items()}
    return {
        "schema_version": SCHEMA_VERSION,
        "num_layers": len(found.start),
        "patterns": by_count,
        "loss": {count: mean for count, (mean, _) in losses.items()},
        "loss_stderr": {count: error for count, (_, error) in losses.items()},
        "increase": {count: mean for count, (mean, _) in increases.items()},
        "increase_stderr": {count: error for count, (_, error) in increases.items()},
        "order": [step.layer for step in found.steps],
        # Of the search, and with swaps and controls.
        "layer_token_forwards": found.steps[-1].layer_token_forwards if found.steps else 0,
        "layer_token_forwards_total": table.objective.layer_token_forwards,
        "complete": complete,
        **facts,
        "steps": [
            {
                "layer": step.layer,
                "pattern": step.pattern,
                "loss": step.loss,
                "layer_token_forwards": step.layer_token_forwards,
                "increases": {
                    str(layer): asdict(increase)
                    for layer, increase in sorted(step.increases.items())
                },
            }
            for step in found.steps
        ],
        "swaps": [asdict(swap) for swap in found.swaps],
        "controls": controls,
        "overlap": None if found.overlap is None else found.overlap.tolist(),
    }


def _loss(table: LossTable, text: str) -> tuple[float, float | None]:
    return clustered_mean(table.all(text), table.weights)


def _increase(table: LossTable, start: str, text: str) -> tuple[float, float | None]:
    return clustered_mean(table.all(text) - table.all(start), table.weights)


def _control(table: LossTable, start: str, kind: str, text: str) -> dict:
    increase, error = _increase(table, start, text)
    return {
        "kind": kind,
        "num_full": text.count("F"),
        "pattern": text,
        "loss": table.mean(text),
        "increase": increase,
        "increase_stderr": error,
    }


def control_counts(num_layers: int, counts: Sequence[int]) -> list[int]:
    """Full counts at which controls are measured: the goal, and 1/2, 1/4, 1/8 where they occur."""
    usual = {-(-num_layers // divisor) for divisor in (2, 4, 8)}
    return sorted({count for count in counts if count in usual} | {min(counts)}, reverse=True)
