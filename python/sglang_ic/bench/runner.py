"""What one block takes: a warm server, numbers for relative loads, the load itself, its record."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from sglang_ic.bench import calibrate, endpoint, load, schedule, traffic, upstream
from sglang_ic.bench.endpoint import EndpointError
from sglang_ic.bench.fleet import Fleet, SessionError
from sglang_ic.bench.plan import Plan, Result
from sglang_ic.bench.record import Measured, Request
from sglang_ic.bench.scenario import Point

WARM_UP_SEED, CALIBRATION_SEED = 500_000_000, 600_000_000  # no block's own


class Runner:
    """Sends to servers that are up, and puts what came of it into the result."""

    def __init__(self, plan: Plan, fleet: Fleet, result: Result, bar: tqdm) -> None:
        self._plan, self._fleet, self._result, self._bar = plan, fleet, result, bar
        self._warm: set[tuple[str, int, str, int]] = set()  # arm, its start, traffic, requests

    def prepare(self) -> None:
        """What takes time and needs no server that is still loading."""
        upstream.serving()
        if self._tokenizer is not None:
            self._tokens()

    def warm_up(self, arm: str, point: Point) -> None:
        """Unmeasured requests, the same in every arm, once for each start of its server.

        Args:
            point: as the scenario has it: a relative one needs more.
        """
        for warm in calibrate.warm_ups(point):
            start = self._fleet.num_starts[arm]
            place = (arm, start, calibrate.key(point), warm.requests)
            if place in self._warm:
                continue
            self._say(f"{point.key} | {arm} | warming up, {warm.label}")
            rows = traffic.make_rows(warm, self._tokens(), self._plan.seed + WARM_UP_SEED)
            self._send(arm, warm, rows, 0, lambda request: None)
            self._warm.add(place)

    def resolved(self, arm: str, point: Point) -> Point:
        """The point with numbers only; the reference arm, which runs every load first, is asked."""
        points, calibrations = self._result.points, self._result.calibrations
        if not point.is_relative:
            points[point.key] = point
        if point.key not in points:
            assert arm == self._plan.reference, "the reference arm runs every load first"
            name = calibrate.key(point)
            if name not in calibrations:
                self._say(f"{point.key} | {arm} | calibrating")
                calibrations[name] = calibrate.calibrate(point, self._calibrating(arm))
            points[point.key] = calibrations[name].resolve(point)
        return points[point.key]

    def measure(self, block: schedule.Block, point: Point) -> None:
        """One block; it is in the result afterwards if one request ended, whatever is raised.

        Raises:
            EndpointError, ServerError: the arm's server was lost, or served nothing.
        """
        self._say(f"{point.key} | {block.arm} | round {block.round + 1}")
        url, seed = self._fleet.url(block.arm), block.seed(self._plan.seed)
        rows = traffic.make_rows(point, self._tokens(), seed)
        num_planned = sum(len(row.prompt) if point.is_chat else 1 for row in rows)
        before, usage = endpoint.indexer_counts(url), self._fleet.others_cpu_sec(block.arm)
        began = datetime.datetime.now(datetime.UTC)
        done: list[Request] = []
        fields: dict[str, Any] = {"indexer": None, "others_cpu_share": None}

        def keep(request: Request) -> None:
            done.append(request)
            self._bar.update(point.expected_tokens / num_planned)

        try:
            self._send(block.arm, point, rows, seed, keep)
            if usage is not None:
                took = (datetime.datetime.now(datetime.UTC) - began).total_seconds()
                fields["others_cpu_share"] = (self._fleet.others_cpu_sec(block.arm) - usage) / took
            self._fleet.check_alive(block.arm)
            after = endpoint.indexer_counts(url) if before is not None else None
            if after is not None:
                fields["indexer"] = (after[0] - before[0], after[1] - before[1])
        finally:  # an interrupted block is kept too
            if done:
                self._result.blocks.append(
                    Measured(
                        arm=block.arm,
                        point=point.key,
                        round=block.round,
                        seed=seed,
                        started_at=began.isoformat(timespec="seconds"),
                        requests=tuple(sorted(done, key=lambda one: (one.index, one.turn))),
                        num_planned=num_planned,
                        **fields,
                    )
                )
        if not any(request.ok for request in done):
            raise EndpointError(f"no request succeeded ({done[0].error if done else 'none ended'})")

    def _send(
        self, arm: str, point: Point, rows: list[Any], seed: int, keep: Callable[[Request], None]
    ) -> None:
        load.run_block(
            self._fleet.url(arm),
            self._fleet.identities[arm].model,
            rows,
            is_chat=point.is_chat,
            concurrency=point.concurrency,
            rate=point.rate,
            seed=seed,
            tokens=self._tokens(),
            on_request=keep,
        )

    def _calibrating(self, arm: str) -> calibrate.Send:
        def send(point: Point, count: int) -> list[Request]:
            seed, done = self._plan.seed + CALIBRATION_SEED, []
            rows = traffic.make_rows(point, self._tokens(), seed, count)
            self._send(arm, point, rows, seed, done.append)
            return done

        return send

    @property
    def _tokenizer(self) -> str | None:
        """Its path; None while the server that names it was not asked."""
        identity = self._fleet.identities.get(self._plan.reference)
        return self._plan.tokenizer or (identity and identity.tokenizer)

    def _tokens(self) -> traffic.TextTokens:
        """Raises: SessionError: this machine has no such tokenizer."""
        path = self._tokenizer
        if path is None:
            raise SessionError("the first arm's server names no tokenizer: give --tokenizer PATH")
        try:
            return traffic.text_tokens(path)
        except Exception as error:  # transformers raises nearly every kind
            whose = "" if self._plan.tokenizer else f" of arm {self._plan.reference!r}"
            said = next(iter(str(error).splitlines()), "")[:200]
            raise SessionError(
                f"tokenizer {path!r}{whose} cannot be loaded on this machine: give --tokenizer "
                f"PATH ({type(error).__name__}: {said})"
            ) from error

    def _say(self, text: str) -> None:
        self._bar.set_description(text)
