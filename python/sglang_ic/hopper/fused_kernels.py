"""Scores and top-k in one pass over the keys, in Triton: scores below a bound are never written.

Every row has a bound (``sampling``) that somewhat more than `topk` scores should reach. The
scoring kernel keeps those that do, with their positions, and counts them. The count proves the
guess: if at least `topk` were kept and none was lost, the whole top-k is among them, and is then
found there exactly (``choosing``). Where the proof fails, the scores of that block of rows are
computed again, written, and selected from whole. The guess decides only speed.

One program sees all keys of its rows, and key c from its first on goes to lane c % BLOCK_K of each
row's lists: a list has one writer, so there are no atomics, and its order is that of the row.

# R = query rows, H = heads, D = head dim, N = keys of all requests, LANES = BLOCK_K
"""

import triton
import triton.language as tl

from sglang_ic.hopper.choosing import choose_among_kept, choose_in_row
from sglang_ic.hopper.scoring import load_block, score_block, score_keys


@triton.jit
def _each_key(of_row, BLOCK_K: tl.constexpr, BLOCK_Q: tl.constexpr):
    """[BLOCK_K * BLOCK_Q], the rows' values once for each key of a tile."""
    tile = tl.broadcast_to(of_row[None, :], (BLOCK_K, BLOCK_Q))
    return tl.reshape(tile, (BLOCK_K * BLOCK_Q,))


@triton.jit
def _as_stored(tile, BLOCK_K: tl.constexpr, BLOCK_Q: tl.constexpr):
    """[BLOCK_K * BLOCK_Q], the tile as one line, in as many threads as there are.

    After the sum over heads four threads hold each score, and all four would compare and count it:
    the compiler moves scores to the threads that store them as late as it can, but not past a scan.
    This one has nothing to sum. 512 instructions a tile instead of 818, and no spills.
    """
    alone = tl.reshape(tile, (BLOCK_K * BLOCK_Q, 1))
    return tl.reshape(tl.cumsum(alone, 1), (BLOCK_K * BLOCK_Q,))


@triton.jit
def keep_kernel(
    q,  # [R, H, D] float8_e4m3fn
    k,  # [N, D] float8_e4m3fn, or a descriptor of blocks [BLOCK_K, D]
    k_scale,  # [N] float32
    weights,  # [R, H] float32
    starts,  # [R] int32
    ends,  # [R] int32
    bounds,  # [R] float32
    kept,  # [R, BLOCK_K, LEVELS] int64 out: bits of the score, then the position in the window
    counts,  # [R, BLOCK_K] int32 out: scores that passed, also those beyond LEVELS
    num_rows,
    H: tl.constexpr,
    D: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    LEVELS: tl.constexpr,
    STAGES: tl.constexpr,
    BY_DESCRIPTOR: tl.constexpr,
):
    """Score BLOCK_Q queries against the keys of their windows, and keep what reaches the bounds."""
    block = tl.program_id(0)
    queries, weight, first, last = load_block(
        q, weights, starts, ends, block, num_rows, H, D, BLOCK_Q
    )
    # A tile's scores as one line, key by key: all scores of a thread are of one row.
    flat = tl.arange(0, BLOCK_K * BLOCK_Q)
    query = flat % BLOCK_Q
    lane = flat // BLOCK_Q
    row = block * BLOCK_Q + tl.arange(0, BLOCK_Q)
    inside = row < num_rows
    start = tl.load(starts + row, mask=inside, other=0)
    length = tl.load(ends + row, mask=inside, other=0) - start
    bound = _each_key(tl.load(bounds + row, mask=inside, other=0.0), BLOCK_K, BLOCK_Q)
    window = _each_key(length.to(tl.uint32), BLOCK_K, BLOCK_Q)
    offset = lane - _each_key(start, BLOCK_K, BLOCK_Q)
    lists = kept + block.to(tl.int64) * (BLOCK_Q * LEVELS * BLOCK_K)
    list_of_lane = (query * BLOCK_K + lane) * LEVELS
    everything = bound == -float("inf")
    count = tl.zeros((BLOCK_K * BLOCK_Q,), tl.int32)
    for begin in tl.range(first, last, BLOCK_K, num_stages=STAGES):
        tile = score_keys(
            k, k_scale, begin, last, queries, weight, H, D, BLOCK_Q, BLOCK_K, BY_DESCRIPTOR
        )
        score = _as_stored(tile, BLOCK_K, BLOCK_Q)
        # Before the window it wraps to more than any length. NaN reaches no bound: it must not
        # count as proof that numbers did.
        position = (begin + offset).to(tl.uint32)
        passes = (position < window) & ((score >= bound) | everything)
        entry = (score.to(tl.uint32, bitcast=True).to(tl.uint64) << 32) | position.to(tl.uint64)
        tl.store(lists + (list_of_lane + count), entry, mask=passes & (count < LEVELS))
        count += passes.to(tl.int32)
    row = block * BLOCK_Q + query
    tl.store(counts + row * BLOCK_K + lane, count, mask=row < num_rows)


@triton.jit
def choose_kept_kernel(
    kept,  # [R, LANES, LEVELS] int64, from keep_kernel
    counts,  # [R, LANES] int32
    bounds,  # [R] float32
    starts,  # [R] int32
    ends,  # [R] int32
    page_table,  # [B, L] int32: slot of each position; not read without HAS_TABLE
    table_stride,
    requests,  # [R] int32, row of the page table
    selected,  # [R, TOPK] int32 out: slots (or positions); -1 pads on the right
    selected_stride,
    failed,  # [R] int32 out: 1 where the count proves nothing, and nothing is selected
    TOPK: tl.constexpr,
    TOPK_POWER: tl.constexpr,
    LANES: tl.constexpr,
    LEVELS: tl.constexpr,
    HAS_TABLE: tl.constexpr,
):
    """Find the exact top-k of each row among what was kept, if that is sure to hold it."""
    row = tl.program_id(0).to(tl.int64)
    wanted = tl.minimum(tl.load(ends + row) - tl.load(starts + row), TOPK)
    count = tl.load(counts + row * LANES + tl.arange(0, LANES))
    out = selected + row * selected_stride
    lane = tl.arange(0, TOPK_POWER)
    tl.store(out + lane, -1, mask=(lane >= wanted) & (lane < TOPK))
    proven = (tl.sum(count, 0) >= wanted) & (tl.max(count, 0) <= LEVELS)
    tl.store(failed + row, (~proven).to(tl.int32))
    if proven & (wanted > 0):
        table = page_table
        if HAS_TABLE:
            table += tl.load(requests + row).to(tl.int64) * table_stride
        lists = tl.arange(0, LANES)[:, None]
        level = tl.arange(0, LEVELS)[None, :]
        kept += row * (LEVELS * LANES)
        # Halves of an entry: the position, and the score. In this order, all addresses of a
        # thread are one and a constant.
        positions = kept.to(tl.pointer_type(tl.int32), bitcast=True) + 2 * level
        scores = kept.to(tl.pointer_type(tl.float32), bitcast=True) + (2 * level + 1)
        choose_among_kept(
            out,
            table,
            scores + lists * (2 * LEVELS),
            positions + lists * (2 * LEVELS),
            level,
            counts + row * LANES + lists,
            tl.load(bounds + row),
            wanted,
            LANES,
            LEVELS,
            HAS_TABLE,
        )


@triton.jit
def rescue_kernel(
    q,  # as in keep_kernel
    k,  # no descriptor
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
                False,
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
