"""The checkpoints with random weights load in transformers as they are."""

import json

import pytest
import torch
from safetensors.torch import load_file

from sglang_ic.demo.shape import DsaShape, config_dict
from sglang_ic.demo.tiny import write_checkpoint

ARCHITECTURES = ["GlmMoeDsaForCausalLM", "DeepseekV32ForCausalLM"]


def _clean(report) -> bool:
    return not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


@torch.no_grad()
def _log_probs(model, **inputs):
    return model(**inputs).logits[0].log_softmax(-1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_config_leaves_the_pattern_and_layer_types_open(architecture):
    config = config_dict(DsaShape(architecture, 8, 32, 64, 4))
    assert not {"layer_types", "indexer_types", "index_topk_freq"} & set(config)
    assert config["num_experts"] == config["n_routed_experts"]
    assert {"moe_layer_freq", "topk_method", "scoring_func"} <= set(config)
    assert config.get("indexer_rope_interleave", False) == (architecture == ARCHITECTURES[0])


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
