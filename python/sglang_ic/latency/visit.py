"""One visit of an arm: warm or fill its server, measure, and say what was found.

Prefill is timed on an empty cache. Decode and profiles start from prompts in the prefix cache,
so that a repeat costs a second and not a long prefill; a switched server computes them once, with
all layers Full, and then every layer holds the index-K that any arm may read. Times do not depend
on what the cached numbers are; answers do, so tokens are compared for prefill alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sglang_ic.latency.client import RequestError, generate, prompt
from sglang_ic.latency.plan import Plan, Stage
from sglang_ic.latency.schedule import Visit
from sglang_ic.latency.target import Target
from sglang_ic.latency.timing import inter_token
from sglang_ic.latency.traced import PAGE_TOKENS, check_cached, profiled, traced


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
            check_cached(stream.cached_tokens, stage.context)
        milliseconds, steps = inter_token(streams)
        yield {
            "event": "value",
            "row": row,
            "metric": "itl_ms",
            "value": milliseconds,
            "num_steps": steps,
        }


def _profile(plan: Plan, visit: Visit, target: Target) -> Iterator[dict[str, Any]]:
    """First the last chunks of a long prompt, then tokens behind it.

    The end of a cached prompt is computed again before its first new token; a request that stops
    there is profiled too, and subtracted, so that the tokens' kernels are left.
    """
    stage = visit.stage
    (prefix,) = prefixes(plan, stage, [1])
    # Another tail for each visit: an arm must not find in the cache what another one computed.
    tail = prompt(f"tail {visit.arm.name} {visit.round}", stage.tail_tokens, plan.vocab_size)
    prefill, decode = stage.rows
    first = traced(target, prefix + tail, 1, cached=len(prefix))
    yield {"row": prefill, **profiled(first), "num_prefilled_tokens": first.prefilled}
    again = traced(target, prefix + tail, 1, cached=stage.context)
    whole = traced(target, prefix + tail, 1 + stage.new_tokens, cached=stage.context)
    yield {"row": decode, **profiled(whole.without(again)), "num_new_tokens": stage.new_tokens}
