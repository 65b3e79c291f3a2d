"""A whole measurement: start the arms, run the blocks in order, keep what was measured.

Only one arm works at a time: blocks never overlap. An arm with which anything goes wrong is given
up, and the reason is told on the terminal and in the report; the others go on, unless it was the
reference. Before the first request has ended there is nothing to keep: then the error is raised.
"""

from __future__ import annotations

import traceback

from tqdm import tqdm

from sglang_ic.bench import schedule
from sglang_ic.bench.endpoint import EndpointError
from sglang_ic.bench.fleet import Fleet, SessionError
from sglang_ic.bench.interrupts import uninterrupted
from sglang_ic.bench.plan import Plan, Result
from sglang_ic.bench.runner import Runner
from sglang_ic.bench.scenario import Point
from sglang_ic.bench.servers import ServerError

__all__ = ["EXPECTED", "Plan", "Result", "Session"]

EXPECTED = (SessionError, EndpointError, ServerError)  # their message says it all


class Session:
    """Runs a plan once; `run` always stops what it started."""

    def __init__(self, plan: Plan, bar: tqdm) -> None:
        self.plan, self._bar = plan, bar
        self._fleet = Fleet(plan.arms, plan.launch, together=plan.together)
        self.result = Result(identities=self._fleet.identities, servers=self._fleet.servers)
        self._runner = Runner(plan, self._fleet, self.result, bar)

    def run(self) -> Result:
        """Measure until done or interrupted.

        Raises:
            SessionError, EndpointError, ServerError: nothing could be measured at all. Any other
                exception then is a mistake of ours.
        """
        names = [arm.name for arm in self.plan.arms]
        points = self.plan.points
        try:
            self._bar.set_description("starting servers")
            self._fleet.start(meanwhile=self._runner.prepare)
            self._bar.unpause()  # or the estimate would take the start for work
            for block in schedule.blocks(
                names, len(points), self.plan.rounds, together=self.plan.together
            ):
                if self.plan.reference in self.result.retired:
                    break  # nothing left to compare with
                self._run(block, points[block.point])
        except KeyboardInterrupt:
            self.result.interrupted = True
        finally:
            with uninterrupted():
                self._bar.set_description("stopping servers")
                for arm, error in self._fleet.stop().items():
                    self._retire(arm, error)
        self._bar.set_description("done")
        return self.result

    def _run(self, block: schedule.Block, point: Point) -> None:
        """One block, or a note why not."""
        before = self._bar.n
        if block.arm not in self.result.retired and point.key not in self.result.left_out:
            try:
                self._fleet.ensure_up(block.arm)
                if self._fits(point):
                    self._runner.warm_up(block.arm, point)
                    self._runner.measure(block, self._runner.resolved(block.arm, point))
            except Exception as error:  # no arm's trouble is worth the others' hours
                self._fail(block.arm, error)
        self._bar.update(before + point.expected_tokens - self._bar.n)

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
            ended.__cause__, error = error, ended
        if not self.result.blocks:
            raise error
        self._retire(arm, error)

    def _retire(self, arm: str, error: Exception) -> None:
        is_told = isinstance(error, EXPECTED)
        reason = str(error) if is_told else f"{type(error).__name__}: {error}"
        self.result.retired[arm] = reason
        lines = [f"error: arm {arm!r} is given up: {reason}"]
        lines += [error.tail] if isinstance(error, ServerError) else []
        lines += [] if is_told else ["".join(traceback.format_exception(error)).rstrip()]
        tqdm.write("\n".join(lines), self._bar.fp)
