"""Set a new pattern in a running engine that was built with indexers everywhere.

The layer search and the tests use it (``Engine.collective_rpc``); a server does not offer it.
"""

from __future__ import annotations

from typing import Any

from sglang_ic.server import probe
from sglang_ic.server.observe import check_candidate_path, roles_of


def set_index_cache_pattern(scheduler: Any, pattern: str) -> None:
    """Scheduler method: use ``pattern`` from the next forward pass on, with an empty cache.

    Raises:
        ValueError: requests are running, the model's pattern is fixed, or a bad pattern.
    """
    roles = roles_of(scheduler.tp_worker.model_runner)
    if roles is None:
        raise ValueError("this model has no DSA indexer that sglang_ic looks after")
    if not scheduler.is_fully_idle():
        raise ValueError("requests are running; wait for them before changing the pattern")
    parsed = roles.parse(pattern)
    check_candidate_path(scheduler.tp_worker.model_runner.device, parsed)
    # Every cached prefix was computed under the old pattern.
    if not scheduler.flush_cache():
        raise ValueError("the prefix cache could not be flushed; the pattern was not changed")
    roles.set_pattern(parsed)


def install() -> None:
    """Give ``Scheduler`` the methods, so that ``collective_rpc`` finds them by name."""
    from sglang.srt.managers.scheduler import Scheduler

    from sglang_ic.search import worker

    Scheduler.set_index_cache_pattern = set_index_cache_pattern
    Scheduler.start_index_cache_probe = probe.start_index_cache_probe
    Scheduler.stop_index_cache_probe = probe.stop_index_cache_probe
    worker.install(Scheduler)
