"""Sparse attention for 8, 16 or 32 heads a rank: no head is padded, no query copied.

FlashMLA's sparse prefill has the heads as the 64 rows of a product, so a rank with fewer pads them:
copies, and products for nothing. Here the keys are the rows and the heads the columns, of which a
product of a warp group takes any multiple of 8. The queries come in their two parts, as upstream's
projections leave them, and are not put together.

Products of bf16 add up in fp32, and probabilities are rounded to bf16 before they meet the values,
as in FlashMLA; in another order, so outputs differ from its by rounding. Always the same output.

# T = tokens, H = heads of this rank, S = rows of the KV cache, K = width of the selection
"""

from __future__ import annotations

import math

import torch

from sglang_ic.hopper.attention_kernel import sparse_attention_kernel

LATENT, ROPE = 512, 64  # of a query and of a key: the absorbed part, which is the value, and RoPE's
HEADS = (8, 16, 32)
UNIT = 8  # numbers that a thread copies at a time: 16 bytes, which divide every address
BLOCK_K = 64


def takes(
    q_nope: torch.Tensor,
    q_rope: torch.Tensor,
    kv: torch.Tensor,
    selected: torch.Tensor,
    lengths: torch.Tensor | None = None,
) -> bool:
    """Does `attend` know arguments of these shapes, types, strides and addresses?"""
    num_tokens, num_heads = q_nope.shape[:2]
    return (
        num_heads in HEADS
        and q_nope.shape == (num_tokens, num_heads, LATENT)
        and q_rope.shape == (num_tokens, num_heads, ROPE)
        and kv.shape in ((len(kv), LATENT + ROPE), (len(kv), 1, LATENT + ROPE))
        and len(kv) > 0
        and selected.dim() == 2
        and len(selected) == num_tokens
        and all(t.dtype == torch.bfloat16 and t.data_ptr() % 16 == 0 for t in (q_nope, q_rope, kv))
        and all(t.stride(2) == 1 for t in (q_nope, q_rope))
        and all(step % UNIT == 0 for t in (q_nope, q_rope) for step in t.stride()[:2])
        and kv.is_contiguous()
        and _are_numbers(selected)
        and (lengths is None or lengths.shape == (num_tokens,) and _are_numbers(lengths))
    )


def _are_numbers(tensor: torch.Tensor) -> bool:
    return tensor.dtype == torch.int32 and tensor.is_contiguous()


def inputs(q_nope, q_rope, kv, selected, scale, lengths) -> tuple:
    """What the kernels read, in the order of their first arguments; see `attend`."""
    return (
        q_nope,
        *(step // UNIT for step in q_nope.stride()[:2]),
        q_rope,
        *(step // UNIT for step in q_rope.stride()[:2]),
        kv,
        len(kv),
        selected,
        selected if lengths is None else lengths,
        scale * math.log2(math.e),
    )


def sizes(num_heads: int, selected: torch.Tensor) -> dict[str, int]:
    """What the kernels are compiled for."""
    shape = {"K": selected.shape[1], "H": num_heads, "LATENT": LATENT, "ROPE": ROPE}
    return {**shape, "UNIT": UNIT, "BLOCK_K": BLOCK_K}


def attend(
    q_nope: torch.Tensor,
    q_rope: torch.Tensor,
    kv: torch.Tensor,
    selected: torch.Tensor,
    scale: float,
    lengths: torch.Tensor | None = None,
) -> torch.Tensor:
    """What each head of a token gets from the keys that the token selected.

    Args:
        q_nope: [T, H, 512] bf16, q_rope: [T, H, 64] bf16; H of HEADS. Strides are multiples of 8
            but for the last, which is 1; addresses are multiples of 16 bytes, as kv's.
        kv: [S, 576] or [S, 1, 576] bf16, contiguous; the first 512 numbers are the value.
        selected: [T, K] int32, contiguous, rows of kv; what is no row of it, like -1, is left out.
        scale: of scores, positive.
        lengths: [T] int32, how many of a row of `selected` count; K where it is more, and None.
    Returns:
        [T, H, 512] bf16; zeros for a token without keys.
    """
    assert takes(q_nope, q_rope, kv, selected, lengths)
    num_tokens, num_heads, _ = q_nope.shape
    out = q_nope.new_empty((num_tokens, num_heads, LATENT))
    if num_tokens:
        sparse_attention_kernel[(num_tokens,)](
            *inputs(q_nope, q_rope, kv, selected, scale, lengths),
            out,
            **sizes(num_heads, selected),
            HAS_LENGTHS=lengths is not None,
            num_warps=4,
        )
    return out
