"""The indexer's scores in Triton, for what ``fused`` needs besides its main pass.

    score[t, s] = scale[s] * sum_h weight[t, h] * max(q[t, h] . k[s], 0)

Scores of the sampled keys, and those of rows that are scored again. ``keeping`` computes the same
in the same order, so scores are equal bit for bit. So are those of DeepGEMM's `fp8_mqa_logits`:
the order is its own, see ``summing``.

# R = query rows, H = heads, D = head dim, N = keys
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from sglang_ic.hopper.summing import UNFUSED, weighted_sum


@triton.jit
def load_block(
    q,
    weights,
    starts,
    ends,
    block,
    num_rows,
    H: tl.constexpr,
    D: tl.constexpr,
    BLOCK_Q: tl.constexpr,
):
    """Queries of a block of rows, halves of their weights, and the keys that one of them may see.

    Columns of the product are pairs of heads, query by query, one half of the queries after the
    other: a thread of a warp group holds two columns of every eight, and with four queries or more
    in a half those are all of one query. So it sums over heads by itself, without a word to its
    neighbours.

    A half is exact but for weights below 2**-125, which lose a last bit.
    """
    row = block * BLOCK_Q + tl.arange(0, BLOCK_Q)
    inside = row < num_rows
    first = tl.min(tl.load(starts + row, mask=inside, other=2147483647), 0) // 4 * 4
    last = tl.max(tl.load(ends + row, mask=inside, other=0), 0)
    dim = tl.arange(0, D)
    HALVES: tl.constexpr = 2 if BLOCK_Q > 1 else 1
    Q: tl.constexpr = BLOCK_Q // HALVES
    pair = tl.arange(0, BLOCK_Q * H)
    half, column = pair // (Q * H), pair % (Q * H)
    query, head = half * Q + column // 2 % Q, column // (2 * Q) * 2 + column % 2
    pair = (block * BLOCK_Q + query) * H + head
    exists = pair < num_rows * H
    queries = tl.load(q + pair[:, None] * D + dim[None, :], mask=exists[:, None], other=0.0)
    weight = tl.load(weights + pair, mask=exists, other=0.0)
    return queries, weight * 0.5, tl.multiple_of(first, 4), last


@triton.jit
def score_keys(
    k,
    k_scale,
    begin,
    last,
    queries,
    weight,  # halves
    H: tl.constexpr,
    D: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """[BLOCK_K, BLOCK_Q] scores of keys from `begin` on; 0 from `last` on if keys are numbers."""
    key = begin + tl.arange(0, BLOCK_K)
    seen = key < last
    dim = tl.arange(0, D)
    keys = tl.load(k + key[:, None] * D + dim[None, :], mask=seen[:, None], other=0.0)
    scale = tl.load(k_scale + key, mask=seen, other=0.0)
    product = tl.dot(keys, tl.trans(queries))
    # Twice max(product, 0), bit for bit, in an addition: a maximum has half the rate, and shares
    # its pipe with all integers. NaN stays NaN.
    product = product + tl.abs(product)
    return weighted_sum(product, weight, scale, BLOCK_K, BLOCK_Q, H)


@triton.jit
def score_block(
    q,  # [R, H, D] float8_e4m3fn
    k,  # [N, D] float8_e4m3fn
    k_scale,  # [N] float32
    weights,  # [R, H] float32
    starts,  # [R] int32
    ends,  # [R] int32
    scores,  # [R, N] float32 out, written from the first start to the last end of the block
    score_stride,
    num_rows,
    block,
    H: tl.constexpr,
    D: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Score BLOCK_Q queries against every key that one of them may see."""
    row = block * BLOCK_Q + tl.arange(0, BLOCK_Q)
    queries, weight, first, last = load_block(
        q, weights, starts, ends, block, num_rows, H, D, BLOCK_Q
    )
    for begin in tl.range(first, last, BLOCK_K, num_stages=STAGES):
        score = score_keys(k, k_scale, begin, last, queries, weight, H, D, BLOCK_Q, BLOCK_K)
        key = begin + tl.arange(0, BLOCK_K)[:, None]
        out = scores + row[None, :].to(tl.int64) * score_stride + key
        tl.store(out, score, mask=(key < last) & (row < num_rows)[None, :])


@triton.jit
def score_kernel(
    q,
    k,
    k_scale,
    weights,
    starts,
    ends,
    scores,
    score_stride,
    num_rows,
    H: tl.constexpr,
    D: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr,
):
    """One program scores one block of rows."""
    score_block(
        q,
        k,
        k_scale,
        weights,
        starts,
        ends,
        scores,
        score_stride,
        num_rows,
        tl.program_id(0),
        H,
        D,
        BLOCK_Q,
        BLOCK_K,
        STAGES,
    )


def score(
    q: torch.Tensor,
    k: torch.Tensor,
    k_scale: torch.Tensor,
    weights: torch.Tensor,
    starts: torch.Tensor,
    ends: torch.Tensor,
    *,
    block_q: int | None = None,
    block_k: int = 64,
    num_warps: int = 4,
    stages: int = 3,
) -> torch.Tensor:
    """Scores of keys [starts, ends) of each row; what lies outside a row's window is undefined.

    Args:
        q: [R, H, D] float8_e4m3fn; H is a power of two from 8 to 128.
        k: [N, D] float8_e4m3fn, keys of all requests one after the other; k_scale: [N] float32.
        weights: [R, H] float32.
        starts, ends: [R] int32, the row's window of keys.
    Returns:
        [R, N] float32; the row stride is a multiple of 256, as DeepGEMM has it.
    """
    num_rows, num_heads, head_dim = q.shape
    # 256 columns are the widest product of a warp group: 128 registers for a thread's share.
    block_q = block_q or max(1, 256 // num_heads)
    stride = triton.cdiv(len(k), 256) * 256
    scores = torch.empty((num_rows, stride), dtype=torch.float32, device=q.device)
    if num_rows:
        score_kernel[(triton.cdiv(num_rows, block_q),)](
            q,
            k,
            k_scale,
            weights,
            starts,
            ends,
            scores,
            stride,
            num_rows,
            H=num_heads,
            D=head_dim,
            BLOCK_Q=block_q,
            BLOCK_K=block_k,
            STAGES=stages,
            num_warps=num_warps,
            **UNFUSED,
        )
    return scores[:, : len(k)]
