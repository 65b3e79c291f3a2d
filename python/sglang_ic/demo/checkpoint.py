"""Writes DSA checkpoints with random weights, for tests.

Each tensor is drawn from a generator seeded with its own name, so leaving some out
(`drop_indexer_layers`) or adding layers changes no other tensor, and the result does not depend on
transformers' initialisers. Values are rounded to bf16 and stored so: half the size, and a server or
a reference that runs in fp32 starts from exactly the same numbers.

Scales are chosen by measurement. Random weights select tokens unrelated to what the attention
wants, so with unit gains everywhere one near-tie at the k-th place changes the layer's output
enough to flip more of them further up, and rounding errors grow to whole nats. With the gains
below, noise of 1e-6 on the embeddings stays near 1e-6 in the log-probabilities (16 layers, top-k
128, 768 tokens), while another sharing pattern moves them by 0.4 and changes a third of the greedy
tokens. Norm weights and biases are away from 1 and 0, so that an engine which forgets one is
caught. Linear weights are [out_features, in_features].
"""

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from sglang_ic.demo import vocabulary
from sglang_ic.demo.shape import DsaShape, config_dict
from sglang_ic.demo.tokenizer import write_tokenizer

_BRANCH_GAIN = 0.25  # what attention and MLP add to the residual stream, see above


@dataclass(frozen=True)
class _Init:
    """How to draw one tensor: `mean + std * normal`."""

    shape: tuple[int, ...]
    std: float
    mean: float = 0.0
    dtype: torch.dtype = torch.bfloat16


def _linear(out_features: int, in_features: int, gain: float = 1.0) -> _Init:
    return _Init((out_features, in_features), gain / in_features**0.5)


def _norm(size: int) -> _Init:
    return _Init((size,), std=0.1, mean=1.0)


def _mlp(prefix: str, hidden: int, inner: int) -> Iterator[tuple[str, _Init]]:
    yield f"{prefix}.gate_proj.weight", _linear(inner, hidden)
    yield f"{prefix}.up_proj.weight", _linear(inner, hidden)
    yield f"{prefix}.down_proj.weight", _linear(hidden, inner, gain=_BRANCH_GAIN)


def _layer(shape: DsaShape, layer: int, has_indexer: bool) -> Iterator[tuple[str, _Init]]:
    prefix, hidden = f"model.layers.{layer}", shape.hidden_size
    attn, mlp, indexer = f"{prefix}.self_attn", f"{prefix}.mlp", f"{prefix}.self_attn.indexer"
    kv_b_out = shape.num_heads * (shape.qk_nope_head_dim + shape.v_head_dim)
    index_out = shape.index_n_heads * shape.index_head_dim

    yield f"{prefix}.input_layernorm.weight", _norm(hidden)
    yield f"{prefix}.post_attention_layernorm.weight", _norm(hidden)
    yield f"{attn}.q_a_proj.weight", _linear(shape.q_lora_rank, hidden)
    yield f"{attn}.q_a_layernorm.weight", _norm(shape.q_lora_rank)
    q_b_out = shape.num_heads * shape.qk_head_dim
    yield f"{attn}.q_b_proj.weight", _linear(q_b_out, shape.q_lora_rank)
    kv_a_out = shape.kv_lora_rank + shape.qk_rope_head_dim
    yield f"{attn}.kv_a_proj_with_mqa.weight", _linear(kv_a_out, hidden)
    yield f"{attn}.kv_a_layernorm.weight", _norm(shape.kv_lora_rank)
    yield f"{attn}.kv_b_proj.weight", _linear(kv_b_out, shape.kv_lora_rank)
    o_in = shape.num_heads * shape.v_head_dim
    yield f"{attn}.o_proj.weight", _linear(hidden, o_in, gain=_BRANCH_GAIN)
    if has_indexer:
        yield f"{indexer}.wq_b.weight", _linear(index_out, shape.q_lora_rank)
        yield f"{indexer}.wk.weight", _linear(shape.index_head_dim, hidden)
        yield f"{indexer}.k_norm.weight", _norm(shape.index_head_dim)
        yield f"{indexer}.k_norm.bias", _Init((shape.index_head_dim,), std=0.1)
        # SGLang holds this one in bf16 whatever the server's dtype is.
        yield f"{indexer}.weights_proj.weight", _linear(shape.index_n_heads, hidden)
    if layer < shape.num_dense_layers:
        yield from _mlp(mlp, hidden, shape.intermediate_size)
        return
    yield f"{mlp}.gate.weight", _linear(shape.num_experts, hidden)
    # Both engines keep the correction bias in fp32.
    bias = _Init((shape.num_experts,), std=0.05, dtype=torch.float32)
    yield f"{mlp}.gate.e_score_correction_bias", bias
    for expert in range(shape.num_experts):
        yield from _mlp(f"{mlp}.experts.{expert}", hidden, shape.moe_intermediate_size)
    yield from _mlp(f"{mlp}.shared_experts", hidden, shape.moe_intermediate_size)


def _recipe(shape: DsaShape, drop_indexer_layers: Collection[int]) -> Iterator[tuple[str, _Init]]:
    vocab, hidden = vocabulary.VOCAB_SIZE, shape.hidden_size
    yield "model.embed_tokens.weight", _Init((vocab, hidden), std=1.0)
    for layer in range(shape.num_layers):
        yield from _layer(shape, layer, has_indexer=layer not in drop_indexer_layers)
    yield "model.norm.weight", _norm(hidden)
    yield "lm_head.weight", _linear(vocab, hidden, gain=2.0)


def _draw(name: str, init: _Init, seed: int) -> torch.Tensor:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    value = torch.randn(init.shape, generator=generator, dtype=torch.float32)
    value = value * init.std + init.mean
    return value.to(init.dtype)


def make_tensors(
    shape: DsaShape, *, seed: int, drop_indexer_layers: Collection[int] = ()
) -> dict[str, torch.Tensor]:
    """All weights by checkpoint name; `drop_indexer_layers` get no `indexer.*` tensors.

    Raises:
        ValueError: a layer to drop does not exist.
    """
    if unknown := sorted(set(drop_indexer_layers) - set(range(shape.num_layers))):
        raise ValueError(
            f"drop_indexer_layers names layers {unknown}; use 0..{shape.num_layers - 1}"
        )
    return {name: _draw(name, init, seed) for name, init in _recipe(shape, drop_indexer_layers)}


def write(
    directory: Path, shape: DsaShape, *, seed: int, drop_indexer_layers: Collection[int] = ()
) -> None:
    """Write a whole checkpoint, tokenizer included, into `directory`, which is made if needed."""
    tensors = make_tensors(shape, seed=seed, drop_indexer_layers=drop_indexer_layers)
    directory.mkdir(parents=True, exist_ok=True)
    generation = {
        "bos_token_id": vocabulary.BOS_ID,
        "eos_token_id": vocabulary.EOS_ID,
        "pad_token_id": vocabulary.PAD_ID,
        "do_sample": False,
    }
    for name, content in (
        ("config.json", config_dict(shape)),
        ("generation_config.json", generation),
    ):
        (directory / name).write_text(json.dumps(content, indent=2) + "\n")
    write_tokenizer(directory, max_length=shape.max_position_embeddings)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
