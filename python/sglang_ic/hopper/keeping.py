"""Scores of prefill that reach a bound, and nothing of the others: the scoring kernel, in Gluon.

For each of its rows it scores all keys as ``scoring`` does, in the same order of sums, so scores
are the same bit for bit. It is in Gluon, Triton's lower level, for one thing: while one half of the
queries is reduced, the products of the other half run. Triton waits for a product before it goes
on. On one H200 that is 9.3 ms instead of 10.4 for 8,192 queries and 139,264 keys; the card is at
its power limit then, and products alone, without any reduction, take 5.9.

One program sees all keys of its rows, and key c from its first on goes to lane c % BLOCK_K of each
row's lists: a list has one writer, so there are no atomics, and its order is that of the row. Lists
lie level by level, so reading them in memory order is nearly the order of positions.

# R = query rows, H = heads, D = head dim, N = keys, Q = BLOCK_Q / 2 queries of a half
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from sglang_ic.hopper.summing import sum_of_pairs, totals_of_pairs


@gluon.jit
def _pair(column, row, H: gl.constexpr, Q: gl.constexpr):
    """Which query and head a column of products is, as in `scoring.load_block`."""
    return (row + column // 2 % Q) * H + column // (2 * Q) * 2 + column % 2


@gluon.jit
def _copy_queries(to, q, row, num_rows, H: gl.constexpr, D: gl.constexpr, Q: gl.constexpr, layout):
    column = gl.arange(0, Q * H, gl.SliceLayout(1, layout))
    pair = gl.minimum(_pair(column, row, H, Q), num_rows * H - 1).to(gl.int64)
    dim = gl.arange(0, D, gl.SliceLayout(0, layout))
    async_copy.async_copy_global_to_shared(to, q + pair[:, None] * D + dim[None, :])


@gluon.jit
def _copy_keys(to, k, begin, last, D: gl.constexpr, BLOCK_K: gl.constexpr, layout: gl.constexpr):
    # Beyond the last key it is that key again, at positions that no window has.
    key = gl.minimum(begin + gl.arange(0, BLOCK_K, gl.SliceLayout(1, layout)), last - 1)
    dim = gl.arange(0, D, gl.SliceLayout(0, layout))
    async_copy.async_copy_global_to_shared(to, k + key[:, None].to(gl.int64) * D + dim[None, :])
    async_copy.commit_group()


@gluon.jit
def _keep(score, begin, of_rows, count, BLOCK_K: gl.constexpr, LEVELS: gl.constexpr):
    """Write the scores [BLOCK_K, Q] that reach the bound; returns the counts with them."""
    offset, bound, window, list_at, scores, positions = of_rows
    # Before the window it wraps to more than any length. NaN reaches no bound: it must not count
    # as proof that numbers did.
    position = (begin + offset).to(gl.uint32)
    passes = (position < window) & ((score >= bound) | (bound == float("-inf")))
    at = list_at + count * BLOCK_K
    gl.store(scores + at, score, passes & (count < LEVELS))
    gl.store(positions + at, position.to(gl.int32), passes & (count < LEVELS))
    return count + passes.to(gl.int32)


@gluon.jit
def _rows(
    like,
    row,
    starts,
    ends,
    bounds,
    scores,
    positions,
    num_rows,
    Q: gl.constexpr,
    BLOCK_K: gl.constexpr,
    LEVELS: gl.constexpr,
):
    """What `_keep` needs of a half's rows, laid out as their scores are."""
    layout: gl.constexpr = like.type.layout
    query = gl.arange(0, Q, gl.SliceLayout(0, layout))
    inside = row + query < num_rows
    start = gl.load(starts + row + query, inside, other=0)
    length = gl.load(ends + row + query, inside, other=0) - start
    bound = gl.load(bounds + row + query, inside, other=0.0)
    lane = gl.arange(0, BLOCK_K, gl.SliceLayout(1, layout))
    first = row.to(gl.int64) * (BLOCK_K * LEVELS)
    list_at = query[None, :] * (BLOCK_K * LEVELS) + lane[:, None]
    offset = lane[:, None] - start[None, :]
    window = length.to(gl.uint32)[None, :]
    return offset, bound[None, :], window, list_at, scores + first, positions + first


@gluon.jit
def _store_counts(counts, count, row, num_rows, Q: gl.constexpr, BLOCK_K: gl.constexpr):
    layout: gl.constexpr = count.type.layout
    query = gl.arange(0, Q, gl.SliceLayout(0, layout))
    lane = gl.arange(0, BLOCK_K, gl.SliceLayout(1, layout))
    at = (row + query)[None, :] * BLOCK_K + lane[:, None]
    gl.store(counts + at, count, (row + query < num_rows)[None, :] & (lane >= 0)[:, None])


