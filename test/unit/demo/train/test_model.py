"""The training model is the model that transformers runs, in every role of a layer."""

import pytest
import torch

from sglang_ic.demo.train.export import read_model, write_model

WORDS = {"F": "full", "S": "shared"}


@pytest.fixture
def checkpoint(model, shape, tmp_path):
    write_model(tmp_path, model.state_dict(), shape)
    return tmp_path


@torch.no_grad()
@pytest.mark.parametrize("roles", ["FFF", "FSF", "FFS", "FSS"])
def test_logits_equal_transformers(model, checkpoint, load, ids, roles):
    theirs, _ = load(checkpoint, indexer_types=[WORDS[role] for role in roles])
    ours, _ = model(ids, roles=roles)
    torch.testing.assert_close(ours, theirs(input_ids=ids).logits, atol=2e-5, rtol=0)


@torch.no_grad()
def test_dense_equals_transformers_with_a_top_k_of_the_whole_context(model, checkpoint, load, ids):
    theirs, _ = load(checkpoint, index_topk=ids.shape[1])
    ours, _ = model(ids, roles="D")
    torch.testing.assert_close(ours, theirs(input_ids=ids).logits, atol=2e-5, rtol=0)


@torch.no_grad()
def test_roles_differ_beyond_the_top_k_only(model, shape, ids):
    outputs = {roles: model(ids, roles=roles)[0] for roles in ("D", "F", "FSF", "FFR")}
    for roles, logits in outputs.items():
        same = (logits - outputs["D"]).abs().amax(-1)[0]
        assert same[: shape.index_topk].max() < 1e-5, roles
        assert roles == "D" or same[-shape.index_topk :].mean() > 1e-2, roles


def test_a_checkpoint_comes_back_as_it_was(model, checkpoint, shape):
    again = read_model(checkpoint, shape).state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(again[name], value), name


def test_index_heads_without_a_gate_are_zero_in_a_checkpoint(checkpoint, load, shape):
    theirs, _ = load(checkpoint)
    indexer = theirs.model.layers[1].self_attn.indexer
    gated = shape.num_gated_index_heads
    assert indexer.weights_proj.weight.shape[0] == shape.index_n_heads
    assert not indexer.weights_proj.weight[gated:].any()
    assert indexer.weights_proj.weight[:gated].all()


def test_language_loss_trains_the_model_and_kl_the_indexers(model, ids):
    logits, kl = model(ids, roles="F", rows=torch.arange(100, 120))
    assert len(kl) == len(model.layers)
    logits.logsumexp(-1).mean().backward(retain_graph=True)
    indexers = {id(p) for p in model.indexer_parameters()}
    trained = {id(p) for p in model.parameters() if p.grad is not None}
    assert trained and not trained & indexers
    model.zero_grad()
    torch.stack(kl).sum().backward()
    assert {id(p) for p in model.parameters() if p.grad is not None} == indexers
