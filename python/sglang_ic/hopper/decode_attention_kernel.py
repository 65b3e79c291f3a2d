"""Triton: sparse attention of one token, its keys dealt to programs that share the work.

A decode step has few tokens, so one program a token would leave most multiprocessors idle. The keys
of a token are dealt in splits of a few tiles; a second kernel combines them. As in
``attention_kernel`` the keys are the rows of a product and the heads its columns.

# T = tokens, H = heads of this rank, S = rows of the KV cache, K = width of the selection,
# N = splits
"""

from __future__ import annotations

import triton
import triton.language as tl

LOWEST = tl.constexpr(-1e30)  # finite: without a key, 0 and not NaN


@triton.jit(do_not_specialize=["num_keys"])
def attend_to_split_kernel(
    q_nope,  # [T, H, LATENT] bf16; strides in units of UNIT numbers
    nope_stride_t,
    nope_stride_h,
    q_rope,  # [T, H, ROPE] bf16
    rope_stride_t,
    rope_stride_h,
    kv,  # [S, LATENT + ROPE] bf16
    num_keys,  # S
    selected,  # [T, K] int32, rows of kv; -1 for none
    lengths,  # [T] int32, how many of a row of `selected` count
    scale,  # of scores, times log2(e)
    mixed_out,  # [T, N, H, LATENT] fp32 out, not written for a split without keys
    stats_out,  # [T, N, 2, H] fp32 out: the highest score, the sum of weights
    K: tl.constexpr,
    H: tl.constexpr,
    LATENT: tl.constexpr,
    ROPE: tl.constexpr,
    UNIT: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SPLIT: tl.constexpr,  # keys of one, a multiple of BLOCK_K
    NUM_SPLITS: tl.constexpr,
):
    token = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0) * SPLIT
    stop = tl.minimum(tl.minimum(tl.load(lengths + token), K), first + SPLIT)
    head = tl.arange(0, H)
    at_nope, at_rope = tl.arange(0, LATENT), tl.arange(0, ROPE)
    q_nope += token * nope_stride_t * UNIT + head[:, None] * (nope_stride_h * UNIT)
    q_rope += token * rope_stride_t * UNIT + head[:, None] * (rope_stride_h * UNIT)
    query_nope = tl.trans(tl.load(q_nope + at_nope[None, :]))
    query_rope = tl.trans(tl.load(q_rope + at_rope[None, :]))
    highest = tl.full([H], LOWEST, tl.float32)
    total = tl.zeros([H], tl.float32)
    mixed = tl.zeros([LATENT, H], tl.float32)
    for begin in range(first, stop, BLOCK_K):
        at = begin + tl.arange(0, BLOCK_K)
        key = tl.load(selected + token * K + at, at < stop, other=-1)
        exists = (key >= 0) & (key < num_keys)
        row = kv + key.to(tl.int64) * (LATENT + ROPE)
        # What lies in memory may be NaN, and stays NaN with a weight of 0: zeros, unread.
        nope = tl.load(row[:, None] + at_nope[None, :], exists[:, None], other=0.0)
        rope = tl.load(row[:, None] + (LATENT + at_rope[None, :]), exists[:, None], other=0.0)
        scores = tl.dot(nope, query_nope, tl.dot(rope, query_rope)) * scale
        scores = tl.where(exists[:, None], scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 0))
        rescale = tl.exp2(highest - higher)
        highest = higher
        weight = tl.exp2(scores - highest[None, :])
        total = total * rescale + tl.sum(weight, 0)
        mixed = tl.dot(tl.trans(nope), weight.to(nope.dtype), mixed * rescale[None, :])
    split = token * NUM_SPLITS + tl.program_id(0)
    tl.store(stats_out + split * (2 * H) + head, highest)
    tl.store(stats_out + split * (2 * H) + H + head, total)
    if first < stop:
        to = mixed_out + split * (H * LATENT) + head[None, :] * LATENT + at_nope[:, None]
        tl.store(to, mixed)


@triton.jit
def combine_splits_kernel(
    mixed,  # [T, N, H, LATENT] fp32
    stats,  # [T, N, 2, H] fp32
    out,  # [T, H, LATENT] bf16 out
    H: tl.constexpr,
    LATENT: tl.constexpr,
    BLOCK: tl.constexpr,  # numbers of a head that a program has
    NUM_SPLITS: tl.constexpr,
    SPLITS: tl.constexpr,  # the power of two that holds them
):
    part, head, token = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    split = tl.arange(0, SPLITS)
    stats += (token * NUM_SPLITS + split) * (2 * H) + head
    highest = tl.load(stats, split < NUM_SPLITS, other=LOWEST)
    total = tl.load(stats + H, split < NUM_SPLITS, other=0.0)
    share = tl.exp2(highest - tl.max(highest, 0))
    # 0 is a split without keys, of which nothing was written; NaN is not 0, and is passed on.
    total = tl.where(total != 0, total * share, 0.0)
    at = part * BLOCK + tl.arange(0, BLOCK)
    rows = mixed + ((token * NUM_SPLITS + split) * H + head)[:, None] * LATENT + at[None, :]
    parts = tl.load(rows, (total != 0)[:, None], other=0.0)
    whole = tl.sum(total, 0)
    found = tl.sum(parts * share[:, None], 0) / tl.where(whole == 0, 1.0, whole)
    tl.store(out + (token * H + head) * LATENT + at, found.to(out.dtype.element_ty))
