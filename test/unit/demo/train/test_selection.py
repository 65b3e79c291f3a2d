"""Selection and the indexers' loss, against loops and values worked out by hand."""

import math

import pytest
import torch

from sglang_ic.demo.train import selection
from sglang_ic.demo.train.losses import indexer_kl, language_loss
from sglang_ic.demo.train.selection import random_mask, scores, selection_mask


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_scores_are_the_gated_sum_of_relu():
    q = torch.tensor([[[[1.0, 0.0]], [[0.0, -2.0]]]])  # B 1, H 2, R 1, D 2
    k = torch.tensor([[[3.0, 1.0], [-1.0, -4.0]]])
    w = torch.tensor([[[0.5], [2.0]]])
    # key 0: 0.5 * 3 + 2 * relu(-2); key 1: 0.5 * relu(-1) + 2 * 8
    assert scores(q, k, w).tolist() == [[[1.5, 16.0]]]


@pytest.mark.parametrize("chunk", [7, 1024])
def test_selection_is_the_best_k_of_the_past(chunk, monkeypatch):
    monkeypatch.setattr(selection, "_CHUNK_ROWS", chunk)
    q, k, w = drawn(2, 3, 40, 8), drawn(2, 40, 8, seed=1), drawn(2, 3, 40, seed=2)
    mask = selection_mask(q, k, w, topk=5)
    values = scores(q, k, w)
    for b in range(2):
        for t in range(40):
            assert not mask[b, t, t + 1 :].any()
            # By value: with few heads many keys score exactly 0, and any of those will do.
            best = values[b, t, : t + 1].topk(min(5, t + 1)).values
            taken = values[b, t][mask[b, t]].sort(descending=True).values
            torch.testing.assert_close(taken, best)


def test_random_selection_is_causal_and_as_large():
    mask = random_mask(2, 50, topk=6, device=torch.device("cpu"))
    assert mask.shape == (2, 50, 50) and not mask.triu(1).any()
    assert mask.sum(-1)[0].tolist() == [min(t + 1, 6) for t in range(50)]


def hand_case(gate):
    """One row of two keys: attention of two heads is (3/4, 1/4) and (1/4, 3/4) at w = 0."""
    log3 = math.log(3.0)
    q = torch.tensor([[[[0.0], [log3]], [[0.0], [-log3]]]])  # B 1, H 2, L 2, D 1
    k = torch.tensor([[[[1.0], [0.0]], [[1.0], [0.0]]]])
    index_q = torch.ones(1, 1, 2, 1)
    index_k = torch.tensor([[[1.0], [0.0]]])
    return q, k, index_q, index_k, torch.full((1, 1, 2), gate), torch.tensor([1])


def test_kl_is_zero_when_the_indexer_guesses_the_head_mean():
    assert indexer_kl(*hand_case(0.0), None).item() == pytest.approx(0.0, abs=1e-7)


def test_kl_of_a_wrong_guess():
    # p = (1/2, 1/2), q = softmax(log 3, 0) = (3/4, 1/4)
    wanted = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert indexer_kl(*hand_case(math.log(3.0)), None).item() == pytest.approx(wanted, rel=1e-6)


def test_kl_over_a_selected_set_ignores_the_rest():
    mask = torch.tensor([[[True, False], [False, True]]])
    assert indexer_kl(*hand_case(5.0), mask).item() == pytest.approx(0.0, abs=1e-7)


def test_language_loss_counts_neither_padding_nor_the_answers_twice():
    ids = torch.tensor([[0, 5, 6, 2]])  # the last one is padding
    answers = torch.tensor([[False, False, True, False]])
    logits = torch.zeros(1, 4, 8)
    logits[0, 1, 6] = math.log(9.0)  # P = 9 / 16
    found = language_loss(logits, ids, answers)
    assert found["answer_loss"].item() == pytest.approx(math.log(16 / 9))
    assert found["loss"].item() == pytest.approx((math.log(8) + math.log(16 / 9)) / 2)
    assert found["answer_accuracy"].item() == 1.0
