"""A whole measurement: warm the arms, run the blocks in order, keep what was measured.

Only one arm works at a time: blocks never overlap. An arm whose server ends or answers nothing is
given up and named; the others go on, unless it was the reference.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from sglang_ic.bench import calibrate, endpoint, load, schedule, traffic, upstream
from sglang_ic.bench.arms import Arm
from sglang_ic.bench.calibrate import Calibration
from sglang_ic.bench.endpoint import EndpointError, Identity
from sglang_ic.bench.fleet import Fleet, SessionError
from sglang_ic.bench.record import Measured, Request
from sglang_ic.bench.scenario import Point
from sglang_ic.bench.servers import LaunchedServer, ServerError

WARM_UP_SEED, CALIBRATION_SEED = 500_000_000, 600_000_000  # no block's own


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
    def expected_tokens(self) -> float:
        """Tokens of all blocks, the progress bar's unit."""
        once = sum(point.expected_tokens for point in self.points)
        return once * len(self.arms) * self.rounds


@dataclass
class Result:
    """What was measured; complete unless `interrupted`."""

    blocks: list[Measured] = field(default_factory=list)
    identities: dict[str, Identity] = field(default_factory=dict)
    servers: dict[str, LaunchedServer] = field(default_factory=dict)  # the last of each arm
    retired: dict[str, str] = field(default_factory=dict)  # arm -> why it was given up
    left_out: dict[str, str] = field(default_factory=dict)  # point -> why
    points: dict[str, Point] = field(default_factory=dict)  # with numbers for relative values
    calibrations: dict[str, Calibration] = field(default_factory=dict)
    interrupted: bool = False


class Session:
    """Runs a plan once; `run` always stops what it started."""

    def __init__(self, plan: Plan, bar: tqdm) -> None:
        self.plan, self._bar = plan, bar
        self._fleet = Fleet(plan.arms, plan.launch, together=plan.together)
        self._warm: set[tuple[str, int, str]] = set()  # arm, its start, point
        self.result = Result(identities=self._fleet.identities, servers=self._fleet.servers)

    def run(self) -> Result:
        """Measure until done or interrupted.

        Raises:
            SessionError, EndpointError, ServerError: nothing could be measured at all.
        """
        names = [arm.name for arm in self.plan.arms]
        points = self.plan.points
        try:
            self._bar.set_description("starting servers")
            self._fleet.start(meanwhile=upstream.serving)
            self._bar.unpause()  # or the estimate would take the start for work
            for block in schedule.blocks(
                names, len(points), self.plan.rounds, together=self.plan.together
            ):
                if names[0] in self.result.retired:
                    break  # nothing left to compare with
                self._run(block, points[block.point])
        except KeyboardInterrupt:
            self.result.interrupted = True
        finally:
            self._bar.set_description("stopping servers")
            self._fleet.stop()
        self._bar.set_description("done")
        return self.result

    def _run(self, block: schedule.Block, point: Point) -> None:
        """One block, or a note why not."""
        before = self._bar.n
        if block.arm not in self.result.retired and point.key not in self.result.left_out:
            try:
                self._fleet.ensure_up(block.arm)
                if self._fits(point):
                    self._measure(block, self._resolved(block.arm, point))
            except (EndpointError, ServerError) as error:
                self._fail(block.arm, error)
        self._bar.update(before + point.expected_tokens - self._bar.n)

    def _measure(self, block: schedule.Block, point: Point) -> None:
        self._warm_up(block.arm, point)
        self._say(f"{point.key} | {block.arm} | round {block.round + 1}")
        url, seed = self._fleet.url(block.arm), block.seed(self.plan.seed)
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
            if before is not None:
                run, skipped = endpoint.indexer_counts(url)
                fields["indexer"] = (run - before[0], skipped - before[1])
        finally:  # an interrupted block is kept too
            self.result.blocks.append(
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
            raise EndpointError(f"no request succeeded ({done[0].error})")

    def _send(
        self,
        arm: str,
        point: Point,
        rows: list[Any],
        seed: int,
        keep: Callable[[Request], None],
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

    def _warm_up(self, arm: str, point: Point) -> None:
        """Unmeasured requests of this load, once for each start of a server."""
        place = (arm, self._fleet.num_starts[arm], point.key)
        if place in self._warm:
            return
        self._say(f"{point.key} | {arm} | warming up")
        warm = dataclasses.replace(point, concurrency=point.concurrency or 2, rate=None)
        count = min(point.requests, warm.concurrency)
        rows = traffic.make_rows(point, self._tokens(), self.plan.seed + WARM_UP_SEED, count)
        self._send(arm, warm, rows, 0, lambda request: None)
        self._warm.add(place)

    def _resolved(self, arm: str, point: Point) -> Point:
        """The point with numbers only; the reference arm, which runs every load first, is asked."""
        if not point.is_relative:
            self.result.points[point.key] = point
        if point.key not in self.result.points:
            assert arm == self.plan.arms[0].name, "the reference arm runs every load first"
            name = calibrate.key(point)
            if name not in self.result.calibrations:
                self._warm_up(arm, point)
                self._say(f"{point.key} | {arm} | calibrating")
                self.result.calibrations[name] = calibrate.calibrate(point, self._calibrating(arm))
            self.result.points[point.key] = self.result.calibrations[name].resolve(point)
        return self.result.points[point.key]

    def _calibrating(self, arm: str) -> calibrate.Send:
        def send(point: Point, count: int) -> list[Request]:
            seed, done = self.plan.seed + CALIBRATION_SEED, []
            rows = traffic.make_rows(point, self._tokens(), seed, count)
            self._send(arm, point, rows, seed, done.append)
            return done

        return send

    def _tokens(self) -> traffic.TextTokens:
        path = self.plan.tokenizer or self._fleet.identities[self.plan.arms[0].name].tokenizer
        if path is None:
            raise SessionError("the first arm's server names no tokenizer: give --tokenizer PATH")
        return traffic.text_tokens(path)

    def _fits(self, point: Point) -> bool:
        limits = [one.longest_tokens for one in self._fleet.identities.values()]
        limit = min((one for one in limits if one), default=None)
        if limit is None or point.max_context_tokens <= limit:
            return True
        why = f"needs {point.max_context_tokens} tokens, a server takes {limit}: lower --scale"
        self.result.left_out[point.key] = why
        tqdm.write(f"left out {point.key}: {why}", self._bar.fp)
        return False

    def _fail(self, arm: str, error: Exception) -> None:
        """Give the arm up, saying how its server ended if it did; nothing measured yet: raise."""
        try:
            self._fleet.check_alive(arm)
        except ServerError as ended:
            error = ended
        if not self.result.blocks:
            raise error
        self.result.retired[arm] = str(error)
        tqdm.write(f"error: arm {arm!r} is given up: {error}", self._bar.fp)
        if isinstance(error, ServerError):
            tqdm.write(error.tail, self._bar.fp)

    def _say(self, text: str) -> None:
        self._bar.set_description(text)