@gluon.jit(do_not_specialize=["num_rows"])
def keep_kernel(
    q,  # [R, H, D] float8_e4m3fn
    k,  # [N, D] float8_e4m3fn
    k_scale,  # [N] float32
    weights,  # [R, H] float32
    starts,  # [R] int32
    ends,  # [R] int32
    bounds,  # [R] float32
    scores,  # [R, LEVELS, BLOCK_K] float32 out
    positions,  # [R, LEVELS, BLOCK_K] int32 out, in the window
    counts,  # [R, BLOCK_K] int32 out: scores that passed, also those beyond LEVELS
    num_rows,
    H: gl.constexpr,
    D: gl.constexpr,
    BLOCK_Q: gl.constexpr,
    BLOCK_K: gl.constexpr,
    LEVELS: gl.constexpr,
    STAGES: gl.constexpr,
):
    """Score BLOCK_Q queries against the keys of their windows, and keep what reaches the bounds."""
    Q: gl.constexpr = BLOCK_Q // 2
    copies: gl.constexpr = gl.BlockedLayout([1, 16], [4, 8], [4, 1], [1, 0])
    wide: gl.constexpr = gl.NVMMASharedLayout(128, 8, rank=2)
    products: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, Q * H, 32])

    low_row = gl.program_id(0) * BLOCK_Q
    high_row = low_row + Q
    query = gl.arange(0, 32, gl.BlockedLayout([1], [32], [4], [0]))
    mine = (query < BLOCK_Q) & (low_row + query < num_rows)
    first = gl.min(gl.load(starts + low_row + query, mine, other=2147483647), 0)
    last = gl.max(gl.load(ends + low_row + query, mine, other=0), 0)

    q_low = gl.allocate_shared_memory(gl.float8e4nv, [Q * H, D], wide)
    q_high = gl.allocate_shared_memory(gl.float8e4nv, [Q * H, D], wide)
    keys = gl.allocate_shared_memory(gl.float8e4nv, [STAGES, BLOCK_K, D], wide)
    _copy_queries(q_low, q, low_row, num_rows, H, D, Q, copies)
    _copy_queries(q_high, q, high_row, num_rows, H, D, Q, copies)
    column = gl.arange(0, Q * H, gl.SliceLayout(0, products))
    low_pair, high_pair = _pair(column, low_row, H, Q), _pair(column, high_row, H, Q)
    # Halves: what is left of a product above zero is twice what it should be.
    w_low = gl.load(weights + low_pair, low_pair < num_rows * H, other=0.0) * 0.5
    w_high = gl.load(weights + high_pair, high_pair < num_rows * H, other=0.0) * 0.5

    zero = gl.zeros([BLOCK_K, Q * H], gl.float32, products)
    totals = totals_of_pairs(zero, w_low, BLOCK_K, Q, H)
    by_total: gl.constexpr = totals.type.layout
    by_scale: gl.constexpr = gl.SliceLayout(1, gl.SliceLayout(2, by_total))
    lane = gl.arange(0, BLOCK_K, by_scale)
    like = sum_of_pairs(totals, lane.to(gl.float32), BLOCK_K, Q)
    where = (starts, ends, bounds, scores, positions, num_rows)
    low_rows = _rows(like, low_row, *where, Q, BLOCK_K, LEVELS)
    high_rows = _rows(like, high_row, *where, Q, BLOCK_K, LEVELS)
    by_score: gl.constexpr = like.type.layout
    low_count = gl.zeros([BLOCK_K, Q], gl.int32, by_score)
    high_count = low_count
    if first < last:
        for stage in gl.static_range(STAGES - 1):
            _copy_keys(keys.index(stage), k, first + stage * BLOCK_K, last, D, BLOCK_K, copies)
        scale = gl.load(k_scale + gl.minimum(first + lane, last - 1))
        stage = 0
        for begin in range(first, last, BLOCK_K):
            async_copy.wait_group(STAGES - 2)
            fence_async_shared()
            key = keys.index(stage)
            low = warpgroup_mma(key, q_low.permute((1, 0)), zero, use_acc=False, is_async=True)
            high = warpgroup_mma(key, q_high.permute((1, 0)), zero, use_acc=False, is_async=True)
            # The wait above was for all warps: they are done with the keys before these.
            ahead = gl.where(stage == 0, STAGES - 1, stage - 1)
            after = begin + (STAGES - 1) * BLOCK_K
            _copy_keys(keys.index(ahead), k, after, last, D, BLOCK_K, copies)
            next_scale = gl.load(k_scale + gl.minimum(begin + BLOCK_K + lane, last - 1))
            low = warpgroup_mma_wait(1, deps=[low])
            score = sum_of_pairs(totals_of_pairs(low, w_low, BLOCK_K, Q, H), scale, BLOCK_K, Q)
            low_count = _keep(score, begin, low_rows, low_count, BLOCK_K, LEVELS)
            high = warpgroup_mma_wait(0, deps=[high])
            score = sum_of_pairs(totals_of_pairs(high, w_high, BLOCK_K, Q, H), scale, BLOCK_K, Q)
            high_count = _keep(score, begin, high_rows, high_count, BLOCK_K, LEVELS)
            scale = next_scale
            stage = gl.where(stage == STAGES - 1, 0, stage + 1)
        async_copy.wait_group(0)
    _store_counts(counts, low_count, low_row, num_rows, Q, BLOCK_K)
    _store_counts(counts, high_count, high_row, num_rows, Q, BLOCK_K)
