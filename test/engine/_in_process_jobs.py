"""Jobs on the patched SGLang with a real model: what a pass does, and what it refuses.

Each runs in a process of its own and returns facts; `test_in_process.py` judges them.
"""

import types

import torch
from _parity_jobs import build, counted_indexers, prompt
from _passes import LayerByLayer, caught_batch, idle_batch, outside_the_runner, run_batch

LENGTH = 544


def refusal(step) -> str:
    """`TypeName: message` of what a step raises; "nothing" when it raises nothing."""
    try:
        step()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def refused_start(model: str, override: dict) -> str:
    return refusal(lambda: build(model, override))


def passes_and_counts(model: str, override: dict) -> dict:
    """Which indexers really run, beside everything that reports it."""
    from prometheus_client import REGISTRY

    from sglang_ic.runtime.metrics import IndexCacheMetrics
    from sglang_ic.server.observe import describe

    with counted_indexers() as counts:
        runner = build(model, override)
        model_runner = runner.model_runner
        roles = model_runner.model.model.index_cache_roles
        roles.metrics = IndexCacheMetrics({"model_name": "tiny"}, roles.pattern, "test")
        runner.prefill(prompt(LENGTH, seed=1), chunk_size=200)
        for token in (5, 6, 7):
            runner.decode(token)

    def metric(name: str) -> float | None:
        return REGISTRY.get_sample_value(f"sglang:index_cache_{name}", {"model_name": "tiny"})

    buffers = model_runner.token_to_kv_pool.index_k_with_scale_buffer
    layers = model_runner.model.model.layers
    return {
        "pattern": str(roles.pattern),
        "has_indexer": [layer.self_attn.indexer is not None for layer in layers],
        "indexer_runs": [counts[layer] for layer in range(len(layers))],
        "num_passes": 3 + 3,
        "totals": roles.totals,
        "metrics": [metric("indexer_run_total"), metric("indexer_skipped_total")],
        "gauges": [metric("full_layers"), metric("shared_layers")],
        "described": describe(model_runner),
        "index_k_bytes": [buffer.untyped_storage().nbytes() for buffer in buffers],
        "index_k_written": [bool(buffer.any()) for buffer in buffers],
    }


def idle_and_padded_rows(model: str, override: dict) -> dict:
    """A pass without rows, and one with rows that belong to no request.

    The model must have no experts: upstream's on CPU cannot take zero rows.
    """
    with counted_indexers() as counts:
        runner = build(model, override)
        roles = runner.model_runner.model.model.index_cache_roles
        idle = idle_batch(runner)
        idle_rows = run_batch(runner, idle).shape[0]
        idle_runs, idle_totals = sum(counts.values()), roles.totals

    ids = prompt(LENGTH, seed=1)
    plain = run_batch(runner, caught_batch(runner, lambda: runner.prefill(ids)))
    padded_batch = caught_batch(runner, lambda: runner.prefill(ids))
    pad = 6
    for name in ("input_ids", "positions", "out_cache_loc"):  # slot 0 is the padding slot
        padded = torch.nn.functional.pad(getattr(padded_batch, name), (0, pad))
        setattr(padded_batch, name, padded)
    with runner.record_topk() as records, outside_the_runner(runner.model_runner, padded_batch):
        padded = runner.model_runner.model.model(
            padded_batch.input_ids, padded_batch.positions, padded_batch
        )
    return {
        "idle_rows": idle_rows,
        "idle_indexer_runs": idle_runs,
        "idle_totals": idle_totals,
        "idle_state": idle.index_cache,
        "plain": plain,
        "padded": padded,
        "topk": [records.layer(layer) for layer in range(roles.pattern.num_layers)],
        "num_padded": pad,
    }


def _two_batches(runner):
    """Two requests prepared as two batches of one cache."""
    first = caught_batch(runner, lambda: runner.prefill(prompt(LENGTH, seed=1)))
    runner.clear = lambda: None  # keep the first one's slots
    second = caught_batch(runner, lambda: runner.prefill(prompt(LENGTH - 40, seed=2)))
    del runner.clear
    return first, second


