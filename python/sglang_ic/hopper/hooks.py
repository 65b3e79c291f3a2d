"""What runs in place of upstream's top-k in prefill (`DSAIndexerMetadata.topk_transform`).

Upstream selects with an older kernel where attention wants slots (all but flashmla_sparse with fp8
KV), and copies a row of the page table for every query where a chunk's scores do not fit in one
buffer. The replacements select positions in a request first, which needs no page table, and look up
slots for the selected ones alone. All they need besides the scores is computed once per pass: the
lengths, the window starts and the request of each row. Calls of any other kind go to upstream's
method, unchanged. Scores that are not written: ``fused_hooks``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from sglang_ic.hopper.deferred import DeferredScores


@dataclass(frozen=True)
class Rows:
    """The rows of one call, one entry per query token; views of what the pass computed once.

    Attributes:
        starts: [R] int32, first column of the row's window.
        lengths: [R] int32, keys in the window.
        requests: [R] int32, row of the page table.
    """

    starts: torch.Tensor
    lengths: torch.Tensor
    requests: torch.Tensor


def prefill_rows(metadata: Any, logits, topk, ks, ke_offset, batch_idx_list) -> Rows | None:
    """The rows, if this call is one that the replacements know; None for upstream's method.

    Args:
        metadata: upstream's DSAIndexerMetadata.
        logits: [R, C] float32 scores, or such deferred; columns are the keys of all requests, one
            after the other.
        ks: [R] int32, window starts; None in decode.
        ke_offset: [R] int32, window lengths; None if the call has all rows of the pass.
        batch_idx_list: [R] int32, request of each row; None if the call has all rows of the pass.
    """
    if ks is None or not selects_slots(metadata, topk):
        return None
    requests = metadata.attn_metadata.token_to_batch_idx
    rows = Rows(
        ks,
        metadata.get_seqlens_expanded() if ke_offset is None else ke_offset,
        requests if batch_idx_list is None else batch_idx_list,
    )
    for tensor in (rows.starts, rows.lengths, rows.requests):
        # A list of requests comes from prefill context parallelism: its rows are not these.
        if not isinstance(tensor, torch.Tensor) or tensor.shape != (len(logits),):
            return None
        if tensor.dtype != torch.int32 or not tensor.is_contiguous():
            return None
    if isinstance(logits, DeferredScores):
        return rows
    if logits.dtype != torch.float32 or logits.stride(1) != 1 or logits.stride(0) % 4:
        return None
    return rows


def selects_slots(metadata: Any, topk: int) -> bool:
    """Is this a pass whose selections the replacements know?"""
    from sglang.srt.environ import envs
    from sglang.srt.layers.attention.dsa.dsa_topk_backend import TopkTransformMethod

    return (
        metadata.topk_transform_method == TopkTransformMethod.PAGED
        and metadata.topk_backend.should_use_topk_v2()  # users can turn that kernel off
        and envs.SGLANG_DSA_FUSE_TOPK.get()
        and not metadata.force_unfused_topk
        and metadata.attn_metadata.page_table_1 is not None
        and metadata.attn_metadata.pooled_index_kpool == 1
        and 0 < topk <= 2048
    )


def topk_with_ragged_kernel(original, *args, **kwargs):
    """Select with upstream's newer kernel (v2), which it uses for fp8 KV, then look slots up.

    Equal scores at the last place are taken in any order, as by upstream's older kernel.
    """
    return in_prefill(_ragged_slots, original, *args, **kwargs)


def in_prefill(
    select_slots,
    original,
    metadata,
    logits,
    topk,
    ks=None,
    cu_seqlens_q=None,
    ke_offset=None,
    batch_idx_list=None,
    topk_indices_offset_override=None,
):
    """`select_slots` for the calls it knows, `original` for all others."""
    rows = prefill_rows(metadata, logits, topk, ks, ke_offset, batch_idx_list)
    if rows is not None:
        return select_slots(logits, topk, rows, metadata.attn_metadata.page_table_1)
    return original(
        metadata,
        logits,
        topk,
        ks=ks,
        cu_seqlens_q=cu_seqlens_q,
        ke_offset=ke_offset,
        batch_idx_list=batch_idx_list,
        topk_indices_offset_override=topk_indices_offset_override,
    )


def _ragged_slots(logits, topk, rows: Rows, page_table):
    from sglang.kernels.ops.attention.dsv4.topk import topk_transform_ragged_v2

    from sglang_ic.hopper.slots import to_slots_

    selected = logits.new_empty((len(logits), topk), dtype=torch.int32)
    # It adds an offset to every position; none keeps them relative to the window. It also writes
    # to up to three columns before a window, which belong to another request and are read no more.
    topk_transform_ragged_v2(
        logits,
        rows.lengths,
        out_offsets=_zeros(logits.device, len(logits)),
        out_indices=selected,
        row_starts=rows.starts,
    )
    return to_slots_(selected, page_table, rows.requests)


def _zeros(device: torch.device, length: int) -> torch.Tensor:
    """[length] int32 zeros that stay, so that no pass has to fill them."""
    return _zeros_of_power(device, 1 << max(length - 1, 0).bit_length())[:length]


@cache
def _zeros_of_power(device: torch.device, length: int) -> torch.Tensor:
    # Outside inference mode, so that every later pass may use it.
    with torch.inference_mode(False):
        return torch.zeros(length, dtype=torch.int32, device=device)
