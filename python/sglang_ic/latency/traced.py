"""One request under the torch profiler: kernels, and the indexer's counters before and after."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang_ic.latency import trace
from sglang_ic.latency.client import RequestError, generate
from sglang_ic.latency.target import Target, trace_file

PAGE_TOKENS = 64  # a cached prompt is found up to a whole page, and never its last token
NUM_LONGEST = 20


@dataclass(frozen=True)
class Traced:
    """Kernels of one request, and what the counters of /index_cache say of it; None on stock."""

    kernels: trace.Kernels
    run: int | None
    skipped: int | None
    prefilled: int  # prompt tokens that were not cached

    def without(self, other: Traced) -> Traced:
        """What this request did and `other` did not; `other` is how this one began."""
        return Traced(
            self.kernels.without(other.kernels),
            None if self.run is None else self.run - other.run,
            None if self.skipped is None else self.skipped - other.skipped,
            self.prefilled - other.prefilled,
        )


def traced(target: Target, ids: list[int], new_tokens: int, *, cached: int) -> Traced:
    """Send a prompt under the profiler.

    Args:
        cached: prompt tokens that must come from the prefix cache, but for its last pages.
    Raises:
        RequestError, TraceError: it was not cached, or no kernel was seen.
    """
    with tempfile.TemporaryDirectory() as folder:
        before = target.counters()
        with target.profiled(Path(folder) / "trace"):
            (stream,) = generate(target.url, [ids], new_tokens)
            target.wait_until_idle()
        after = target.counters()
        found = trace.read(trace_file(Path(folder)))
    check_cached(stream.cached_tokens, cached)
    known = before is not None and after is not None
    run, skipped = (after[i] - before[i] if known else None for i in (0, 1))
    return Traced(found, run, skipped, len(ids) - stream.cached_tokens)


def profiled(found: Traced) -> dict[str, Any]:
    """The fields of a journal line."""
    return {
        "event": "profile",
        "category_ms": found.kernels.category_ms(),
        "alone_ms": found.kernels.alone_ms(),
        "busy_ms": found.kernels.busy_us / 1e3,
        "num_mqa_logits": found.kernels.launches("mqa_logits"),
        "indexer_run": found.run,
        "indexer_skipped": found.skipped,
        "launches_per_run": trace.launches_per_run(found.kernels, found.run),
        "longest": found.kernels.longest(NUM_LONGEST),
    }


def check_cached(cached: int, wanted: int) -> None:
    if cached < wanted - 2 * PAGE_TOKENS:
        raise RequestError(f"only {cached} of {wanted} prompt tokens were still in the cache")
