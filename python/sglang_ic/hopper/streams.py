"""Streams of a decode step, inside its CUDA graph, by the role of a layer.

Upstream's decode runs a layer's `q_b_proj` on a second stream under its indexer, and joins
(`forward_absorb_prepare` in upstream's forward_mla.py). Then follow, alone on the GPU and without
need of the selection, the absorbed product with `w_kc` and RoPE. Here a Full layer's indexer has a
stream to itself, which is joined when all that is done, before attention.

A Shared layer has nothing that `q_b_proj` could run beside, and still pays for the second stream:
two dependencies across streams in every layer. It can do without.

The kernels are the same, and so is every number; only their order in time is another one.
"""

from __future__ import annotations

from functools import cache

import torch


class _Beside:
    """Whether an indexer that is called now may run beside its caller, and whether one does."""

    may = False
    runs = False


def prepare_beside_the_indexer(original, attention, positions, hidden_states, batch, *args, **kw):
    """`forward_absorb_prepare` with a Full layer's indexer on a stream of its own, joined last."""
    _Beside.may, _Beside.runs = bool(_runs_indexer(attention, batch)), False
    try:
        prepared = original(attention, positions, hidden_states, batch, *args, **kw)
    finally:
        _Beside.may = False
    if _Beside.runs:
        main = torch.cuda.current_stream()
        main.wait_stream(_side(main.device))
    return prepared


def prepare_by_role(original, attention, positions, hidden_states, batch, *args, **kw):
    """The same, and a Shared layer without upstream's second stream."""
    if _runs_indexer(attention, batch) is not False:
        return prepare_beside_the_indexer(
            original, attention, positions, hidden_states, batch, *args, **kw
        )
    second, attention.alt_stream = attention.alt_stream, None
    try:
        return original(attention, positions, hidden_states, batch, *args, **kw)
    finally:
        attention.alt_stream = second


def indexer_beside(original, indexer, *args, **kwargs):
    """The indexer's forward pass, on a stream of its own if its caller waits for that one."""
    if not _Beside.may:
        return original(indexer, *args, **kwargs)
    _Beside.may, _Beside.runs = False, True
    main = torch.cuda.current_stream()
    side = _side(main.device)
    side.wait_stream(main)
    # What it allocates belongs to this stream, and is used on the other one until that one is
    # waited for here, in the next Full layer: nothing is given away early.
    with torch.cuda.stream(side):
        return original(indexer, *args, **kwargs)


def _runs_indexer(attention, batch) -> bool | None:
    """The layer's role in this decode graph; None for whatever is left to upstream."""
    from sglang.srt.layers.attention.dsa.dsa_prefill_cuda_graph import (
        _is_in_piecewise_or_breakable_cuda_graph,
    )
    from sglang.srt.model_executor.runner import get_is_capture_mode

    state = getattr(batch, "index_cache", None)
    if state is None or attention.is_nextn or not get_is_capture_mode():
        return None
    # A breakable graph follows forks of its own stream only.
    if not batch.forward_mode.is_decode() or _is_in_piecewise_or_breakable_cuda_graph():
        return None
    return state.pattern.runs_indexer(attention.layer_id)


@cache
def _side(device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