def two_children(model: str, override: dict) -> dict:
    """Two passes of one model, one after the other and layer by layer in turns."""
    runner = build(model, override)
    model_runner = runner.model_runner
    batches = _two_batches(runner)
    pool = model_runner.token_to_kv_pool

    def children():
        for buffer in (*pool.kv_buffer, *pool.index_k_with_scale_buffer):
            buffer.zero_()
        return [LayerByLayer(model_runner, batch) for batch in batches]

    one_by_one = [child.run() for child in children()]
    left, right = children()
    states = [left.begin(), right.begin()]
    for layer in range(len(left.model.layers)):
        for child in (left, right) if layer % 2 else (right, left):
            child.layer(layer)
    in_turns = [left.end(), right.end()]

    left, right = children()
    right.forward_batch.index_cache = left.begin()
    nested = refusal(right.begin)  # refused at the end of what it does
    left.layer(0)
    return {
        "one_by_one": one_by_one,
        "in_turns": in_turns,
        "own_states": states[0] is not states[1],
        "nested": nested,
        "shared_state": refusal(lambda: right.layer(0)),
        "whole": run_batch(runner, caught_batch(runner, lambda: runner.prefill(prompt(LENGTH, 1)))),
    }


def faults(model: str, override: dict) -> dict:
    """One broken pass after another; `layers[2]` is Full and `layers[3]` Shared."""
    from sglang_ic import runtime

    runner = build(model, override)
    model_runner = runner.model_runner
    ids = prompt(LENGTH, seed=1)
    layers = model_runner.model.model.layers

    def batch():
        return caught_batch(runner, lambda: runner.prefill(ids))

    def run(forward_batch):
        return run_batch(runner, forward_batch)

    def shared_layer_first():
        child = LayerByLayer(model_runner, batch())
        child.begin()
        child.layer(1)

    good = run(batch())
    found = {"shared layer before any Full layer": refusal(shared_layer_first)}

    stale = LayerByLayer(model_runner, batch())
    state = stale.begin()
    for layer in range(len(layers)):
        stale.layer(layer)
    stale.end()
    leaked = batch()
    leaked.index_cache = state
    found["state of another pass"] = refusal(lambda: run(leaked))
    next_pass = LayerByLayer(model_runner, batch())
    next_pass.begin()
    next_pass.forward_batch.index_cache = state
    found["state of an ended pass"] = refusal(lambda: next_pass.layer(0))

    def fail(*args, **kwargs):
        raise ZeroDivisionError("layer 3 fails")

    def in_the_model(forward_batch):
        with outside_the_runner(model_runner, forward_batch):
            model_runner.model.model(
                forward_batch.input_ids, forward_batch.positions, forward_batch
            )

    layers[3].mlp.forward = fail
    failed, failed_in_runner = batch(), batch()
    found["pass failing midway"] = refusal(lambda: in_the_model(failed))
    found["pass failing midway in the runner"] = refusal(lambda: run(failed_in_runner))
    del layers[3].mlp.forward
    found["the same batch again"] = refusal(lambda: in_the_model(failed))
    after_failure = {
        # ModelRunner runs a copy of the batch, and the state died with the copy.
        "the same batch in the runner": run(failed_in_runner),
        "a new batch": run(batch()),
    }

    publish = runtime.publish
    runtime.publish = lambda attn, *rest: attn.layer_id == 2 or publish(attn, *rest)
    found["missed publish"] = refusal(lambda: run(batch()))
    runtime.publish = publish

    for layer, fault in ((4, "layer left out"), (7, "last layer left out")):
        layers[layer].forward = lambda positions, hidden, *args, **kwargs: (hidden, None)
        found[fault] = refusal(lambda: run(batch()))
        del layers[layer].forward

    return {"refusals": found, "good": good, "after_failure": after_failure, "last": run(batch())}


