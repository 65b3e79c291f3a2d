"""Upstream's sparse prefill with its queries left in two parts, for `attention.attend`.

`DeepseekSparseAttnBackend.forward_extend` concatenates the parts of its queries and gives them to
`_forward_flashmla_sparse`. While it runs for a call that goes there, the concatenation returns the
parts instead. Between the two (read at SGLang 0.5.23) nothing touches the queries: on the path of
flashmla_sparse `q_all` is assigned in the line before the branch for triton_sparse_mla, and handed
to `_forward_flashmla_sparse` in the one after it; no other concatenation of the method runs, and
none in what it calls. Decode concatenates by the same function, outside of it: no mark, no parts.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

import torch

from sglang_ic.hopper import attention
from sglang_ic.hopper.marks import marked

_in_parts: ContextVar[bool] = ContextVar("queries stay in parts", default=False)


@dataclass(frozen=True, eq=False)
class QueryParts:
    """Queries that upstream would have in one tensor.

    Attributes:
        q_nope: [T, H, 512], q_rope: [T, H, 64].
        concat: upstream's function that puts them together.
    """

    q_nope: torch.Tensor
    q_rope: torch.Tensor
    concat: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

    def whole(self) -> torch.Tensor:
        return self.concat(self.q_nope, self.q_rope)


def extend_with_parts(original, backend, q, k, v, layer, forward_batch, *args, **kwargs):
    """Around upstream's `forward_extend`: mark calls whose queries may stay in parts."""
    mode, q_rope = forward_batch.forward_mode, kwargs.get("q_rope")
    stay = (
        backend.device_sm_major == 9
        and backend.dsa_prefill_impl == "flashmla_sparse"
        and varies_anyway(backend)
        and not backend.use_mha
        and backend.dsa_index_kpool <= 1
        and not mode.is_target_verify()
        and not mode.is_draft_extend_v2()
        and kwargs.get("attn_sink") is None
        and layer.tp_q_head_num in attention.HEADS
        and q_rope is not None
        and q.dtype == q_rope.dtype == torch.bfloat16
    )
    with marked(_in_parts, stay):
        return original(backend, q, k, v, layer, forward_batch, *args, **kwargs)


def varies_anyway(backend) -> bool:
    """Does upstream itself, with these flags, not repeat its answers bit for bit?

    Its fused top-k takes equal scores as they come, and any order of what it selects. Where a user
    chose what repeats itself, the fork gives upstream's bits, and so upstream's kernel.
    """
    return (
        backend.use_fused_topk
        and backend.dsa_topk_backend.is_sgl_kernel()
        and backend.num_splits != 1  # which stands for --enable-deterministic-inference
    )


def keep_parts(original, q_nope, q_rope):
    """In place of upstream's `concat_mla_absorb_q_general`: nothing is copied in marked calls."""
    if _in_parts.get():
        return QueryParts(q_nope, q_rope, original)
    return original(q_nope, q_rope)


def attend_to_parts(
    original,
    backend,
    q_all,
    kv_cache,
    v_head_dim,
    page_table_1,
    sm_scale,
    topk_length=None,
    attn_sink=None,
):
    """In place of upstream's `_forward_flashmla_sparse`, which runs where `attend` cannot."""
    if isinstance(q_all, QueryParts):
        nope, rope = q_all.q_nope, q_all.q_rope
        lengths = topk_length
        if lengths is not None and len(lengths) != len(nope):
            lengths = None  # as upstream: rows that do not match are read as wide as they are
        if (
            attn_sink is None
            and v_head_dim == attention.LATENT
            and attention.takes(nope, rope, kv_cache, page_table_1, lengths)
        ):
            return attention.attend(nope, rope, kv_cache, page_table_1, sm_scale, lengths)
        q_all = q_all.whole()
    return original(
        backend,
        q_all=q_all,
        kv_cache=kv_cache,
        v_head_dim=v_head_dim,
        page_table_1=page_table_1,
        sm_scale=sm_scale,
        topk_length=topk_length,
        attn_sink=attn_sink,
    )
