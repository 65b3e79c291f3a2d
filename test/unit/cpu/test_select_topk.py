"""The indexer's selection against a dense float64 reference."""

import pytest
import torch

from sglang_ic.cpu import kernels

HEAD_DIM = 128


def reference_scores(q, weights, keys, first_position):
    """[T, S] float64 scores; -inf where a query may not look."""
    scores = torch.einsum("thd,sd->ths", q.double(), keys.double()).relu()
    scores = torch.einsum("ths,th->ts", scores, weights.double())
    position = first_position + torch.arange(q.shape[0]).unsqueeze(1)
    return scores.masked_fill(torch.arange(keys.shape[0]) > position, float("-inf"))


def lowest_first(scores, k):
    """The exact rule: highest score, then lowest position; ascending, -1 padded."""
    rows = []
    for row in scores:
        num_seen = int((row > float("-inf")).sum())
        order = torch.sort(row, descending=True, stable=True).indices[: min(k, num_seen)]
        chosen = order.sort().values
        rows.append(torch.cat([chosen, torch.full((k - len(chosen),), -1)]))
    return torch.stack(rows).int()


def select(q, weights, keys, first_position, k):
    out = torch.full((q.shape[0], k), -7, dtype=torch.int32)
    kernels.select_topk(q, weights, keys, first_position, out)
    return out


@pytest.mark.parametrize(
    ("num_rows", "first_position", "k", "num_heads"),
    [
        (1, 0, 32, 4),  # one token, one key
        (1, 31, 32, 4),  # decode, exactly k keys
        (1, 32, 32, 4),  # decode, one key more than k
        (1, 700, 32, 4),
        (20, 0, 32, 4),  # all rows see fewer keys than k
        (33, 0, 32, 4),  # the last row sees k + 1
        (300, 0, 32, 8),
        (300, 0, 128, 1),
        (65, 450, 32, 4),  # a prefix
        (65, 10, 32, 4),  # a prefix shorter than k
        (7, 25, 32, 64),
        (200, 0, 1, 4),
    ],
)
@pytest.mark.parametrize("block_bytes", [1, 1 << 16, 1 << 30])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_selects_what_a_dense_reference_selects(
    num_rows, first_position, k, num_heads, block_bytes, num_threads, monkeypatch
):
    monkeypatch.setattr(kernels, "SCORE_BLOCK_BYTES", block_bytes)
    generator = torch.Generator().manual_seed(num_rows * 7919 + first_position)
    q = torch.randn(num_rows, num_heads, HEAD_DIM, generator=generator)
    weights = torch.randn(num_rows, num_heads, generator=generator)
    keys = torch.randn(first_position + num_rows, HEAD_DIM, generator=generator)
    scores = reference_scores(q, weights, keys, first_position)

    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        found = select(q, weights, keys, first_position, k)
        assert torch.get_num_threads() == num_threads
    finally:
        torch.set_num_threads(before)

    expected = lowest_first(scores, k)
    for row, (ours, theirs) in enumerate(zip(found.tolist(), expected.tolist(), strict=True)):
        only_ours, only_theirs = set(ours) - set(theirs), set(theirs) - set(ours)
        assert len(only_ours) == len(only_theirs), f"row {row}: {ours} instead of {theirs}"
        # float32 and float64 may order two nearly equal scores differently, nothing else.
        for mine, other in zip(sorted(only_ours), sorted(only_theirs), strict=True):
            assert abs(scores[row, mine] - scores[row, other]) < 1e-4, f"row {row}: {mine}, {other}"
        assert ours == sorted(p for p in ours if p >= 0) + [-1] * ours.count(-1)


def test_equal_scores_go_to_the_lowest_positions():
    """Small integers: sums are exact, ties are real, and most scores are exactly zero."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randint(-1, 2, (200, 2, HEAD_DIM), generator=generator).float()
    q[..., 3:] = 0
    keys = torch.randint(-1, 2, (200, HEAD_DIM), generator=generator).float()
    weights = torch.randint(-1, 2, (200, 2), generator=generator).float()
    expected = lowest_first(reference_scores(q, weights, keys, 0), 32)
    assert torch.equal(select(q, weights, keys, 0, 32), expected)


def test_selection_does_not_depend_on_how_the_prompt_is_split():
    """Exact arithmetic, so that only the logic can differ."""
    generator = torch.Generator().manual_seed(1)
    q = torch.randint(-2, 3, (150, 4, HEAD_DIM), generator=generator).float()
    keys = torch.randint(-2, 3, (150, HEAD_DIM), generator=generator).float()
    weights = torch.randint(-2, 3, (150, 4), generator=generator).float()
    whole = select(q, weights, keys, 0, 16)
    for begin, end in [(0, 1), (0, 40), (40, 41), (41, 150), (149, 150)]:
        part = select(q[begin:end], weights[begin:end], keys[:end], begin, 16)
        assert torch.equal(part, whole[begin:end]), f"rows {begin}..{end}"


def test_no_rows_select_nothing():
    out = select(torch.empty(0, 4, HEAD_DIM), torch.empty(0, 4), torch.randn(9, HEAD_DIM), 9, 32)
    assert out.shape == (0, 32)
