"""Multi-head latent attention with a lightning indexer, in plain torch, for training.

Legend: B = sequences, L = tokens of each, H = heads, R = query rows sampled for an indexer's loss.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sglang_ic.demo.shape import DsaShape
from sglang_ic.demo.train.losses import indexer_kl
from sglang_ic.demo.train.selection import random_mask, selection_mask

# A layer's role: no selection at all, its own, the last Full layer's, or an arbitrary one.
DENSE, FULL, SHARED, RANDOM = "DFSR"

ROPE_THETA = 1e6
RMS_EPS = 1e-6


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Interleaved RoPE of the last dimension of x [..., L, dim]; `rope` is from `rope_table`."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = rope
    return torch.cat([even * cos - odd * sin, odd * cos + even * sin], dim=-1)


def rope_table(length: int, dim: int, device: torch.device) -> Tensor:
    """Cosines and sines, [2, L, dim / 2], in the dtype that matrix products have."""
    frequencies = ROPE_THETA ** (-torch.arange(0, dim, 2, device=device).float() / dim)
    angles = torch.arange(length, device=device).float()[:, None] * frequencies
    table = torch.stack([angles.cos(), angles.sin()])
    kind = device.type
    return table.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else table


class Indexer(nn.Module):
    """The lightning indexer; sees its inputs detached, so only its own loss trains it."""

    def __init__(self, shape: DsaShape):
        super().__init__()
        self.num_heads = shape.num_gated_index_heads or shape.index_n_heads
        self.head_dim, self.rope_dim = shape.index_head_dim, shape.qk_rope_head_dim
        # As inference scales them: by all heads, also those without a gate.
        self.scale = self.head_dim**-0.5 * shape.index_n_heads**-0.5
        self.wq_b = nn.Linear(shape.q_lora_rank, self.num_heads * self.head_dim, bias=False)
        self.wk = nn.Linear(shape.hidden_size, self.head_dim, bias=False)
        self.k_norm = nn.LayerNorm(self.head_dim, eps=1e-6)
        self.weights_proj = nn.Linear(shape.hidden_size, self.num_heads, bias=False)

    def project(self, x: Tensor, q_resid: Tensor, rope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, H, L, D], keys [B, L, D] and gates [B, H, L] (scales included)."""
        x, q_resid = x.detach(), q_resid.detach()
        q = self.wq_b(q_resid).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
        k = self.k_norm(self.wk(x))
        q = torch.cat([rotate(q[..., : self.rope_dim], rope), q[..., self.rope_dim :]], dim=-1)
        k = torch.cat([rotate(k[..., : self.rope_dim], rope), k[..., self.rope_dim :]], dim=-1)
        return q, k, self.weights_proj(x).transpose(1, 2).float() * self.scale


class Attention(nn.Module):
    """Multi-head latent attention, keys and values expanded."""

    def __init__(self, shape: DsaShape):
        super().__init__()
        self.shape = shape
        self.q_a_proj = nn.Linear(shape.hidden_size, shape.q_lora_rank, bias=False)
        self.q_a_layernorm = nn.RMSNorm(shape.q_lora_rank, eps=RMS_EPS)
        self.q_b_proj = nn.Linear(
            shape.q_lora_rank, shape.num_heads * shape.qk_head_dim, bias=False
        )
        kv_a_out = shape.kv_lora_rank + shape.qk_rope_head_dim
        self.kv_a_proj_with_mqa = nn.Linear(shape.hidden_size, kv_a_out, bias=False)
        self.kv_a_layernorm = nn.RMSNorm(shape.kv_lora_rank, eps=RMS_EPS)
        kv_b_out = shape.num_heads * (shape.qk_nope_head_dim + shape.v_head_dim)
        self.kv_b_proj = nn.Linear(shape.kv_lora_rank, kv_b_out, bias=False)
        self.o_proj = nn.Linear(shape.num_heads * shape.v_head_dim, shape.hidden_size, bias=False)
        self.indexer = Indexer(shape)

    def project(self, x: Tensor, rope: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q and k [B, H, L, qk_head_dim], v [B, H, L, v_head_dim], q_resid [B, L, q_lora_rank]."""
        s = self.shape
        q_resid = self.q_a_layernorm(self.q_a_proj(x))
        q = self.q_b_proj(q_resid).unflatten(-1, (s.num_heads, s.qk_head_dim)).transpose(1, 2)
        q_nope, q_rope = q.split([s.qk_nope_head_dim, s.qk_rope_head_dim], dim=-1)
        latent, k_rope = self.kv_a_proj_with_mqa(x).split(
            [s.kv_lora_rank, s.qk_rope_head_dim], dim=-1
        )
        kv = self.kv_b_proj(self.kv_a_layernorm(latent))
        kv = kv.unflatten(-1, (s.num_heads, -1)).transpose(1, 2)
        k_nope, v = kv.split([s.qk_nope_head_dim, s.v_head_dim], dim=-1)
        k_rope = rotate(k_rope, rope)[:, None].expand(-1, s.num_heads, -1, -1)
        q = torch.cat([q_nope, rotate(q_rope, rope)], dim=-1)
        return q, torch.cat([k_nope, k_rope], dim=-1), v, q_resid

    def forward(
        self, x: Tensor, rope: Tensor, role: str, mask: Tensor | None, rows: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """One layer's attention in its role.

        Args:
            x: [B, L, hidden].
            role: `DENSE`, `FULL`, `SHARED` or `RANDOM`.
            mask: what the last Full layer selected, [B, L, L] bool.
            rows: [R] query positions for the indexer's loss, or None.

        Returns:
            output [B, L, hidden], the mask that was used (None: dense), and the loss (or None).
        """
        q, k, v, q_resid = self.project(x, rope)
        topk = self.shape.index_topk
        index = None
        if role == FULL or rows is not None:
            index = self.indexer.project(x, q_resid, rope)
        if role == FULL:
            mask = selection_mask(*index, topk=topk)
        elif role == RANDOM:
            mask = random_mask(*x.shape[:2], topk=topk, device=x.device)
        elif role == DENSE:
            mask = None
        loss = None if rows is None else indexer_kl(q.detach(), k.detach(), *index, rows, mask)
        out = attend(q, k, v, mask).transpose(1, 2).flatten(2)
        return self.o_proj(out), mask, loss


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax attention [B, H, L, v_head_dim]; `mask` [B, L, L] is True where a query may look."""
    if mask is not None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None])
    # The flash kernel wants values as wide as keys.
    padded = F.pad(v, (0, k.shape[-1] - v.shape[-1]))
    return F.scaled_dot_product_attention(q, k, padded, is_causal=True)[..., : v.shape[-1]]
