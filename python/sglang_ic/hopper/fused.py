"""Scores and exact top-k of prefill in one pass over the keys: sizes, row blocks, launches.

In place of DeepGEMM's scores and a top-k of them, which for a chunk of long context are gigabytes,
written once and read at least once.

Every row has a bound (``sampling``) that somewhat more than `topk` scores should reach. The main
pass (``keeping``) keeps those that do, with their positions, and counts them. The count proves
the guess: if at least `topk` were kept and none was lost, the whole top-k is among them, and is
then found there exactly (``choosing``). Where the proof fails, the scores of that block of rows are
computed again, written, and selected from whole (``rescuing``). The guess decides only speed.

Equal scores at the last place: lowest position (``reference``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton

from sglang_ic.hopper.choosing import choose_kept_kernel
from sglang_ic.hopper.keeping import keep_kernel
from sglang_ic.hopper.rescuing import rescue_kernel
from sglang_ic.hopper.sampling import gather_samples, sample_bounds
from sglang_ic.hopper.summing import UNFUSED

# Rows that are taken at once: two waves of programs on the 132 multiprocessors of an H100 or H200,
# of 264 programs of 8 rows (or four, of 4 rows), so that only a call's last wave is not full. What
# is kept and sampled of them is 384 MB at 200K keys, 830 MB at a million, and is read no more when
# the next rows come.
BLOCK_ROWS = 4224
# Scores of rows whose bound failed; it limits how many blocks of rows are rescued at once.
RESCUE_BYTES = 128 << 20
_NUM_WARPS = 4
_STAGES = 3  # blocks of keys under way


@dataclass(frozen=True)
class Sizes:
    """Sizes that follow from `topk` and the heads, all but `aim` powers of two.

    Attributes:
        block_q: queries of a block, two halves of 128 columns each.
        lanes: keys of a tile, and lists of each row.
        step: one key of so many is sampled. For a topk of 2,048, 112 samples or a few more are
            above the bound; if samples are independent, and scores have no pattern of the lanes'
            period, the proof fails for one row in 15 million.
    """

    topk: int
    block_q: int
    lanes: int
    step: int

    @classmethod
    def of(cls, topk: int, num_heads: int) -> Sizes:
        step = max(triton.next_power_of_2(topk) // 64, 1)
        return cls(topk, block_q=max(1, 256 // num_heads), lanes=64, step=step)

    @property
    def aim(self) -> int:
        """Keys of a row that its bound should let through; too few are as unlikely as too many."""
        return 7 * self.topk // 4

    @property
    def levels(self) -> int:
        """Scores that a list holds. A window within `lanes * levels` is kept whole."""
        return max(triton.next_power_of_2(4 * self.topk) // self.lanes, 1)


def score_and_select(
    q: torch.Tensor,
    k: torch.Tensor,
    k_scale: torch.Tensor,
    weights: torch.Tensor,
    starts: torch.Tensor,
    lengths: torch.Tensor,
    topk: int,
    page_table: torch.Tensor | None = None,
    requests: torch.Tensor | None = None,
    *,
    sizes: Sizes | None = None,
    block_rows: int = BLOCK_ROWS,
    rescue_bytes: int = RESCUE_BYTES,
) -> torch.Tensor:
    """Select the `topk` best scoring keys of each row's window.

    Args:
        q: [R, H, D] float8_e4m3fn.
        k: [N, D] float8_e4m3fn, keys of all requests one after the other; k_scale: [N] float32.
        weights: [R, H] float32.
        starts: [R] int32, first key of the row's window.
        lengths: [R] int32, keys in the window; not negative.
        page_table: [B, L] int32, slot of each position of each request.
        requests: [R] int32, row of the page table.
    Returns:
        [R, topk] int32, in an order that depends on the row and its place in a block of rows; -1
        pads on the right. Slots of the KV pool with a page table, positions relative to the
        window's start without one.
    """
    assert (page_table is None) == (requests is None)
    assert all(tensor.is_contiguous() for tensor in (q, k, k_scale, weights))
    num_rows, num_heads, _ = q.shape
    sizes = sizes or Sizes.of(topk, num_heads)
    assert 2 <= sizes.block_q <= 32  # two halves, and the rows that keep_kernel looks at
    selected = torch.empty((num_rows, topk), dtype=torch.int32, device=q.device)
    samples = gather_samples(k, k_scale, sizes.step)
    ends = starts + lengths
    for begin in range(0, num_rows, block_rows):
        rows = slice(begin, begin + block_rows)
        block = (q[rows], k, k_scale, weights[rows], starts[rows], ends[rows])
        bounds = sample_bounds(
            q[rows],
            samples,
            weights[rows],
            starts[rows],
            ends[rows],
            step=sizes.step,
            aim=sizes.aim,
            capacity=sizes.lanes * sizes.levels,
        )
        kept = keep(*block, bounds, sizes)
        table = (page_table, None if requests is None else requests[rows])
        failed = choose(*kept, bounds, starts[rows], ends[rows], *table, selected[rows])
        rescue(*block, failed, *table, selected[rows], sizes, rescue_bytes)
    return selected


def keep(
    q, k, k_scale, weights, starts, ends, bounds, sizes: Sizes
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores that reach the row's bound, with their positions; arguments as in keep_kernel.

    Returns:
        [R, levels, lanes] float32 and int32, undefined beyond the count; [R, lanes] int32, how many
        reached the bound, also those that found no room.
    """
    scores = bounds.new_empty((len(q), sizes.levels, sizes.lanes))
    positions = starts.new_empty(scores.shape)
    counts = starts.new_empty((len(q), sizes.lanes))
    keep_kernel[(triton.cdiv(len(q), sizes.block_q),)](
        q,
        k,
        k_scale,
        weights,
        starts,
        ends,
        bounds,
        scores,
        positions,
        counts,
        len(q),
        H=q.shape[1],
        D=q.shape[2],
        BLOCK_Q=sizes.block_q,
        BLOCK_K=sizes.lanes,
        LEVELS=sizes.levels,
        STAGES=4,  # blocks of keys: one is multiplied, three are on their way
        num_warps=_NUM_WARPS,
        **UNFUSED,
    )
    return scores, positions, counts


