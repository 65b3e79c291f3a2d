"""Where a bound proves nothing: a block of rows is scored again, written, and selected from whole.

# R = query rows, H = heads, D = head dim, N = keys of all requests
"""

import triton
import triton.language as tl

from sglang_ic.hopper.choosing import choose_in_row
from sglang_ic.hopper.scoring import score_block


@triton.jit
def rescue_kernel(
    q,  # as in keep_kernel
    k,
    k_scale,
    weights,
    starts,
    ends,
    failed,  # [R] int32, from choose_kept_kernel
    scores,  # [P, BLOCK_Q, N] float32 scratch, for each of P programs
    score_stride,
    page_table,  # as in choose_kept_kernel
    table_stride,
    requests,
    selected,
    selected_stride,
    num_rows,
    TOPK: tl.constexpr,
    H: tl.constexpr,
    D: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr,
    BLOCK: tl.constexpr,
    HAS_TABLE: tl.constexpr,
):
    """Score blocks with a failed row again, and select from the whole of such a row."""
    program = tl.program_id(0)
    for turn in range(0, tl.cdiv(num_rows, BLOCK_Q * tl.num_programs(0))):
        block = program + turn * tl.num_programs(0)
        rows = block * BLOCK_Q + tl.arange(0, BLOCK_Q)
        if tl.max(tl.load(failed + rows, mask=rows < num_rows, other=0), 0) > 0:
            # This program's scratch, as seen from row 0 of all.
            base = scores + (program - block).to(tl.int64) * BLOCK_Q * score_stride
            score_block(
                q,
                k,
                k_scale,
                weights,
                starts,
                ends,
                base,
                score_stride,
                num_rows,
                block,
                H,
                D,
                BLOCK_Q,
                BLOCK_K,
                STAGES,
            )
            tl.debug_barrier()  # the scores are other threads'
            for query in range(BLOCK_Q):
                row = block * BLOCK_Q + query
                if tl.load(failed + row, mask=row < num_rows, other=0) > 0:
                    start = tl.load(starts + row)
                    length = tl.load(ends + row) - start
                    wide = row.to(tl.int64)
                    table = page_table
                    if HAS_TABLE:
                        table += tl.load(requests + row).to(tl.int64) * table_stride
                    choose_in_row(
                        selected + wide * selected_stride,
                        table,
                        base + wide * score_stride + start,
                        length,
                        tl.minimum(length, TOPK),
                        BLOCK,
                        HAS_TABLE,
                    )
            tl.debug_barrier()  # before the scratch is written again
