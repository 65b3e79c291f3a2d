"""Our top-k kernels against the reference, in Triton's interpreter; test/gpu runs them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_ic.hopper import reference
from sglang_ic.hopper.select import Sizes, row_blocks

WIDTH = 400  # columns; a window of more than 256 needs a bound when topk is 8
TOPK = 8
INF, NAN = float("inf"), float("nan")


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def select(interpreted, *args, **kwargs):
    """Rows as the reference writes them: ascending, and -1 only behind the selected ones."""
    selected = interpreted("select", *args, **kwargs)
    return checked_ascending(selected)


def checked_ascending(selected):
    num_selected = (selected >= 0).sum(1, keepdim=True)
    column = torch.arange(selected.shape[1])
    assert torch.equal(selected >= 0, column < num_selected)
    return (
        selected.masked_fill(selected < 0, 2**31 - 1)
        .sort()
        .values.masked_fill(column >= num_selected, -1)
    )


def ragged_windows():
    """Windows of every kind: whole, unaligned, empty, one key, around topk, at the very end."""
    starts = [0, 1, 2, 3, 5, 0, 143, 100, 399, 7, 130]
    lengths = [400, 399, 0, 1, TOPK, TOPK + 1, 257, 300, 1, 256, 255]
    return torch.tensor(starts, dtype=torch.int32), torch.tensor(lengths, dtype=torch.int32)


def whole_windows(num_rows):
    return (
        torch.zeros(num_rows, dtype=torch.int32),
        torch.full((num_rows,), WIDTH, dtype=torch.int32),
    )


def adversarial(num_rows):
    """Scores that a bound from a sample is wrong about, one kind per row, in turn."""
    scores = random(num_rows, WIDTH, seed=3)
    kinds = {
        0: lambda row: row.zero_(),  # one value
        1: lambda row: row.zero_().add_(torch.arange(WIDTH) % 2 * -0.0),  # two zeros
        2: lambda row: row.copy_(torch.arange(WIDTH)),  # all of the top-k at the end
        3: lambda row: row.copy_(-torch.arange(WIDTH)),  # all of it at the start
        4: lambda row: row.zero_()[170:174].fill_(5.0),  # a few peaks that no run samples
        5: lambda row: row.copy_((row * 2).round() / 2),  # many ties
        6: lambda row: row.masked_fill_(row > 0, -INF),  # no number above zero
        7: lambda row: row.fill_(-INF),
        8: lambda row: row.fill_(NAN),
        9: lambda row: row.fill_(NAN)[10:14].fill_(-INF),  # fewer numbers than topk
        10: lambda row: row[::3].fill_(INF),
        11: lambda row: row.fill_(1)[-5:].copy_(torch.arange(2, 7)),  # the best behind full lists
    }
    for index, row in enumerate(scores):
        kinds[index % len(kinds)](row)
    return scores


@pytest.mark.parametrize("topk", [1, 3, TOPK])
def test_ragged_windows_and_short_rows(interpreted, topk):
    starts, lengths = ragged_windows()
    scores = random(len(starts), WIDTH)
    expected = reference.select_positions(scores, starts, lengths, topk)
    assert torch.equal(select(interpreted, scores, starts, lengths, topk), expected)


def test_scores_that_defeat_the_sample(interpreted):
    scores = adversarial(12)
    windows = whole_windows(12)
    expected = reference.select_positions(scores, *windows, TOPK)
    assert torch.equal(select(interpreted, scores, *windows, TOPK), expected)


def test_ragged_adversarial_windows(interpreted):
    starts, lengths = ragged_windows()
    scores = adversarial(len(starts))
    expected = reference.select_positions(scores, starts, lengths, TOPK)
    assert torch.equal(select(interpreted, scores, starts, lengths, TOPK), expected)


def test_without_a_second_guess_rows_are_still_exact(interpreted):
    """One try: what the bound missed goes through the digits of the whole row."""
    scores = adversarial(12)
    windows = whole_windows(12)
    expected = reference.select_positions(scores, *windows, TOPK)
    assert torch.equal(select(interpreted, scores, *windows, TOPK, tries=0), expected)
    assert torch.equal(select(interpreted, scores, *windows, TOPK, tries=1), expected)


def test_rows_in_blocks_are_the_same_rows(interpreted):
    scores = random(7, WIDTH)
    windows = whole_windows(7)
    whole = select(interpreted, scores, *windows, TOPK)
    budget = 2 * Sizes(TOPK).row_bytes
    assert torch.equal(whole, select(interpreted, scores, *windows, TOPK, scratch_bytes=budget))


def test_a_row_wider_than_its_view_is_not_read_beyond_it(interpreted):
    """Scores are often a view of a wider buffer; its other columns must not be selected."""
    buffer = torch.full((4, WIDTH), INF)
    scores = buffer[:, : WIDTH - 3]
    scores.copy_(random(4, WIDTH - 3))
    windows = torch.zeros(4, dtype=torch.int32), torch.full((4,), WIDTH - 3, dtype=torch.int32)
    expected = reference.select_positions(scores, *windows, TOPK)
    assert torch.equal(select(interpreted, scores, *windows, TOPK), expected)


def test_slots_come_from_the_row_of_the_request(interpreted):
    starts, lengths = ragged_windows()
    scores = random(len(starts), WIDTH)
    page_table = torch.randperm(3 * WIDTH).view(3, WIDTH).to(torch.int32)
    requests = torch.arange(len(starts), dtype=torch.int32) % 3
    positions = reference.select_positions(scores, starts, lengths, TOPK)
    expected = checked_ascending(reference.to_slots(positions, page_table, requests))
    got = select(interpreted, scores, starts, lengths, TOPK, page_table, requests)
    assert torch.equal(got, expected)


def test_no_rows(interpreted):
    empty = torch.empty(0, dtype=torch.int32)
    assert select(interpreted, torch.empty(0, WIDTH), empty, empty, TOPK).shape == (0, TOPK)


def test_sizes_of_a_real_model(interpreted):
    scores = random(3, 20_000)
    scores[1] = (scores[1] * 100).round() / 100
    starts = torch.tensor([0, 4001, 3], dtype=torch.int32)
    lengths = torch.tensor([20_000, 15_997, 8192], dtype=torch.int32)
    expected = reference.select_positions(scores, starts, lengths, 2048)
    assert torch.equal(select(interpreted, scores, starts, lengths, 2048), expected)


@settings(max_examples=15)
@given(
    st.lists(st.sampled_from([NAN, -INF, INF, 0.0, -0.0, 1.0, -1.0, 0.5]), min_size=1, max_size=90),
    st.integers(1, 20),
    st.integers(0, 5),
)
def test_any_row(interpreted, values, topk, start):
    values = values[: len(values) // 4 * 4] or [1.0] * 4
    scores = torch.tensor([values])
    start = min(start, len(values))
    starts = torch.tensor([start], dtype=torch.int32)
    lengths = torch.tensor([len(values) - start], dtype=torch.int32)
    expected = reference.select_positions(scores, starts, lengths, topk)
    assert torch.equal(select(interpreted, scores, starts, lengths, topk), expected)


@given(st.integers(0, 20_000), st.integers(1, 1 << 20), st.integers(1, 1 << 30))
def test_row_blocks_cover_every_row_once_within_the_budget(num_rows, row_bytes, budget_bytes):
    blocks = list(row_blocks(num_rows, row_bytes, budget_bytes))
    if len(blocks) > 1000:
        blocks_to_check = [*blocks[:500], *blocks[-500:]]
    else:
        blocks_to_check = blocks
    assert [begin for begin, _ in blocks] == ([0, *(end for _, end in blocks)])[: len(blocks)]
    assert (blocks[-1][1] if blocks else 0) == num_rows
    for begin, end in blocks_to_check:
        assert begin < end
        assert (end - begin) * row_bytes <= budget_bytes or end - begin == 1
    # As few as the budget allows.
    most = max(1, budget_bytes // row_bytes)
    assert len(blocks) == -(-num_rows // most)


@pytest.mark.parametrize("topk", [1, 8, 128, 2048])
def test_sizes_leave_room_for_the_sample(topk):
    sizes = Sizes(topk)
    capacity = sizes.lanes * sizes.levels
    assert capacity >= 4 * topk
    # Runs of 8 in a window just longer than the capacity do not reach past its end.
    length, runs = capacity + 1, sizes.samples // 8
    assert (runs - 1) * length // runs + 8 <= length
    # The product in the kernel's first rank fits in int32.
    assert 3 * topk * sizes.samples < 2**31
