"""Exact top-k of long rows on the GPU: how much is collected, how many rows at once, which kernels.

See ``collecting`` for the method and the rule of ties, ``reference`` for the same in plain torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import triton

from sglang_ic.hopper.choosing import choose_kernel
from sglang_ic.hopper.collecting import collect_kernel

# What is collected lies here between the two kernels; more rows are taken in blocks.
SCRATCH_BYTES = 160 << 20
_SEGMENT = 8  # float32 in a 32-byte sector, the least that is read at once


@dataclass(frozen=True)
class Sizes:
    """Sizes that follow from `topk`, all powers of two.

    Attributes:
        lanes: lists that scores are kept in.
        levels: scores that a list holds. A window within `lanes * levels` is kept whole. For a topk
            of 2,048, a list gets 12 on average, and more than 32 once in millions of rows if scores
            have no pattern of this period.
        samples: scores that are drawn for the bound.
    """

    topk: int
    levels: int = 32

    @property
    def lanes(self) -> int:
        return max(triton.next_power_of_2(self.topk) // 8, 8)

    @property
    def samples(self) -> int:
        # A window that needs a bound has room for all segments without overlap.
        return max(self.lanes * self.levels // 2, _SEGMENT)

    @property
    def row_bytes(self) -> int:
        """Scratch of one row: position and score of what is kept, and a count for each lane."""
        return self.lanes * (self.levels * 8 + 4)


def row_blocks(num_rows: int, row_bytes: int, budget_bytes: int) -> Iterator[tuple[int, int]]:
    """Half-open ranges that cover all rows once, as few and as even as the budget allows.

    A row that is larger than the budget is a block of its own.
    """
    if num_rows == 0:
        return
    most = max(1, budget_bytes // row_bytes)
    num_blocks = -(-num_rows // most)
    bounds = [num_rows * block // num_blocks for block in range(num_blocks + 1)]
    yield from zip(bounds, bounds[1:], strict=False)


def select(
    scores: torch.Tensor,
    starts: torch.Tensor,
    lengths: torch.Tensor,
    topk: int,
    page_table: torch.Tensor | None = None,
    requests: torch.Tensor | None = None,
    *,
    tries: int = 4,
    scratch_bytes: int = SCRATCH_BYTES,
) -> torch.Tensor:
    """Select the `topk` best scores of each row's window.

    Args:
        scores: [R, C] float32, unit column stride, any row stride.
        starts: [R] int32, first column of the row's window.
        lengths: [R] int32, columns in the window; not negative.
        page_table: [B, L] int32, slot of each position of each request.
        requests: [R] int32, row of the page table.
    Returns:
        [R, topk] int32, in an order that depends on the row alone; -1 pads on the right. Slots of
        the KV pool with a page table, positions relative to the window's start without one.
    """
    num_rows = len(scores)
    assert scores.dtype == torch.float32 and scores.stride(1) == 1
    assert len(starts) == len(lengths) == num_rows and (page_table is None) == (requests is None)
    sizes = Sizes(topk)
    selected = torch.empty((num_rows, topk), dtype=torch.int32, device=scores.device)
    blocks = list(row_blocks(num_rows, sizes.row_bytes, scratch_bytes))
    most = max((end - begin for begin, end in blocks), default=0)
    positions = selected.new_empty((most, sizes.levels, sizes.lanes))
    kept = scores.new_empty((most, sizes.levels, sizes.lanes))
    counts = selected.new_empty((most, sizes.lanes))
    for begin, end in blocks:
        rows = slice(begin, end)
        window = (scores[rows], scores.stride(0), starts[rows], lengths[rows])
        collect_kernel[(end - begin,)](
            *window,
            positions,
            kept,
            counts,
            TOPK=topk,
            LANES=sizes.lanes,
            LEVELS=sizes.levels,
            SAMPLES=sizes.samples,
            SEGMENT=_SEGMENT,
            TRIES=tries,
            # A thread a lane: no list is shared.
            num_warps=max(sizes.lanes // 32, 1),
        )
        choose_kernel[(end - begin,)](
            *window,
            positions,
            kept,
            counts,
            selected if page_table is None else page_table,
            0 if page_table is None else page_table.stride(0),
            starts[rows] if requests is None else requests[rows],
            selected[rows],
            topk,
            TOPK=topk,
            TOPK_POWER=triton.next_power_of_2(topk),
            LANES=sizes.lanes,
            LEVELS=sizes.levels,
            BLOCK=512,
            HAS_TABLE=page_table is not None,
            num_warps=16,
            maxnreg=64,  # two rows on a multiprocessor
        )
    return selected