def short_prefill(model: str, override: dict, length: int, num_decode: int) -> dict:
    """A prefill that attends densely, as GPUs do up to index_topk tokens, then decode steps."""
    from sglang_ic.cpu import backend as cpu_backend
    from sglang_ic.cpu import hooks

    ids, tokens = prompt(length, seed=1), prompt(num_decode, seed=2)
    with counted_indexers() as counts:
        runner = build(model, override)
        roles = runner.model_runner.model.model.index_cache_roles

        def run() -> dict:
            counts.clear()
            before = roles.totals
            prefill = runner.prefill(ids)
            return {
                "indexer_runs": [counts[layer] for layer in range(roles.pattern.num_layers)],
                "counted": tuple(a - b for a, b in zip(roles.totals, before, strict=True)),
                "prefill": prefill,
                "decode": torch.cat([runner.decode(token) for token in tokens]),
            }

        sparse = run()
        for buffer in runner.model_runner.token_to_kv_pool.index_k_with_scale_buffer:
            buffer.zero_()
        taken = []
        absorbed = hooks._dsa_takes_mla
        hooks._dsa_takes_mla = types.MethodType(_dense_prefill, (absorbed, taken))
        attend = cpu_backend.CpuDsaBackend.forward_extend
        cpu_backend.CpuDsaBackend.forward_extend = _dense_or(attend)
        dense = run()
    return {"sparse": sparse, "dense": dense, "dense_layers": taken, "pattern": str(roles.pattern)}


def _dense_prefill(absorbed_and_taken, handler, attn, forward_batch):
    from sglang.srt.models.deepseek_common.attention_forward_methods.forward_methods import (
        AttnForwardMethod,
    )

    absorbed, taken = absorbed_and_taken
    if not forward_batch.forward_mode.is_extend():
        return absorbed(handler, attn, forward_batch)
    taken.append(attn.layer_id)
    return AttnForwardMethod.MHA


def _dense_or(attend):
    def forward_extend(self, q, k, v, layer, forward_batch, *args, topk_indices=None, **kwargs):
        if topk_indices is not None:
            return attend(
                self, q, k, v, layer, forward_batch, *args, topk_indices=topk_indices, **kwargs
            )
        heads = layer.tp_q_head_num
        q, k, v = (one.view(one.shape[0], heads, -1).transpose(0, 1) for one in (q, k, v))
        out = torch.nn.functional.scaled_dot_product_attention(
            q[None], k[None], v[None], is_causal=True, scale=layer.scaling
        )
        return out[0].transpose(0, 1).reshape(out.shape[2], -1)

    return forward_extend


def candidate_layers(model: str, pattern: str, num_pages: int, length: int) -> dict:
    """One prompt under all Full and under a pattern with candidate layers, then one token each."""
    import os

    from sglang_ic.candidates.switch import CANDIDATE_PAGES
    from sglang_ic.cpu import indexer

    os.environ[CANDIDATE_PAGES] = str(num_pages)
    calls = []
    original = indexer.select_among_candidates
    indexer.select_among_candidates = lambda *args: (calls.append(len(args[0])), original(*args))
    runner = build(model, {"index_cache_build": "all"})
    roles = runner.model_runner.model.model.index_cache_roles
    ids, found = prompt(length, seed=1), {}
    for name in ("full", pattern):
        roles.set_pattern(roles.parse(name))
        totals = roles.totals
        with runner.record_topk() as records:
            prefill = runner.prefill(ids, chunk_size=512)
        topk = [records.layer(layer) for layer in range(roles.pattern.num_layers)]
        in_prefill = len(calls)
        logits = runner.decode(5)
        found[name] = {
            "prefill": prefill,
            "decode": logits,
            "topk": topk,
            "calls": in_prefill,
            "calls_in_decode": len(calls) - in_prefill,
            "layer_passes": [b - a for a, b in zip(totals, roles.totals, strict=True)],
        }
        calls.clear()
    return found
