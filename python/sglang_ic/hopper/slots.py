"""Positions in a request become slots of the KV pool, one lookup per selected index.

Upstream's fused top-k wants a page-table row per query row, so where the scores of a chunk do not
fit in one buffer it copies the request's row for every query: as many bytes as the scores have.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def _slots_kernel(
    positions,  # [R, K] int32, in and out; -1 pads
    position_stride,
    page_table,  # [B, L] int32
    table_stride,
    requests,  # [R] int32
    K: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    lane = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    table = page_table + tl.load(requests + row).to(tl.int64) * table_stride
    at = positions + row * position_stride + lane
    position = tl.load(at, mask=lane < K, other=-1)
    slot = tl.load(table + position, mask=position >= 0, other=-1)
    tl.store(at, slot, mask=lane < K)


def to_slots_(
    positions: torch.Tensor, page_table: torch.Tensor, requests: torch.Tensor
) -> torch.Tensor:
    """Replace positions by slots, in place.

    Args:
        positions: [R, K] int32, -1 pads.
        page_table: [B, L] int32, slot of each position of each request (page size 1).
        requests: [R] int32, row of the page table.
    Returns:
        `positions`.
    """
    num_rows, topk = positions.shape
    assert len(requests) == num_rows and page_table.stride(1) == positions.stride(1) == 1
    if num_rows:
        block = min(1024, triton.next_power_of_2(topk))
        _slots_kernel[(num_rows, triton.cdiv(topk, block))](
            positions,
            positions.stride(0),
            page_table,
            page_table.stride(0),
            requests,
            K=topk,
            BLOCK=block,
        )
    return positions
