"""The sizes of the bundled or a test checkpoint and the config.json they make. No torch here."""

from dataclasses import dataclass

from sglang_ic.demo import vocabulary

MODEL_TYPES = {
    "GlmMoeDsaForCausalLM": "glm_moe_dsa",
    "DeepseekV32ForCausalLM": "deepseek_v32",
}


@dataclass(frozen=True)
class DsaShape:
    """Every size of a checkpoint; `num_dense_layers` layers come before the experts start."""

    architecture: str
    num_layers: int
    index_topk: int
    kv_lora_rank: int
    index_n_heads: int
    hidden_size: int = 256
    num_heads: int = 4
    q_lora_rank: int = 128
    qk_nope_head_dim: int = 64
    qk_rope_head_dim: int = 64
    v_head_dim: int = 128
    index_head_dim: int = 128  # asserted by SGLang
    # Index heads whose gate is not zero; None for all. A zero gate adds nothing to a score, so the
    # others only pad the head count to one that GPU kernels take.
    num_gated_index_heads: int | None = None
    intermediate_size: int = 512
    moe_intermediate_size: int = 64
    num_experts: int = 8
    num_experts_per_token: int = 2
    num_dense_layers: int = 1
    max_position_embeddings: int = 65536

    def __post_init__(self) -> None:
        if self.architecture not in MODEL_TYPES:
            raise ValueError(
                f"architecture {self.architecture!r}: use one of {', '.join(MODEL_TYPES)}"
            )
        if not 0 <= self.num_dense_layers <= self.num_layers or self.num_layers < 1:
            raise ValueError(f"num_layers must be at least 1 and num_dense_layers; got {self}")

    @property
    def is_glm(self) -> bool:
        return self.architecture == "GlmMoeDsaForCausalLM"

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim


def config_dict(shape: DsaShape) -> dict:
    """The content of config.json, readable by transformers 5.17 and 5.19 and by SGLang 0.5.23.

    `layer_types` and `indexer_types` are left out: releases of transformers disagree on the former,
    and the latter would decide a sharing pattern here.
    """
    config = {
        "architectures": [shape.architecture],
        "model_type": MODEL_TYPES[shape.architecture],
        "dtype": "bfloat16",
        "vocab_size": vocabulary.VOCAB_SIZE,
        "bos_token_id": vocabulary.BOS_ID,
        "eos_token_id": vocabulary.EOS_ID,
        "pad_token_id": vocabulary.PAD_ID,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_heads,
        "q_lora_rank": shape.q_lora_rank,
        "kv_lora_rank": shape.kv_lora_rank,
        "qk_nope_head_dim": shape.qk_nope_head_dim,
        "qk_rope_head_dim": shape.qk_rope_head_dim,
        "v_head_dim": shape.v_head_dim,
        "index_topk": shape.index_topk,
        "index_n_heads": shape.index_n_heads,
        "index_head_dim": shape.index_head_dim,
        "intermediate_size": shape.intermediate_size,
        "moe_intermediate_size": shape.moe_intermediate_size,
        "first_k_dense_replace": shape.num_dense_layers,
        "moe_layer_freq": 1,
        "n_routed_experts": shape.num_experts,
        "num_experts": shape.num_experts,  # SGLang reads this name, transformers the one above
        "n_shared_experts": 1,
        "num_experts_per_tok": shape.num_experts_per_token,
        # V3.2 routes within groups of experts, GLM does not.
        "n_group": 1 if shape.is_glm else 2,
        "topk_group": 1,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.5,
        "num_nextn_predict_layers": 0,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
        "max_position_embeddings": shape.max_position_embeddings,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        "use_cache": True,
    }
    if shape.is_glm:
        # transformers always rotates GLM's indexer in interleaved pairs; SGLang does so only when
        # told. V3.2's indexer is half-split in both, which is SGLang's default.
        config["indexer_rope_interleave"] = True
    return config
