"""Numbers for loads that are given by what the reference arm does: "80%" of it, "2x" as long.

Rates and limits in milliseconds fit one machine and one model. A share of the reference arm's
capacity and a multiple of its latency with one request at a time fit all of them, the bundled model
on a CPU included. All loads of one scenario with the same traffic share one calibration.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sglang_ic.bench.endpoint import EndpointError
from sglang_ic.bench.metrics import distribution
from sglang_ic.bench.record import Request
from sglang_ic.bench.scenario import Point

# Requests at a time that stand for "as much as it takes".
CAPACITY_CONCURRENCY = 8
NUM_ALONE = 4

# (point, requests) -> what came of them; a closed loop of the point's concurrency
Send = Callable[[Point, int], Sequence[Request]]


@dataclass(frozen=True)
class Calibration:
    """What the reference arm does with one traffic."""

    ttft_ms: float  # medians, one request at a time
    itl_ms: float
    capacity_per_sec: float  # requests (sessions) in closed loop

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def resolve(self, point: Point) -> Point:
        """The point with numbers for every relative value."""
        alone = {"ttft_ms": self.ttft_ms, "itl_ms": self.itl_ms}
        return point.resolved(capacity_per_sec=self.capacity_per_sec, alone_ms=alone)


def key(point: Point) -> str:
    """The name of a point's calibration."""
    lengths = " + ".join(str(traffic.prompt_tokens) for traffic in point.traffic)
    return f"{point.scenario}: prompts of {lengths} tokens"


def warm_ups(point: Point) -> list[Point]:
    """Closed loops that every arm runs before `point` is measured, one request for each place.

    The reference also calibrates, with many at a time. So that it is not the only one to have met
    such batches before, every arm is warmed with as many where a point needs that.
    """
    places = [] if point.concurrency is None else [point.concurrency]
    if point.concurrency is None or point.is_relative:
        places.append(CAPACITY_CONCURRENCY)
    return [
        dataclasses.replace(
            point, label=f"{num} at a time", requests=num, concurrency=num, rate=None, objective=()
        )
        for num in places
    ]


def calibrate(point: Point, send: Send) -> Calibration:
    """Measure with one request at a time, then with many.

    Raises:
        EndpointError: no request succeeded, so that there is nothing to go by.
    """
    closed = dataclasses.replace(point, rate=None, concurrency=1)
    alone = send(closed, min(point.requests, NUM_ALONE))
    many = dataclasses.replace(closed, concurrency=CAPACITY_CONCURRENCY)
    busy = send(many, max(point.requests, CAPACITY_CONCURRENCY))
    alone, busy = ([one for one in sent if one.ok] for sent in (alone, busy))
    itl = distribution([one.mean_itl_sec * 1e3 for one in alone if one.itl_sec])
    if not alone or not busy or itl is None:
        raise EndpointError(f"{key(point)}: no calibrating request gave more than one token")
    span = max(one.end_sec for one in busy) - min(one.start_sec for one in busy)
    return Calibration(
        ttft_ms=distribution([one.ttft_sec * 1e3 for one in alone])["p50"],
        itl_ms=itl["p50"],
        capacity_per_sec=len({one.index for one in busy}) / span,
    )
