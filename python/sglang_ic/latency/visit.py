"""One visit of an arm: warm or fill its server, measure, and say what was found.

Prefill is timed on an empty cache. Decode and profiles start from prompts in the prefix cache,
so that a repeat costs a second and not a long prefill; a switched server computes them once, with
all layers Full, and then every layer holds the index-K that any arm may read. Times do not depend
on what the cached numbers are; answers do, so tokens are compared for prefill alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sglang_ic.latency import trace
from sglang_ic.latency.client import RequestError, generate, prompt
from sglang_ic.latency.plan import Plan, Stage
from sglang_ic.latency.schedule import Visit
from sglang_ic.latency.target import Target, trace_file
from sglang_ic.latency.timing import inter_token

PAGE_TOKENS = 64  # a cached prompt is found up to a whole page, and never its last token
NUM_LONGEST = 20


def measure(plan: Plan, visit: Visit, target: Target) -> Iterator[dict[str, Any]]:
    """What each row of the visit gave: fields of a journal line, `event` among them.

    Raises:
        RequestError, TimingError, TraceError: a row could not be measured.
    """
    stage = visit.stage
    prepare(plan, stage, target)
    target.set_arm(visit.arm)
    measured = {"prefill": _prefill, "decode": _decode, "profile": _profile}[stage.kind]
    for row in measured(plan, visit, target):
        yield {**row, "memory": target.facts()["latency"]["memory"]}


def prepare(plan: Plan, stage: Stage, target: Target) -> None:
    """Whatever the first visit of a stage needs on this server, and is not measured."""
    if target.filled == stage or stage in target.warmed:
        return
    if stage.kind == "prefill":
        # A whole prompt of this length, under the cheapest arm.
        target.set_arm(min(target.group, key=lambda arm: arm.pattern.num_full))
        target.flush()
        generate(target.url, [prompt("warm", stage.context, plan.vocab_size)], 1)
        target.warmed.add(stage)
        return
    target.set_full()
    target.flush()
    for ids in prefixes(plan, stage, fitting(stage, target.pool_tokens)):
        generate(target.url, [ids], 1)
    target.filled = stage


def fitting(stage: Stage, pool_tokens: int) -> list[int]:
    """Batch sizes of a stage that the KV pool holds; a profile has one request."""
    each = stage.context + stage.new_tokens + PAGE_TOKENS
    return [size for size in stage.batch_sizes or (1,) if size * each <= pool_tokens]


def prefixes(plan: Plan, stage: Stage, sizes: list[int]) -> list[list[int]]:
    """Prompts that a stage keeps in the cache, one for each request of the largest batch."""
    length = stage.context - stage.tail_tokens
    return [
        prompt(f"{stage.kind} {stage.context} {number}", length, plan.vocab_size)
        for number in range(max(sizes, default=0))
    ]


def _prefill(plan: Plan, visit: Visit, target: Target) -> Iterator[dict[str, Any]]:
    context = visit.stage.context
    target.flush()
    ids = prompt(f"prefill {context} {visit.round}", context, plan.vocab_size)
    (stream,) = generate(target.url, [ids], 1)
    if stream.cached_tokens:
        raise RequestError(f"{stream.cached_tokens} tokens came from a cache that was emptied")
    yield {
        "event": "value",
        "row": visit.stage.rows[0],
        "metric": "ttft_sec",
        "value": stream.ttft_sec,
        "last_ids": stream.last_ids,
    }


def _decode(plan: Plan, visit: Visit, target: Target) -> Iterator[dict[str, Any]]:
    stage = visit.stage
    sizes = fitting(stage, target.pool_tokens)
    prompts = prefixes(plan, stage, sizes)
    for size, row in zip(stage.batch_sizes, stage.rows, strict=True):
        if size not in sizes:
            yield {
                "event": "skipped",
                "row": row,
                "reason": f"the KV pool holds {target.pool_tokens} tokens, too few for the batch",
            }
            continue
        generate(target.url, prompts[:size], stage.new_tokens)  # a new graph's first replays
        streams = generate(target.url, prompts[:size], stage.new_tokens)
        for stream in streams:
            _check_cached(stream.cached_tokens, stage.context)
        milliseconds, steps = inter_token(streams)
        yield {
            "event": "value",
            "row": row,
            "metric": "itl_ms",
            "value": milliseconds,
            "num_steps": steps,
        }


def _profile(plan: Plan, visit: Visit, target: Target) -> Iterator[dict[str, Any]]:
    """First the last chunks of a long prompt, then tokens behind it."""
    stage = visit.stage
    (prefix,) = prefixes(plan, stage, [1])
    # Another tail for each visit: an arm must not find in the cache what another one computed.
    tail = prompt(f"tail {visit.arm.name} {visit.round}", stage.tail_tokens, plan.vocab_size)
    for row, new_tokens, cached in zip(
        stage.rows, (1, stage.new_tokens), (len(prefix), stage.context), strict=True
    ):
        with tempfile.TemporaryDirectory() as folder:
            before = target.counters()
            with target.profiled(Path(folder) / "trace"):
                (stream,) = generate(target.url, [prefix + tail], new_tokens)
                target.wait_until_idle()
            after = target.counters()
            found = trace.read(trace_file(Path(folder)))
        _check_cached(stream.cached_tokens, cached)
        run = None if before is None or after is None else after[0] - before[0]
        skipped = None if before is None or after is None else after[1] - before[1]
        yield {
            "event": "profile",
            "row": row,
            "category_ms": found.category_ms(),
            "num_mqa_logits": found.launches("mqa_logits"),
            "indexer_run": run,
            "indexer_skipped": skipped,
            "launches_per_run": trace.launches_per_run(found, run) if run else None,
            "num_new_tokens": new_tokens,
            "num_prefilled_tokens": stage.context - stream.cached_tokens,
            "longest": found.longest(NUM_LONGEST),
        }


def _check_cached(cached: int, wanted: int) -> None:
    if cached < wanted - 2 * PAGE_TOKENS:
        raise RequestError(f"only {cached} of {wanted} prompt tokens were still in the cache")
