"""Sparse attention of a decode step: the 2,048 keys of a token dealt to many programs.

Upstream decodes bf16 KV with FlashAttention 3, which plans its work anew in every layer, gives few
programs to few tokens and then combines what they found. Here the work is known: every token has as
many keys as it selected. Products and roundings as in ``attention``; sums in another order than
FlashAttention's, so outputs differ from its by rounding. Always the same output for a batch size.

# T = tokens, H = heads of this rank, S = rows of the KV cache, K = width of the selection
"""

from __future__ import annotations

from contextvars import ContextVar
from functools import cache

import torch

from sglang_ic.hopper import attention
from sglang_ic.hopper.attention import BLOCK_K, LATENT
from sglang_ic.hopper.attention_hooks import varies_anyway
from sglang_ic.hopper.decode_attention_kernel import attend_to_split_kernel, combine_splits_kernel
from sglang_ic.hopper.marks import marked

_decoding: ContextVar[bool] = ContextVar("a decode step attends", default=False)

MOST_TOKENS = 8  # of a step: with 16 FlashAttention was faster
COMBINED = 128  # numbers of a head that a program combines


@cache
def _num_multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def keys_of_split(num_tokens: int, width: int, num_programs: int) -> int:
    """How many keys a program takes, so that about `num_programs` of them have all.

    A power of two of tiles, so that few kernels are compiled.
    """
    tiles = -(-width // BLOCK_K)
    wanted = max(1, -(-tiles * num_tokens // num_programs))
    return BLOCK_K << (wanted - 1).bit_length()


def attend(
    q_nope: torch.Tensor,
    q_rope: torch.Tensor,
    kv: torch.Tensor,
    selected: torch.Tensor,
    scale: float,
    lengths: torch.Tensor,
    num_programs: int | None = None,
) -> torch.Tensor:
    """As ``attention.attend``, for a few tokens; `num_programs` is the GPU's if None."""
    assert attention.takes(q_nope, q_rope, kv, selected, lengths)
    num_tokens, num_heads, _ = q_nope.shape
    out = q_nope.new_empty((num_tokens, num_heads, LATENT))
    if not num_tokens:
        return out
    width = selected.shape[1]
    split = keys_of_split(num_tokens, width, num_programs or _num_multiprocessors(kv.device))
    num_splits = -(-width // split)
    new = q_nope.new_empty
    mixed = new((num_tokens, num_splits, num_heads, LATENT), dtype=torch.float32)
    stats = new((num_tokens, num_splits, 2, num_heads), dtype=torch.float32)
    attend_to_split_kernel[(num_splits, num_tokens)](
        *attention.inputs(q_nope, q_rope, kv, selected, scale, lengths),
        mixed,
        stats,
        **attention.sizes(num_heads, selected),
        SPLIT=split,
        NUM_SPLITS=num_splits,
        num_warps=4,
        num_stages=2,
    )
    combine_splits_kernel[(LATENT // COMBINED, num_heads, num_tokens)](
        mixed,
        stats,
        out,
        H=num_heads,
        LATENT=LATENT,
        BLOCK=COMBINED,
        NUM_SPLITS=num_splits,
        SPLITS=1 << (num_splits - 1).bit_length(),
        num_warps=4,
    )
    return out


def mark_decode(original, backend, *args, **kwargs):
    """Around upstream's `forward_decode`: verify passes and prefill call `_forward_fa3` too."""
    with marked(_decoding):
        return original(backend, *args, **kwargs)


def decode_in_splits(original, backend, *args, **kwargs):
    """In place of upstream's `_forward_fa3`, which runs where `attend` cannot.

    Upstream makes every query a sequence of its own (`max_seqlen_q` 1) whose pages hold one token.
    """
    if _decoding.get() and not args and _knows(backend, kwargs):
        nope, rope, selected = (kwargs[name] for name in ("q_nope", "q_rope", "page_table"))
        # As upstream: lengths may be padded behind the queries that there are.
        lengths, kv = kwargs["cache_seqlens"][: len(nope)], kwargs["kv_cache"]
        if attention.takes(nope, rope, kv, selected, lengths):
            return attend(nope, rope, kv, selected, kwargs["sm_scale"], lengths)
    return original(backend, *args, **kwargs)


def _knows(backend, given: dict) -> bool:
    nope, rope = given["q_nope"], given["q_rope"]
    return (
        given["page_size"] == given["max_seqlen_q"] == 1
        and given["v_head_dim"] == LATENT
        and given["logit_cap"] == 0
        and nope.dim() == rope.dim() == 3
        and len(nope) <= MOST_TOKENS
        and backend.dsa_index_kpool <= 1
        and varies_anyway(backend)
    )
