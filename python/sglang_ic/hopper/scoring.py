"""The indexer's scores for prefill, in Triton, in place of DeepGEMM's `fp8_mqa_logits`.

    score[t, s] = scale[s] * sum_h weight[t, h] * max(q[t, h] . k[s], 0)

DeepGEMM's kernel for Hopper takes four queries of 32 heads at a time, so all keys stream through L2
once for every four queries, and a warp group waits for its product before it reduces. Here twice as
many queries share a block of keys, and two blocks share a multiprocessor, so that one multiplies
while the other reduces. Sums over heads are taken in another order: scores differ from DeepGEMM's
by rounding, so near-ties may fall otherwise.

# R = query rows, H = heads, D = head dim, N = keys
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor


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

    A half is exact but for weights below 2**-125, which lose a last bit.
    """
    row = block * BLOCK_Q + tl.arange(0, BLOCK_Q)
    inside = row < num_rows
    first = tl.min(tl.load(starts + row, mask=inside, other=2147483647), 0) // 4 * 4
    last = tl.max(tl.load(ends + row, mask=inside, other=0), 0)
    dim = tl.arange(0, D)
    pair = block * (BLOCK_Q * H) + tl.arange(0, BLOCK_Q * H)
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
    BY_DESCRIPTOR: tl.constexpr,
):
    """[BLOCK_K, BLOCK_Q] scores of the keys from `begin` on; 0 from `last` on, if keys are numbers.

    With a descriptor for `k` the copy engine brings the keys: no addresses to compute, and nothing
    that the threads wrote for the tensor cores to wait for.
    """
    key = begin + tl.arange(0, BLOCK_K)
    seen = key < last
    if BY_DESCRIPTOR:
        keys = k.load([begin, 0])
    else:
        dim = tl.arange(0, D)
        keys = tl.load(k + key[:, None] * D + dim[None, :], mask=seen[:, None], other=0.0)
    scale = tl.load(k_scale + key, mask=seen, other=0.0)
    product = tl.dot(keys, tl.trans(queries))
    # Twice max(product, 0), bit for bit, in an addition: a maximum has half the rate, and shares
    # its pipe with all integers. NaN stays NaN.
    product = (product + tl.abs(product)) * weight[None, :]
    return tl.sum(tl.reshape(product, (BLOCK_K, BLOCK_Q, H)), 2) * scale[:, None]


@triton.jit
def score_block(
    q,  # [R, H, D] float8_e4m3fn
    k,  # [N, D] float8_e4m3fn, or a descriptor of blocks [BLOCK_K, D]
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
    BY_DESCRIPTOR: tl.constexpr,
):
    """Score BLOCK_Q queries against every key that one of them may see."""
    row = block * BLOCK_Q + tl.arange(0, BLOCK_Q)
    queries, weight, first, last = load_block(
        q, weights, starts, ends, block, num_rows, H, D, BLOCK_Q
    )
    for begin in tl.range(first, last, BLOCK_K, num_stages=STAGES):
        score = score_keys(
            k, k_scale, begin, last, queries, weight, H, D, BLOCK_Q, BLOCK_K, BY_DESCRIPTOR
        )
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
    BY_DESCRIPTOR: tl.constexpr,
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
        BY_DESCRIPTOR,
    )


def described(k: torch.Tensor, block_k: int) -> TensorDescriptor:
    """A descriptor of blocks of keys; what is beyond the last key reads as zeros.

    Args:
        k: [N, D], contiguous, at an address that 16 divides; N is not 0.
    """
    return TensorDescriptor.from_tensor(k, [block_k, k.shape[1]])


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
    by_descriptor: bool = False,
) -> torch.Tensor:
    """Scores of keys [starts, ends) of each row; what lies outside a row's window is undefined.

    Args:
        q: [R, H, D] float8_e4m3fn.
        k: [N, D] float8_e4m3fn, keys of all requests one after the other; k_scale: [N] float32.
        weights: [R, H] float32.
        starts, ends: [R] int32, the row's window of keys.
        by_descriptor: the copy engine brings the keys, not the threads.
    Returns:
        [R, N] float32; the row stride is a multiple of 256, as DeepGEMM has it.
    """
    num_rows, num_heads, head_dim = q.shape
    # 256 columns are the widest product of a warp group: 128 registers for a thread's share.
    block_q = block_q or max(1, 256 // num_heads)
    stride = triton.cdiv(len(k), 256) * 256
    scores = torch.empty((num_rows, stride), dtype=torch.float32, device=q.device)
    by_descriptor = by_descriptor and len(k) > 0
    if num_rows:
        score_kernel[(triton.cdiv(num_rows, block_q),)](
            q,
            described(k, block_k) if by_descriptor else k,
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
            BY_DESCRIPTOR=by_descriptor,
            num_warps=num_warps,
        )
    return scores[:, : len(k)]