def choose(
    scores, positions, counts, bounds, starts, ends, page_table, requests, selected
) -> torch.Tensor:
    """Write the top-k of rows for which the counts prove that it was kept.

    Returns:
        [R] int32, 1 for the other rows.
    """
    failed = starts.new_empty(len(starts))
    _, levels, lanes = scores.shape
    choose_kept_kernel[(len(starts),)](
        scores,
        positions,
        counts,
        bounds,
        starts,
        ends,
        *_table(page_table, requests, selected, starts),
        failed,
        TOPK=selected.shape[1],
        TOPK_POWER=triton.next_power_of_2(selected.shape[1]),
        LANES=lanes,
        LEVELS=levels,
        BLOCK=min(lanes * levels, 1024),
        HAS_TABLE=page_table is not None,
        num_warps=8,
        maxnreg=64,  # four rows on a multiprocessor
    )
    return failed


def rescue(
    q, k, k_scale, weights, starts, ends, failed, page_table, requests, selected, sizes, num_bytes
) -> None:
    """Write the top-k of the failed rows; nothing is read back to the host to know which."""
    stride = max(triton.cdiv(len(k), 4) * 4, 4)
    most = max(num_bytes // (sizes.block_q * stride * 4), 1)
    num_programs = min(triton.cdiv(len(q), sizes.block_q), most)
    scores = q.new_empty((num_programs, sizes.block_q, stride), dtype=torch.float32)
    rescue_kernel[(num_programs,)](
        q,
        k,
        k_scale,
        weights,
        starts,
        ends,
        failed,
        scores,
        stride,
        *_table(page_table, requests, selected, starts),
        len(q),
        TOPK=selected.shape[1],
        H=q.shape[1],
        D=q.shape[2],
        BLOCK_Q=sizes.block_q,
        BLOCK_K=sizes.lanes,
        STAGES=_STAGES,
        BLOCK=512,
        HAS_TABLE=page_table is not None,
        num_warps=_NUM_WARPS,
        **UNFUSED,
    )


def _table(page_table, requests, selected, starts):
    """The kernels' arguments from the page table to the stride of the result."""
    if page_table is None:
        return selected, 0, starts, selected, selected.stride(0)
    return page_table, page_table.stride(0), requests, selected, selected.stride(0)
