"""One server under measurement: its arms, its cache, its counters, its profiler."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sglang_ic.bench.endpoint import indexer_counts
from sglang_ic.bench.servers import LaunchedServer
from sglang_ic.latency import client
from sglang_ic.latency.client import RequestError
from sglang_ic.latency.in_scheduler import ARM_KEY
from sglang_ic.latency.plan import Arm, Stage

IDLE_TIMEOUT_SEC = 20  # the scheduler ends a pass after the client has its last token
TRACE_TIMEOUT_SEC = 120


class Target:
    """A running server and the arms that it serves."""

    def __init__(self, server: LaunchedServer, group: tuple[Arm, ...], *, switch: bool) -> None:
        self.server, self.group, self.switch = server, group, switch
        self.url = server.url
        self.pool_tokens = 0  # of the KV pool, once the server has told
        self.warmed: set[Stage] = set()
        self.filled: Stage | None = None  # whose prompts are in the cache
        self._set: int | None = None

    def set_arm(self, arm: Arm) -> None:
        """Run the arm's pattern from now on.

        Raises:
            RequestError: the server runs another pattern afterwards.
        """
        self._set_number(self.group.index(arm))
        if (runs := self.facts()["latency"]["pattern"]) != str(arm.pattern):
            raise RequestError(f"arm {arm.name!r} runs {runs}, not {arm.pattern}")

    def set_full(self) -> None:
        """All layers Full, for a cache that every arm of a switched server can read."""
        if self.switch:
            self._set_number(len(self.group))

    def _set_number(self, number: int) -> None:
        if not self.switch or number == self._set:
            return
        self._retry("/set_internal_state", {"server_args": {ARM_KEY: number}}, lambda a: all(a))
        self._set = number

    def flush(self) -> None:
        """Empty the prefix cache."""
        self._retry("/flush_cache", {}, lambda answer: True)
        self.filled = None

    def wait_until_idle(self) -> None:
        """Return when no pass is under way: the overlapped scheduler may run one more."""
        before = None
        while (now := self.counters()) != before:
            before = now
            time.sleep(0.3)
        time.sleep(0.3)  # upstream's server counts nothing

    def _retry(self, path: str, body: dict[str, Any], accepted: Any) -> None:
        deadline = time.monotonic() + IDLE_TIMEOUT_SEC
        while True:
            try:
                if accepted(client.call(self.url, path, body)):
                    return
                problem = RequestError(f"{path} refuses {body}; see {self.server.log}")
            except RequestError as error:
                problem = error
            self.server.check_alive()
            if time.monotonic() > deadline:
                raise problem
            time.sleep(0.2)

    def facts(self) -> dict[str, Any]:
        """What /server_info tells, with the scheduler's own state at the top level."""
        info = client.call(self.url, "/server_info")
        return {**info, **info["internal_states"][0]}

    def counters(self) -> tuple[int, int] | None:
        """Indexer layer-passes (run, skipped); None on upstream's own server."""
        return indexer_counts(self.url)

    @contextlib.contextmanager
    def profiled(self, folder: Path) -> Iterator[None]:
        """Record the GPU's kernels of everything inside, as a trace file in `folder`."""
        # Upstream's own output names profiles by the second: a folder for each keeps them apart.
        folder.mkdir(parents=True)
        body = {"output_dir": str(folder), "activities": ["GPU"], "with_stack": False}
        client.call(self.url, "/start_profile", body)
        try:
            yield
        finally:
            client.call(self.url, "/stop_profile", {})


def trace_file(folder: Path) -> Path:
    """The trace that a profile left, once it is whole.

    Raises:
        RequestError: there is none in time.
    """
    deadline = time.monotonic() + TRACE_TIMEOUT_SEC
    size = -1
    while time.monotonic() < deadline:
        found = sorted(folder.rglob("*.json*"))
        if found:
            if found[0].stat().st_size == size:
                return found[0]
            size = found[0].stat().st_size
        time.sleep(0.5)
    raise RequestError(f"the profiler left no trace in {folder}")
