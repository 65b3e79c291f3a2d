"""GLM-MoE-DSA in plain torch, for training: dense or sparse attention, and losses for the indexers.

transformers' own class cannot train indexers: they run without gradients there. Parameter names
are a checkpoint's, but for experts (one stacked matrix) and index heads (only those with a gate);
`export.py` undoes both. A test holds the logits against transformers'.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sglang_ic.demo.shape import DsaShape
from sglang_ic.demo.train.attention import RMS_EPS, Attention, rope_table

ROUTED_SCALING = 1.5  # as demo/shape.py writes it into config.json


class Mlp(nn.Module):
    def __init__(self, hidden: int, inner: int):
        super().__init__()
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Tensor, gates: Tensor | None = None) -> Tensor:
        inner = F.silu(self.gate_proj(x)) * self.up_proj(x)
        if gates is not None:  # [..., experts]: each scales its own slice of the inner units
            inner = (inner.unflatten(-1, (gates.shape[-1], -1)) * gates[..., None]).flatten(-2)
        return self.down_proj(inner)


class Moe(nn.Module):
    """All experts run, as one wide MLP: they are few and small; gates of the unchosen are 0."""

    def __init__(self, shape: DsaShape):
        super().__init__()
        self.top_k, self.num_experts = shape.num_experts_per_token, shape.num_experts
        self.gate = nn.Linear(shape.hidden_size, shape.num_experts, bias=False)
        self.e_score_correction_bias = nn.Buffer(torch.zeros(shape.num_experts))
        self.experts = Mlp(shape.hidden_size, shape.num_experts * shape.moe_intermediate_size)
        self.shared_experts = Mlp(shape.hidden_size, shape.moe_intermediate_size)
        self.load = nn.Buffer(torch.zeros(shape.num_experts), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            scores = F.linear(x.float(), self.gate.weight).sigmoid()
        chosen = (scores + self.e_score_correction_bias).topk(self.top_k, dim=-1).indices
        mask = torch.zeros_like(scores).scatter_(-1, chosen, 1.0)
        gates = scores * mask
        gates = gates / gates.sum(-1, keepdim=True) * ROUTED_SCALING
        if self.training:
            self.load += mask.flatten(0, -2).mean(0)
        return self.experts(x, gates.to(x.dtype)) + self.shared_experts(x)

    @torch.no_grad()
    def balance(self, rate: float) -> None:
        """Move the choice towards experts used less (no loss term: DeepSeek-V3's method)."""
        self.e_score_correction_bias += rate * (self.load.mean() - self.load).sign()
        self.load.zero_()


class Layer(nn.Module):
    def __init__(self, shape: DsaShape, index: int):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, eps=RMS_EPS)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, eps=RMS_EPS)
        dense = index < shape.num_dense_layers
        self.mlp = Mlp(shape.hidden_size, shape.intermediate_size) if dense else Moe(shape)

    def forward(self, h: Tensor, *attention_args) -> tuple[Tensor, Tensor | None, Tensor | None]:
        out, mask, loss = self.self_attn(self.input_layernorm(h), *attention_args)
        h = h + out
        return h + self.mlp(self.post_attention_layernorm(h)), mask, loss


class Model(nn.Module):
    """Token ids [B, L] to logits [B, L, vocab], plus one indexer loss per layer if asked."""

    def __init__(self, shape: DsaShape, vocab_size: int):
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape, i) for i in range(shape.num_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, eps=RMS_EPS)
        self.lm_head = nn.Linear(shape.hidden_size, vocab_size, bias=False)
        self.apply(_initialise)
        for layer in self.layers:  # branches start small: 2 of them per layer add up
            for branch in (layer.self_attn.o_proj, *_down_projections(layer.mlp)):
                branch.weight.data *= (2 * shape.num_layers) ** -0.5

    def forward(
        self, input_ids: Tensor, *, roles: str, rows: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """`roles`: one letter per layer, or one for all of them."""
        roles = roles * len(self.layers) if len(roles) == 1 else roles
        rope = rope_table(input_ids.shape[1], self.shape.qk_rope_head_dim, input_ids.device)
        h, mask, losses = self.embed_tokens(input_ids), None, []
        for layer, role in zip(self.layers, roles, strict=True):
            h, mask, loss = layer(h, rope, role, mask, rows)
            if loss is not None:
                losses.append(loss)
        return self.lm_head(self.norm(h)), losses

    def indexer_parameters(self) -> list[nn.Parameter]:
        return [p for name, p in self.named_parameters() if ".indexer." in name]


def _down_projections(mlp: nn.Module) -> list[nn.Linear]:
    return [m.down_proj for m in mlp.modules() if isinstance(m, Mlp)]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=module.in_features**-0.5)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.5)
