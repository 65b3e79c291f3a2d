"""A candidate layer's selection on CPU against a mask of candidate pages over dense scores."""

import pytest
import torch

from sglang_ic.candidates import pages
from sglang_ic.candidates.switch import PAGE_TOKENS
from sglang_ic.cpu import candidates
from sglang_ic.cpu.kernels import select_topk

K, HEADS, DIM = 64, 4, 16


def drawn(first, rows, seed=0):
    """Small whole numbers, so that sums are exact in any order and many scores are equal."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.randint(-3, 4, (rows, HEADS, DIM), generator=generator).float()
    keys = torch.randint(-3, 4, (first + rows, DIM), generator=generator).float()
    weights = torch.randint(-2, 3, (rows, HEADS), generator=generator).float()
    position = torch.arange(first, first + rows).unsqueeze(1)
    previous = (torch.rand(rows, K, generator=generator) ** 3 * (position + 1)).int()
    return q, weights, keys, previous


def selected(q, weights, keys, first, previous, num_pages):
    out = torch.full((len(q), K), -7, dtype=torch.int32)
    candidates.select_among_candidates(q, weights, keys, first, previous, num_pages, out)
    return out


def masked(q, weights, keys, first, previous, num_pages):
    """[T, K]: the best candidates of each row, lowest position first among equals, ascending."""
    rows = len(q)
    scores = torch.einsum("ths,th->ts", torch.einsum("thd,sd->ths", q, keys).relu(), weights)
    position = first + torch.arange(rows).unsqueeze(1)
    hidden = torch.arange(len(keys)) > position
    counts = pages.count_selected(previous, first)
    lists = pages.choose_pages(counts, first, rows, num_pages)
    spans = pages.row_groups(first, rows)
    for (begin, end), listed in zip(spans, lists, strict=True):
        outside = torch.ones(len(keys) // PAGE_TOKENS + 1, dtype=torch.bool)
        outside[listed] = False
        hidden[begin:end] |= outside[torch.arange(len(keys)) // PAGE_TOKENS]
    found = torch.full((rows, K), -1, dtype=torch.int32)
    for row in range(rows):
        order = torch.sort(
            scores[row].masked_fill(hidden[row], float("-inf")), descending=True, stable=True
        ).indices
        best = order[: min(K, int((~hidden[row]).sum()))].sort().values
        found[row, : len(best)] = best.int()
    return found


@pytest.mark.parametrize(
    ("first", "rows", "num_pages"),
    [
        (0, 1500, 17),  # short rows, covered rows, and candidates in one call
        (0, 1088, 17),  # the last row sees exactly the pages of a list
        (0, 1089, 17),  # one key more
        (2048, 300, 17),
        (2048, 300, 30),
        (3001, 1, 20),  # one row, in the middle of a group
        (3000, 700, 24),  # groups begin in the middle of the pass
    ],
)
def test_selects_what_a_mask_over_dense_scores_selects(first, rows, num_pages):
    q, weights, keys, previous = drawn(first, rows)
    found = selected(q, weights, keys, first, previous, num_pages)
    assert torch.equal(found, masked(q, weights, keys, first, previous, num_pages))


@pytest.mark.parametrize("first, rows, num_pages", [(0, 1000, 17), (700, 500, 19), (0, 3000, 60)])
def test_where_candidates_are_all_keys_a_full_layer_runs(monkeypatch, first, rows, num_pages):
    q, weights, keys, previous = drawn(first, rows)
    q += torch.rand(q.shape)  # sums that round, so that only the same call gives the same bits
    expected = torch.empty(rows, K, dtype=torch.int32)
    select_topk(q, weights, keys, first, expected)
    monkeypatch.setattr(pages, "choose_pages", None)
    assert torch.equal(selected(q, weights, keys, first, previous, num_pages), expected)


def test_a_selection_that_points_nowhere_still_selects_enough():
    q, weights, keys, previous = drawn(4096, 512)
    found = selected(q, weights, keys, 4096, torch.full_like(previous, -1), 17)
    assert (found >= 0).all() and (found.diff(dim=1) > 0).all()


def test_candidates_leave_something_out_and_keep_what_was_selected():
    first, rows = 8192, 512
    q, weights, keys, previous = drawn(first, rows)
    previous = torch.randint(2000, 2000 + 4 * PAGE_TOKENS, previous.shape, dtype=torch.int32)
    exact = torch.empty(rows, K, dtype=torch.int32)
    select_topk(q, weights, keys, first, exact)
    found = selected(q, weights, keys, first, previous, 24)
    assert not torch.equal(found, exact)
    page = found // PAGE_TOKENS
    first_last = (first + rows) // PAGE_TOKENS - 16
    # The first page, five that were pointed at, the lowest of the rest, and the last 16.
    assert set(page.unique().tolist()) <= {0, 1, 2, *range(31, 36), *range(first_last, 137)}
    assert (page == 32).any()
