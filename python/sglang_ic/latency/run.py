"""Run one part of a plan: servers up, visits in order, every number into the journal at once."""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Callable, Hashable
from pathlib import Path

from sglang_ic.bench import document as bench_document
from sglang_ic.bench.interrupts import uninterrupted
from sglang_ic.bench.servers import free_port
from sglang_ic.latency import launch
from sglang_ic.latency.journal import Journal
from sglang_ic.latency.launch import QuickServer, Stock
from sglang_ic.latency.plan import Part, Plan, Stage
from sglang_ic.latency.schedule import Visit, open_visits
from sglang_ic.latency.target import Target
from sglang_ic.latency.visit import measure
from sglang_ic.server import arguments

# Of /server_info: what decides speed beside the pattern.
TOLD = (
    *("max_total_num_tokens", "dsa_prefill_backend", "dsa_decode_backend", "kv_cache_dtype"),
    *("page_size", "chunked_prefill_size", "moe_runner_backend", "memory_usage", "version"),
)


class Budget:
    """Time that a command may take: nothing is begun that would surely outlast it.

    What one more visit of a kind is expected to take is the shortest seen of that kind, and nothing
    if none was. A visit that turns out longer is ended by the alarm and measured by the next
    command; one that is refused wastes what was left of this one.
    """

    def __init__(self, limit_sec: float | None) -> None:
        self.limit_sec = limit_sec
        self._begin = time.monotonic()
        self._shortest: dict[Hashable, float] = {}

    def has_room(self, kind: Hashable) -> bool:
        if self.limit_sec is None:
            return True
        return time.monotonic() - self._begin + self._shortest.get(kind, 0.0) < self.limit_sec

    def spent(self, kind: Hashable, seconds: float) -> None:
        self._shortest[kind] = min(self._shortest.get(kind, seconds), seconds)


class Run:
    """Servers of one command; `stop` ends them, at any time."""

    def __init__(self, plan: Plan, part: Part, journal: Journal, stock: Stock, command: str):
        self.plan, self.part, self.journal, self.stock = plan, part, journal, stock
        self.on_cpu = arguments.wants_cpu(list(part.flags))
        self.id = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.command = command
        self._targets: dict[int, Target] = {}
        self._ports: set[int] = set()
        if any(arm.engine == "stock" for arm in part.arms):
            stock.check()

    def measure(self, budget: Budget, say: Callable[[str], None]) -> int:
        """All visits that are open; the number of those left when the time is up."""
        done = self.journal.done(self.part.name)
        waiting = open_visits(self.part, done)
        if not waiting:
            return 0
        self._note_run()
        known: set[tuple[int, Stage]] = set()
        for number, visit in enumerate(waiting):
            kind = self._kind(visit, known)
            known.add((visit.group, visit.stage))
            if not budget.has_room(kind):
                return len(waiting) - number
            begin = time.monotonic()
            target = self._up(visit.group, say)
            where = dict(run=self.id, part=self.part.name, arm=visit.arm.name, round=visit.round)
            try:
                for row in measure(self.plan, visit, target):
                    if (row["row"], visit.arm.name, visit.round) in done:
                        continue  # of a visit that was ended in the middle
                    event = row.pop("event")
                    self.journal.add(event, **where, **row)
                    say(f"[{number + 1}/{len(waiting)}] {_told(visit, row)}")
            finally:
                target.server.check_alive()
            budget.spent(kind, time.monotonic() - begin)
        return 0

    def _kind(self, visit: Visit, known: set[tuple[int, Stage]]) -> tuple[str, Stage]:
        """What a visit has to do, for the budget: its stage, and what comes before.

        The first start is a kind of its own: it compiles for minutes what later ones find.
        """
        if visit.group not in self._targets:
            return "start" if known else "first start", visit.stage
        return "again" if (visit.group, visit.stage) in known else "warm or fill", visit.stage

    def stop(self) -> None:
        with uninterrupted():
            for number in list(self._targets):
                self._targets.pop(number).server.stop()

    def _up(self, number: int, say: Callable[[str], None]) -> Target:
        """The server of a group; starts it, after ending the others unless all stay up."""
        if number not in self._targets:
            if not self.part.together:
                self.stop()
            group = self.part.groups[number]
            shared = self.part.switch and not group[0].changes
            name = group[0].engine if shared else group[0].name
            log = self.journal.path.with_suffix("") / f"{self.part.name}-{name.replace(' ', '-')}"
            words = launch.command(
                *(self.plan, self.part, group, self.stock, free_port(self._ports)),
                on_cpu=self.on_cpu,
            )
            variables = launch.environment(self.part, group, self.stock, on_cpu=self.on_cpu)
            say(f"starting {name} ...")
            with uninterrupted():
                server = QuickServer(name, words, variables, log.with_suffix(".log"))
                self._targets[number] = Target(server, group, switch=self.part.switch)
            server.wait_until_ready()
            self._note_server(self._targets[number])
            say(f"{name} is up after {server.start_sec:.0f} s")
        return self._targets[number]

    def _note_run(self) -> None:
        self.journal.add(
            "run",
            run=self.id,
            part=self.part.name,
            title=self.plan.title,
            command=bench_document.shown(self.command),
            hardware=bench_document.hardware(),
            python=sys.version.split()[0],
            weights=self.plan.weights,
            model=bench_document.shown(str(self.plan.model)),
            num_layers=self.plan.num_layers,
            on_cpu=self.on_cpu,
            switch=self.part.switch,
            together=self.part.together,
            rows=[row for stage in self.part.stages for row in stage.rows],
            arms={
                arm.name: {
                    "engine": arm.engine,
                    "pattern": str(arm.pattern),
                    "changes": arm.changes,
                }
                for arm in self.part.arms
            },
        )

    def _note_server(self, target: Target) -> None:
        facts = target.facts()
        interpreter, *words = target.server.command
        target.pool_tokens = facts["max_total_num_tokens"]
        self.journal.add(
            "server",
            run=self.id,
            part=self.part.name,
            name=target.server.name,
            engine=target.group[0].engine,
            arms=[arm.name for arm in target.group],
            command=[Path(interpreter).name, *map(bench_document.shown, words)],
            start_sec=target.server.start_sec,
            latency=facts["latency"],
            info={key: facts.get(key) for key in TOLD},
        )


def _told(visit: Visit, row: dict) -> str:
    found = row.get("reason") or "profiled"
    if "value" in row:
        found = f"{row['value']:.4g} {row['metric'].rpartition('_')[2]}"
    return f"{row['row']}, {visit.arm.name}, round {visit.round + 1}: {found}"
