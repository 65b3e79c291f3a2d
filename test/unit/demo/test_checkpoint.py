"""The checkpoints load in transformers as they are, and are worth comparing engines on."""

import json

import pytest
import torch
from safetensors.torch import load_file

from sglang_ic.demo import default_pattern_file
from sglang_ic.demo.make_model import SHAPE
from sglang_ic.demo.shape import DsaShape, config_dict
from sglang_ic.demo.tiny import write_checkpoint

ARCHITECTURES = ["GlmMoeDsaForCausalLM", "DeepseekV32ForCausalLM"]


def _clean(report) -> bool:
    return not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


@pytest.fixture(scope="module")
def model(demo_model, load):
    model, report = load(demo_model)
    assert _clean(report), report
    return model


@torch.no_grad()
def _log_probs(model, **inputs):
    return model(**inputs).logits[0].log_softmax(-1)


def test_demo_model_holds_no_degenerate_parameter(model):
    for name, parameter in [*model.named_parameters(), *model.named_buffers()]:
        assert parameter.isfinite().all(), name
        if "inv_freq" not in name:
            assert parameter.std() > 1e-3, name


def test_demo_model_keeps_upstream_kernel_limits():
    assert SHAPE.index_n_heads in (32, 64), "DeepGEMM's index scores on Hopper"
    assert SHAPE.index_head_dim == 128 and SHAPE.index_topk % 128 == 0
    assert (SHAPE.kv_lora_rank, SHAPE.qk_rope_head_dim) == (512, 64) and 64 % SHAPE.num_heads == 0
    assert SHAPE.qk_head_dim == SHAPE.v_head_dim, "FlashAttention 3, prompts within the top-k"
    assert SHAPE.max_position_embeddings >= 32768


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_config_leaves_the_pattern_and_layer_types_open(architecture):
    config = config_dict(DsaShape(architecture, 8, 32, 64, 4))
    assert not {"layer_types", "indexer_types", "index_topk_freq"} & set(config)
    assert config["num_experts"] == config["n_routed_experts"]
    assert {"moe_layer_freq", "topk_method", "scoring_func"} <= set(config)
    assert config.get("indexer_rope_interleave", False) == (architecture == ARCHITECTURES[0])


def test_weights_are_exact_in_bf16(demo_model):
    for name, tensor in load_file(demo_model / "model.safetensors").items():
        wanted = torch.float32 if name.endswith("e_score_correction_bias") else torch.bfloat16
        assert tensor.dtype == wanted, name


def test_greedy_output_varies(model):
    prompts = torch.tensor(
        [list(text) for text in (b"Hello, my friend", b"the quick brown ", b"x" * 16)]
    )
    outputs = model.generate(prompts, max_new_tokens=16, do_sample=False, eos_token_id=None)
    outputs = [tuple(row[16:].tolist()) for row in outputs]
    assert len(set(outputs)) == 3
    assert all(len(set(output)) >= 8 for output in outputs), outputs


@pytest.fixture(scope="module")
def long_prompt():
    """[1, 3 x index_topk] byte ids."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (1, 3 * SHAPE.index_topk), generator=generator)


@pytest.fixture(scope="module")
def reference(model, long_prompt):
    """[tokens, vocab] log-probabilities of the long prompt, every layer Full."""
    return _log_probs(model, input_ids=long_prompt)


def test_selection_matters_only_beyond_index_topk(demo_model, load, long_prompt, reference):
    pattern = json.loads(default_pattern_file().read_text())["pattern"]
    shared, _ = load(demo_model, indexer_types=[{"F": "full", "S": "shared"}[c] for c in pattern])
    difference = (reference - _log_probs(shared, input_ids=long_prompt)).abs().mean(-1)
    assert difference[: SHAPE.index_topk].max() < 1e-5
    assert difference[-SHAPE.index_topk :].mean() > 0.1


def test_rounding_noise_is_not_amplified(model, long_prompt, reference):
    """Engines that agree to rounding must agree in the output, or comparing them means nothing.

    Noise of 1e-6 is ten roundings; what it does comes from near-ties at the k-th place. It must
    stay far below the 0.4 by which another pattern moves the same log-probabilities.
    """
    embedded = model.model.embed_tokens(long_prompt).detach()
    noise = torch.randn(embedded.shape, generator=torch.Generator().manual_seed(2))
    noisy = _log_probs(model, inputs_embeds=embedded * (1 + 1e-6 * noise))
    assert (reference - noisy).abs().mean() < 2e-2


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tiny_checkpoint_loads_and_runs(tmp_path, load, architecture):
    model, report = load(write_checkpoint(tmp_path, architecture=architecture))
    assert _clean(report), report
    assert type(model).__name__ == architecture and len(model.model.layers) == 8
    assert _log_probs(model, input_ids=torch.arange(100)[None]).isfinite().all()


def test_tiny_sizes_are_as_asked(tmp_path):
    write_checkpoint(tmp_path, num_layers=3, index_topk=16, kv_lora_rank=512)
    config = json.loads((tmp_path / "config.json").read_text())
    assert [config[k] for k in ("num_hidden_layers", "index_topk", "kv_lora_rank")] == [3, 16, 512]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dropped_indexers_change_nothing_else(tmp_path, architecture):
    write_checkpoint(tmp_path / "all", architecture=architecture, num_layers=4)
    write_checkpoint(
        tmp_path / "dropped", architecture=architecture, num_layers=4, drop_indexer_layers=(1, 3)
    )
    everything = load_file(tmp_path / "all" / "model.safetensors")
    rest = load_file(tmp_path / "dropped" / "model.safetensors")
    gone = set(everything) - set(rest)
    assert {name.split(".")[2] for name in gone} == {"1", "3"} and len(gone) == 10
    assert all(".indexer." in name for name in gone)
    assert all(torch.equal(everything[name], tensor) for name, tensor in rest.items())


def test_dropped_indexers_load_as_shared_layers(tmp_path, load):
    write_checkpoint(tmp_path, num_layers=4, drop_indexer_layers=(1, 2, 3))
    _, report = load(tmp_path, indexer_types=["full", "shared", "shared", "shared"])
    assert _clean(report), report


def test_seeds_give_different_weights(tmp_path):
    one = load_file(write_checkpoint(tmp_path / "1", num_layers=1, seed=1) / "model.safetensors")
    two = load_file(write_checkpoint(tmp_path / "2", num_layers=1, seed=2) / "model.safetensors")
    assert not any(torch.equal(one[name], two[name]) for name in one)


def test_unknown_architecture_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'LlamaForCausalLM': use one of GlmMoeDsaForCausalLM"):
        write_checkpoint(tmp_path, architecture="LlamaForCausalLM")


def test_unknown_layer_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"layers \[8\]; use 0..7"):
        write_checkpoint(tmp_path, drop_indexer_layers=(2, 8))
    assert not list(tmp_path.iterdir())
