"""A model small enough to train in a test: same parts, 3 layers, 16 tokens selected."""

import dataclasses

import pytest
import torch

from sglang_ic.demo.documents.bpe import VOCAB_SIZE
from sglang_ic.demo.train.model import Model
from sglang_ic.demo.train.recipe import SHAPE

SMALL = dataclasses.replace(
    SHAPE,
    num_layers=3,
    index_topk=16,
    hidden_size=64,
    num_heads=2,
    q_lora_rank=32,
    kv_lora_rank=32,
    qk_rope_head_dim=16,
    qk_nope_head_dim=16,
    v_head_dim=16,
    index_n_heads=8,
    num_gated_index_heads=4,
    intermediate_size=64,
    moe_intermediate_size=16,
)


@pytest.fixture
def shape():
    return SMALL


@pytest.fixture
def model():
    """Random, rounded to bf16 as a checkpoint holds it; norms and router biases off their start."""
    torch.manual_seed(0)
    model = Model(SMALL, VOCAB_SIZE)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
        parameter.data = parameter.data.to(torch.bfloat16).float()
    for layer in model.layers[SMALL.num_dense_layers :]:
        layer.mlp.e_score_correction_bias.copy_(0.1 * torch.randn(SMALL.num_experts))
    return model.eval()


@pytest.fixture
def ids():
    """[1, 20 x index_topk]."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(6, VOCAB_SIZE, (1, 20 * SMALL.index_topk), generator=generator)
