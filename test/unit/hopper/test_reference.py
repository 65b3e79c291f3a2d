"""The reference that kernels are compared with is itself compared: with torch.topk and by hand."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from sglang_ic.hopper import reference

INF, NAN = float("inf"), float("nan")


def test_keys_sort_as_scores_do():
    scores = torch.tensor([NAN, -INF, -3e38, -1.5, -1e-45, 0.0, 1e-45, 1.5, 3e38, INF])
    keys = reference.ordered_keys(scores)
    assert (keys.diff() > 0).all() and keys[0] == 0
    assert reference.ordered_keys(torch.tensor([-0.0])) == reference.ordered_keys(torch.zeros(1))


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=30))
def test_keys_compare_as_floats(values):
    scores = torch.tensor(values)
    keys = reference.ordered_keys(scores)
    assert torch.equal(keys[:-1] < keys[1:], scores[:-1] < scores[1:])
    assert torch.equal(keys[:-1] == keys[1:], scores[:-1] == scores[1:])


def test_distinct_scores_select_as_torch_topk_does():
    scores = torch.randperm(64 * 100).view(64, 100).float()
    zeros, whole = torch.zeros(64, dtype=torch.int32), torch.full((64,), 100, dtype=torch.int32)
    selected = reference.select_positions(scores, zeros, whole, 7)
    assert torch.equal(selected, scores.topk(7).indices.sort().values.to(torch.int32))


def test_the_rule_by_hand():
    scores = torch.tensor(
        [
            [9.0, 1.0, 2.0, 2.0, 2.0, 9.0],  # window [1, 5): equal scores, lowest positions first
            [9.0, NAN, -INF, -0.0, 0.0, 9.0],  # NaN after -inf; -0 and +0 are equal
            [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],  # shorter than topk: whole, then -1
            [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],  # empty
        ]
    )
    starts = torch.tensor([1, 1, 4, 6], dtype=torch.int32)
    lengths = torch.tensor([4, 4, 2, 0], dtype=torch.int32)
    selected = reference.select_positions(scores, starts, lengths, 3)
    assert selected.tolist() == [[1, 2, 3], [1, 2, 3], [0, 1, -1], [-1, -1, -1]]
    assert reference.select_positions(scores[1:2], starts[1:2], lengths[1:2], 1).tolist() == [[2]]


def test_slots_are_what_upstreams_copied_rows_would_give():
    page_table = torch.randperm(3 * 50).view(3, 50).to(torch.int32)
    requests = torch.tensor([0, 0, 2, 1, 1], dtype=torch.int32)
    positions = torch.randint(-1, 50, (5, 8), dtype=torch.int32)
    copied = page_table[requests]  # upstream: one whole row per query
    expected = torch.tensor(
        [[copied[r, p] if p >= 0 else -1 for p in row] for r, row in enumerate(positions.tolist())]
    )
    assert torch.equal(reference.to_slots(positions, page_table, requests).long(), expected)
