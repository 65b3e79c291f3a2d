"""The calls that patched model code makes. Needs the patched SGLang for upstream's own carrier."""

from types import SimpleNamespace

import pytest
import torch

from sglang_ic.pattern import LayerPattern
from sglang_ic.runtime import (
    begin_forward,
    end_forward,
    model_roles,
    publish,
    runs_indexer,
    topk_for,
)
from sglang_ic.runtime.roles import LayerRoles
from sglang_ic.runtime.state import IndexCacheError, IndexCacheState

ROWS = torch.zeros((2, 4), dtype=torch.int32)


def batch():
    return SimpleNamespace(index_cache=None, can_run_tbo=False)


def model(text="FS"):
    pattern = LayerPattern.parse(text, len(text))
    return SimpleNamespace(index_cache_roles=LayerRoles(pattern, 0, len(text), build_all=False))


def attention(layer_id, *, is_nextn=False, upstream_says=True):
    return SimpleNamespace(
        layer_id=layer_id, is_nextn=is_nextn, should_run_indexer=lambda prev: upstream_says
    )


def run_layer(fb, layer_id, made=None):
    """One attention layer as the patched code runs it; returns the indices it used."""
    attn = attention(layer_id)
    topk = made if runs_indexer(attn, fb) else topk_for(attn, fb, None)
    assert publish(attn, fb, topk)
    return topk


def test_one_pass_hands_the_same_tensor_on_and_forgets_it():
    fb, owner = batch(), model()
    state = begin_forward(owner, fb, None)
    assert fb.index_cache is state
    assert run_layer(fb, 0, ROWS) is ROWS
    assert run_layer(fb, 1) is ROWS
    end_forward(owner, fb)
    assert fb.index_cache is None
    assert state.topk_indices is ROWS  # what a pipeline stage sends on
    assert owner.index_cache_roles.last_pass == (1, 1)


def test_a_pass_that_failed_midway_is_not_continued():
    fb, owner = batch(), model()
    begin_forward(owner, fb, None)
    run_layer(fb, 0, ROWS)
    with pytest.raises(IndexCacheError, match="still holds the indices of another forward pass"):
        begin_forward(owner, fb, None)


def test_state_that_leaks_into_the_next_batch_is_an_error():
    first, second, owner = batch(), batch(), model()
    begin_forward(owner, first, None)
    run_layer(first, 0, ROWS)
    leaked = first.index_cache
    run_layer(first, 1)
    end_forward(owner, first)
    second.index_cache = leaked
    with pytest.raises(IndexCacheError):
        begin_forward(owner, second, None)
    with pytest.raises(IndexCacheError, match="has ended"):
        runs_indexer(attention(0), second)


def test_two_children_of_one_batch_keep_their_own_indices():
    owner, left, right = model("FSS"), batch(), batch()
    begin_forward(owner, left, None)
    begin_forward(owner, right, None)
    a, b = ROWS.clone(), ROWS.clone()
    run_layer(left, 0, a)
    run_layer(right, 0, b)
    for layer in (1, 2):
        assert run_layer(left, layer) is a
        assert run_layer(right, layer) is b
    end_forward(owner, left)
    end_forward(owner, right)


def test_children_that_share_a_state_are_caught():
    owner, left, right = model(), batch(), batch()
    begin_forward(owner, left, None)
    right.index_cache = left.index_cache
    run_layer(left, 0, ROWS)
    with pytest.raises(IndexCacheError, match="two forward passes share one"):
        run_layer(right, 0, ROWS)


def test_draft_layer_follows_upstream_and_its_seed():
    fb = batch()
    fb.index_cache = IndexCacheState(model().index_cache_roles)
    draft = attention(0, is_nextn=True, upstream_says=False)
    assert not runs_indexer(draft, fb, ROWS)
    assert topk_for(draft, fb, ROWS) is ROWS
    assert not publish(draft, fb, ROWS)


def test_without_a_state_every_answer_is_upstreams():
    fb = batch()
    assert runs_indexer(attention(3, upstream_says=True), fb, None)
    assert not runs_indexer(attention(3, upstream_says=False), fb, ROWS)
    assert topk_for(attention(3), fb, ROWS) is ROWS
    assert not publish(attention(3), fb, ROWS)


def test_model_without_dsa_keeps_upstreams_carrier():
    from sglang.srt.layers.attention.index_topk_share import IndexTopKShareState

    fb = batch()
    carrier = begin_forward(SimpleNamespace(index_cache_roles=None), fb, ROWS)
    assert isinstance(carrier, IndexTopKShareState)
    assert carrier.topk_indices is ROWS
    end_forward(SimpleNamespace(index_cache_roles=None), fb)


def test_a_dsa_config_that_the_plugin_never_saw_stops_the_model():
    config = SimpleNamespace(
        architectures=["GlmMoeDsaForCausalLM"], index_topk=128, num_hidden_layers=2
    )
    with pytest.raises(RuntimeError, match="did not resolve a pattern"):
        model_roles(config, 0, 2)


def test_a_resolved_config_gives_roles_and_a_dense_model_none():
    config = SimpleNamespace(
        architectures=["GlmMoeDsaForCausalLM"],
        index_topk=128,
        num_hidden_layers=2,
        index_cache={"pattern": "FS", "build": "pattern"},
    )
    assert model_roles(config, 0, 2).per_pass == (1, 1)
    config.architectures = ["LlamaForCausalLM"]
    assert model_roles(config, 0, 2) is None
