"""Gluon: sparse attention with the keys as rows of a product and the heads as its columns.

A program has one token and one tile of keys, and loads the next tile as soon as the products with
this one are done; two programs share a multiprocessor, so one multiplies while the other waits.

# T = tokens, H = heads of this rank, S = rows of the KV cache, K = width of the selection
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    warpgroup_mma,
    warpgroup_mma_wait,
)

barrier = getattr(gl, "barrier", None) or gl.thread_barrier  # its name before triton 3.7


@gluon.jit
def load_selected(selected, begin, width, num_keys, BLOCK_K: gl.constexpr, layout: gl.constexpr):
    """[BLOCK_K] keys of the selection from `begin` on, and which of them exist."""
    at = begin + gl.arange(0, BLOCK_K, layout)
    key = gl.load(selected + at, at < width, other=-1)
    return key, (key >= 0) & (key < num_keys)


@gluon.jit
def copy_rows(smem, base, row, stride, exists, WIDTH: gl.constexpr, layout: gl.constexpr):
    """Start to copy WIDTH numbers of each row; rows that do not exist become zeros, unread.

    Zeros, because what lies in memory may be NaN, and stays NaN with a probability of 0.
    """
    at = gl.arange(0, WIDTH, gl.SliceLayout(0, layout))
    start = base + row.to(gl.int64) * stride
    async_copy.async_copy_global_to_shared(smem, start[:, None] + at[None, :], exists[:, None])
    async_copy.commit_group()


@gluon.jit(do_not_specialize=["num_keys"])
def sparse_attention_kernel(
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
    out,  # [T, H, LATENT] bf16 out
    K: gl.constexpr,
    H: gl.constexpr,
    LATENT: gl.constexpr,
    ROPE: gl.constexpr,
    UNIT: gl.constexpr,
    BLOCK_K: gl.constexpr,
    HAS_LENGTHS: gl.constexpr,
):
    copies: gl.constexpr = gl.BlockedLayout([1, UNIT], [4, 8], [4, 1], [1, 0])
    by_copy: gl.constexpr = gl.SliceLayout(1, copies)
    wide: gl.constexpr = gl.NVMMASharedLayout(128, element_bitwidth=16, rank=2)
    # Its rows are 2 * H bytes; the narrowest swizzle has 32.
    narrow: gl.constexpr = gl.NVMMASharedLayout(2 * H if H > 8 else 0, element_bitwidth=16, rank=2)
    products: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], instr_shape=[16, H, 16])
    by_row: gl.constexpr = gl.SliceLayout(1, products)
    by_head: gl.constexpr = gl.SliceLayout(0, products)

    token = gl.program_id(0).to(gl.int64)
    selected += token * K
    width = K
    if HAS_LENGTHS:
        width = gl.minimum(gl.load(lengths + token), K)

    keys_nope = gl.allocate_shared_memory(gl.bfloat16, [BLOCK_K, LATENT], wide)
    keys_rope = gl.allocate_shared_memory(gl.bfloat16, [BLOCK_K, ROPE], wide)
    queries_nope = gl.allocate_shared_memory(gl.bfloat16, [H, LATENT], wide)
    queries_rope = gl.allocate_shared_memory(gl.bfloat16, [H, ROPE], wide)
    weights = gl.allocate_shared_memory(gl.bfloat16, [BLOCK_K, H], narrow)
    head = gl.arange(0, H, by_copy)
    every = head >= 0
    q_nope += token * nope_stride_t * UNIT
    q_rope += token * rope_stride_t * UNIT
    copy_rows(queries_nope, q_nope, head, nope_stride_h * UNIT, every, LATENT, copies)
    copy_rows(queries_rope, q_rope, head, rope_stride_h * UNIT, every, ROPE, copies)
    key, exists = load_selected(selected, 0, width, num_keys, BLOCK_K, by_copy)
    copy_rows(keys_rope, kv + LATENT, key, LATENT + ROPE, exists, ROPE, copies)
    copy_rows(keys_nope, kv, key, LATENT + ROPE, exists, LATENT, copies)
    # The selection is a tile ahead of the copies, and the copies are ahead of the products.
    key, exists = load_selected(selected, BLOCK_K, width, num_keys, BLOCK_K, by_copy)
    _, counts = load_selected(selected, 0, width, num_keys, BLOCK_K, by_row)
    highest = gl.full([H], -1e30, gl.float32, by_head)  # finite: without a key, 0 and not NaN
    total = gl.zeros([BLOCK_K, H], gl.float32, products)
    mixed = gl.zeros([LATENT, H], gl.float32, products)
    for begin in range(0, width, BLOCK_K):
        zero = gl.zeros([BLOCK_K, H], gl.float32, products)
        async_copy.wait_group(0)
        fence_async_shared()
        scores = warpgroup_mma(
            keys_rope, queries_rope.permute((1, 0)), zero, use_acc=False, is_async=True
        )
        scores = warpgroup_mma(keys_nope, queries_nope.permute((1, 0)), scores, is_async=True)
        scores = warpgroup_mma_wait(0, deps=[scores])
        barrier()  # all warps have read the tile that is overwritten now
        copy_rows(keys_rope, kv + LATENT, key, LATENT + ROPE, exists, ROPE, copies)
        scores = gl.where(counts[:, None], scores, float("-inf"))
        _, counts = load_selected(selected, begin + BLOCK_K, width, num_keys, BLOCK_K, by_row)
        higher = gl.maximum(highest, gl.max(scores, 0) * scale)
        rescale = gl.exp2(highest - higher)
        highest = higher
        weight = gl.exp2(scores * scale - highest[None, :])
        weights.store(weight.to(gl.bfloat16))
        fence_async_shared()
        total = total * rescale[None, :] + weight
        mixed = mixed * rescale[None, :]
        mixed = warpgroup_mma(keys_nope.permute((1, 0)), weights, mixed, is_async=True)
        mixed = warpgroup_mma_wait(0, deps=[mixed])
        barrier()  # and here
        copy_rows(keys_nope, kv, key, LATENT + ROPE, exists, LATENT, copies)
        key, exists = load_selected(
            selected, begin + 2 * BLOCK_K, width, num_keys, BLOCK_K, by_copy
        )
    async_copy.wait_group(0)
    total = gl.sum(total, 0)
    mixed = mixed / gl.where(total == 0, 1.0, total)[None, :]
    head = gl.arange(0, H, by_head)[None, :]
    at = gl.arange(0, LATENT, by_row)[:, None]
    gl.store(out + token * (H * LATENT) + head * LATENT + at, mixed.to(gl.bfloat16))
