"""Sparse attention without padded queries: the next token's heads stand in for zeros.

FlashMLA's sparse prefill takes 64 heads a token (`_forward_flashmla_sparse` in upstream's
dsa_backend.py). A rank that has fewer, by the model or by tensor parallelism, gets its queries
copied into zeros of twice their size or more, in every layer, and the padding's output cut off
again. Heads do not mix, so what pads a token does not matter as long as it can be read. Here the
kernel gets a view of the queries as they are, 64 heads from the first of every token: the token's
own, then those of the next ones. Nothing is copied; a head's output is the same bit for bit.

Behind the last token there must be room to read. `with_room` gives it, where queries are put
together from their two parts anyway.

# T = tokens, H = heads of this rank
"""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl

LATENT, ROPE = 512, 64  # of a query: the absorbed part and the rotated one
PADDED_HEADS = 64  # that FlashMLA takes on Hopper


@triton.jit(do_not_specialize=["num_rows", "num_all_rows"])
def concat_kernel(
    nope,  # [T, H, LATENT]
    nope_stride_t,
    nope_stride_h,
    rope,  # [T, H, ROPE]
    rope_stride_t,
    rope_stride_h,
    out,  # [T * H + R, LATENT + ROPE] out; the last R rows become zeros
    num_rows,  # T * H
    num_all_rows,
    H: tl.constexpr,
    LATENT: tl.constexpr,
    ROPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[:, None]
    token, head = row // H, row % H
    given, written = row < num_rows, row < num_all_rows
    at = tl.arange(0, LATENT)[None, :]
    part = tl.load(nope + token * nope_stride_t + head * nope_stride_h + at, given, other=0.0)
    tl.store(out + row * (LATENT + ROPE) + at, part, written)
    at = tl.arange(0, ROPE)[None, :]
    part = tl.load(rope + token * rope_stride_t + head * rope_stride_h + at, given, other=0.0)
    tl.store(out + row * (LATENT + ROPE) + LATENT + at, part, written)


def with_room(q_nope: torch.Tensor, q_rope: torch.Tensor) -> torch.Tensor:
    """Queries in one piece, in storage with zeros behind them for the heads of one more padding.

    Args:
        q_nope: [T, H, 512], q_rope: [T, H, 64], of any strides but the last.
    Returns:
        [T, H, 576], contiguous.
    """
    num_tokens, num_heads, _ = q_nope.shape
    num_rows = num_tokens * num_heads
    num_all_rows = num_rows + PADDED_HEADS - num_heads
    rows = q_nope.new_empty((num_all_rows, LATENT + ROPE))
    block = 8
    concat_kernel[(triton.cdiv(num_all_rows, block),)](
        q_nope,
        *q_nope.stride()[:2],
        q_rope,
        *q_rope.stride()[:2],
        rows,
        num_rows,
        num_all_rows,
        H=num_heads,
        LATENT=LATENT,
        ROPE=ROPE,
        BLOCK=block,
        num_warps=4,
    )
    return rows[:num_rows].view(num_tokens, num_heads, LATENT + ROPE)


def overlapping(q_all: torch.Tensor) -> torch.Tensor | None:
    """[T, 64, D] view: every token's heads, and those that follow them in memory.

    None if there is no room behind the last token, or nothing to pad.
    """
    num_tokens, num_heads, width = q_all.shape
    missing = PADDED_HEADS - num_heads
    if missing <= 0 or PADDED_HEADS % num_heads or not num_tokens or not q_all.is_contiguous():
        return None
    end = q_all.storage_offset() + q_all.numel() + missing * width
    if end * q_all.element_size() > q_all.untyped_storage().nbytes():
        return None
    return q_all.as_strided((num_tokens, PADDED_HEADS, width), (num_heads * width, width, 1))


@cache
def _is_hopper(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device)[0] == 9


def concat_with_room(original, q_nope, q_rope):
    """In place of upstream's `concat_mla_absorb_q_general`, for queries that need padding."""
    num_heads = q_nope.shape[1] if q_nope.dim() == 3 else PADDED_HEADS
    if (
        not q_nope.is_cuda
        or not _is_hopper(q_nope.device)
        or not 0 < num_heads < PADDED_HEADS
        or (q_nope.shape[-1], q_rope.shape[-1]) != (LATENT, ROPE)
        or q_rope.shape[:2] != q_nope.shape[:2]
        or (q_nope.stride(2), q_rope.stride(2)) != (1, 1)
    ):
        return original(q_nope, q_rope)
    return with_room(q_nope, q_rope)


def attend_without_copies(original, backend, q_all, *args, attn_sink=None, **kwargs):
    """In place of upstream's `_forward_flashmla_sparse`; calls it with heads to its liking."""
    wide = None
    # A sink is of a head, and would have to be padded; other GPUs pad to other numbers.
    if attn_sink is None and backend.device_sm_major == 9:
        wide = overlapping(q_all)
    if wide is None:
        return original(backend, q_all, *args, attn_sink=attn_sink, **kwargs)
    return original(backend, wide, *args, **kwargs)[:, : q_all.shape[1]]
