"""Jobs of `_driver.py` on the patched SGLang: one engine, one or more patterns."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from _parity_jobs import break_hunk, build
from _runner import TopkRecorder


def run_patterns(
    model: str,
    requests: Sequence[tuple[str, Sequence[int]]],
    num_decode: int,
    build_all: bool = True,
    override: dict | None = None,
    broken: Sequence[str] | None = None,
) -> list[dict]:
    """What the engine selects and predicts for each request, under the request's own pattern.

    Args:
        requests: (pattern, ids); the last `num_decode` ids come by decode, the others in one
            prefill. `T` is the number of ids.
        build_all: one engine with indexers everywhere takes all patterns, one after the other;
            otherwise it is built for the only request's pattern, its Shared layers without one.
        override: further keys for --json-model-override-args.
        broken: arguments of `break_hunk`, for a test of the tests.
    Returns:
        A dict per request: `logprobs` [T, vocab] float32; `topk` [layers, T, index_topk] int32
        request-local positions, -1 where unused; `experts`: layer -> [T, experts per token].
    """
    # Upstream compiles its router on first use: seconds per process, and not what is tested here.
    torch.compiler.set_stance("force_eager")
    if broken:
        break_hunk(*broken)
    keys = {
        "index_cache_pattern": requests[0][0],
        "index_cache_build": "all" if build_all else "pattern",
    }
    runner = build(model, {**keys, **(override or {})})
    return [_run(runner, pattern, ids, num_decode, build_all) for pattern, ids in requests]


def _run(runner, pattern: str, ids: Sequence[int], num_decode: int, build_all: bool) -> dict:
    roles = runner.model_runner.model.model.index_cache_roles
    if build_all:
        runner.clear()
        roles.set_pattern(roles.parse(pattern))
    start = len(ids) - num_decode
    num_layers = roles.pattern.num_layers
    with runner.record_topk() as records, record_experts() as experts:
        rows = [runner.prefill(ids[:start])]
        rows += [runner.decode(token) for token in ids[start:]]
    return {
        "logprobs": torch.cat(rows).log_softmax(-1),
        "topk": torch.stack([records.layer(layer) for layer in range(num_layers)]),
        "experts": {layer: experts.layer(layer) for layer in experts.passes[0]},
    }


@contextmanager
def record_experts() -> Iterator[TopkRecorder]:
    """Record each MoE layer's experts, as `CpuRunner.record_topk` does its selections."""
    from sglang.srt.state_capturer.routed_experts import set_global_experts_capturer

    recorder = TopkRecorder()
    set_global_experts_capturer(recorder)
    try:
        yield recorder
    finally:
        set_global_experts_capturer(None)
