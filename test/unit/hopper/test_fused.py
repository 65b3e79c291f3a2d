"""Scores and top-k in one pass against scores and then top-k, in Triton's interpreter.

The main pass is Gluon, which the interpreter does not know: see _interpreter.py. test/gpu runs all.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_ic.hopper import reference
from sglang_ic.hopper.fused import Sizes

HEADS, DIM = 32, 128
TOPK, KEYS = 8, 400
# A bound from one key in four, lists of two: wrong guesses and full lists are easy to come by.
SIZES = Sizes(TOPK, block_q=4, lanes=16, step=4)
CAPACITY = SIZES.lanes * SIZES.levels
INF, NAN = float("inf"), float("nan")
LARGEST, LEAST = torch.finfo(torch.float32).max, 2.0**-147  # a fourth of it is a number
VALUES = [NAN, -INF, INF, 0.0, -0.0, 1.0, -1.0, 0.5, LARGEST, -LARGEST, LEAST, -LEAST]


def int32(values):
    return torch.tensor(values, dtype=torch.int32)


def random_inputs(num_rows, num_keys, seed=0):
    """Queries, keys, scales and weights as an indexer has them."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(num_rows, HEADS, DIM, generator=generator).to(torch.float8_e4m3fn)
    k = torch.randn(num_keys, DIM, generator=generator).to(torch.float8_e4m3fn)
    k_scale = torch.rand(num_keys, generator=generator)
    return q, k, k_scale, torch.randn(num_rows, HEADS, generator=generator)


def inputs_that_score(scores, num_rows):
    """Inputs for which every row scores key s with scores[s], exactly, whatever it is.

    Every fourth of a sum is scaled by itself (`summing`), so none may be 0 times
    infinity.
    """
    q = torch.zeros(num_rows, HEADS, DIM)
    k, weights = torch.zeros(len(scores), DIM), torch.zeros(num_rows, HEADS)
    q[:, 1:8:2, 5] = k[:, 5] = 1
    weights[:, 1:8:2] = 0.25
    return q.to(torch.float8_e4m3fn), k.to(torch.float8_e4m3fn), scores, weights


def sampled_keys(num_keys, step):
    """The formula in other words: a place in each `step`, from the upper bits of a product."""
    keys = [s * step + (s * 0x9E3779B1 % 2**32 >> 16) % step for s in range(-(-num_keys // step))]
    return [key for key in keys if key < num_keys]


def rows_alike(got, expected):
    """Both select the same sets, and pad on the right only."""
    num_selected = (got >= 0).sum(1, keepdim=True)
    assert torch.equal(got >= 0, torch.arange(got.shape[1]) < num_selected)
    assert torch.equal(got.sort().values, expected.sort().values)


def the_pair(interpreted, inputs, starts, lengths, topk, *table, sizes=SIZES):
    tile = {"block_q": sizes.block_q, "block_k": sizes.lanes}
    scores = interpreted("score", *inputs, starts, starts + lengths, **tile)
    positions = reference.select_positions(scores, starts, lengths, topk)
    return reference.to_slots(positions, *table) if table else positions


def fused(interpreted, *args, sizes=SIZES, **kwargs):
    return interpreted("score_and_select", *args, sizes=sizes, **kwargs)


def failed_rows(interpreted, inputs, starts, lengths, bounds, sizes=SIZES):
    """Rows that a pass with these bounds proves nothing about."""
    ends = starts + lengths
    kept = interpreted("keep", *inputs, starts, ends, bounds, sizes)
    selected = torch.empty(len(starts), sizes.topk, dtype=torch.int32)
    where = (bounds, starts, ends, None, None, selected)
    return interpreted("choose", *kept, *where).bool(), kept[2]


def guessed_bounds(interpreted, inputs, starts, lengths, sizes=SIZES):
    q, k, k_scale, weights = inputs
    samples = interpreted("gather_samples", k, k_scale, sizes.step)
    numbers = {"step": sizes.step, "aim": sizes.aim, "capacity": sizes.lanes * sizes.levels}
    ends = starts + lengths
    return interpreted("sample_bounds", q, samples, weights, starts, ends, **numbers)


def whole_windows(num_rows):
    return torch.zeros(num_rows, dtype=torch.int32), torch.full(
        (num_rows,), KEYS, dtype=torch.int32
    )


def ragged_windows():
    """Three requests in a batch, causal windows; blocks of rows straddle them. Some are empty."""
    starts = [0] * 5 + [0, 200] + [201] * 3 + [250, KEYS] + [390] * 2
    lengths = [196, 197, 198, 199, 200, 0, 1, CAPACITY - 1, CAPACITY, CAPACITY + 1]
    lengths += [150, 0, TOPK, TOPK + 1]
    return int32(starts), int32(lengths)


@pytest.mark.parametrize("topk", [1, 3, TOPK])
def test_the_sets_are_those_of_the_pair(interpreted, topk):
    starts, lengths = ragged_windows()
    inputs = random_inputs(len(starts), KEYS)
    sizes = Sizes(topk, block_q=4, lanes=16, step=4)
    expected = the_pair(interpreted, inputs, starts, lengths, topk)
    rows_alike(fused(interpreted, *inputs, starts, lengths, topk, sizes=sizes), expected)


def test_most_rows_need_no_rescue(interpreted):
    """The bound is near enough for almost every row of ordinary scores."""
    inputs, windows = random_inputs(24, 4096, seed=4), (int32([0] * 24), int32([4096] * 24))
    sizes = Sizes(256, block_q=8, lanes=16, step=4)
    bounds = guessed_bounds(interpreted, inputs, *windows, sizes)
    failed, counts = failed_rows(interpreted, inputs, *windows, bounds, sizes)
    assert not failed.any()
    assert 0.7 * sizes.aim < counts.sum(1).float().mean() < 1.3 * sizes.aim


def peaks_at_samples(scores):
    """Fewer than topk, where samples are: a bound that too few reach."""
    scores.clamp_(max=1)[sampled_keys(KEYS, SIZES.step)[::20]] = 5


def holes_at_samples(scores):
    """A bound that too many reach."""
    scores.abs_().add_(1)[sampled_keys(KEYS, SIZES.step)] = -1


ADVERSARIAL = {
    "one value": lambda s: s.zero_(),
    "two zeros": lambda s: s.zero_().add_(torch.arange(KEYS) % 2 * -0.0),
    "best at the end": lambda s: s.copy_(torch.arange(KEYS)),
    "best at the start": lambda s: s.copy_(-torch.arange(KEYS)),
    "many ties": lambda s: s.copy_((s * 2).round() / 2),
    "nothing above zero": lambda s: s.masked_fill_(s > 0, -INF),
    "infinite": lambda s: s.fill_(-INF),
    "no number": lambda s: s.fill_(NAN),
    "few numbers": lambda s: s.fill_(NAN)[10:14].fill_(-INF),
    "some infinite": lambda s: s[::3].fill_(INF),
    "close": lambda s: s.mul_(1e-6).add_(1),
    "peaks at samples": peaks_at_samples,
    "holes at samples": holes_at_samples,
    "one lane": lambda s: s[3 :: SIZES.lanes].fill_(9),
}


@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_scores_that_defeat_the_samples(interpreted, kind):
    scores = torch.randn(KEYS, generator=torch.Generator().manual_seed(3))
    ADVERSARIAL[kind](scores)
    starts, lengths = ragged_windows()
    starts, lengths = (
        torch.cat(both) for both in zip(whole_windows(2), (starts, lengths), strict=True)
    )
    inputs = inputs_that_score(scores, len(starts))
    rows = scores.expand(len(starts), -1)
    expected = reference.select_positions(rows, starts, lengths, TOPK)
    rows_alike(fused(interpreted, *inputs, starts, lengths, TOPK), expected)
    rows_alike(the_pair(interpreted, inputs, starts, lengths, TOPK), expected)


@pytest.mark.parametrize(
    "kind, passed",
    [
        ("peaks at samples", range(1, TOPK)),
        ("holes at samples", range(CAPACITY + 1, KEYS + 1)),
        ("one value", [KEYS]),
        ("one lane", range(TOPK, CAPACITY + 1)),
    ],
)
def test_a_wrong_bound_fails_the_proof(interpreted, kind, passed):
    """In both directions, and where lists are full although all of them have room."""
    scores = torch.randn(KEYS, generator=torch.Generator().manual_seed(3))
    ADVERSARIAL[kind](scores)
    inputs, windows = inputs_that_score(scores, 4), whole_windows(4)
    bounds = guessed_bounds(interpreted, inputs, *windows)
    failed, counts = failed_rows(interpreted, inputs, *windows, bounds)
    assert failed.all()
    assert all(count in passed for count in counts.sum(1).tolist())


def test_zeros_of_both_signs_are_equal(interpreted):
    """Where those of one sign alone are just as many as are wanted."""
    scores = torch.full((30,), -1.0)
    scores[[3, 4, 9, 10, 11, 20, 21]] = torch.tensor([-0.0, -0.0, 3, 2, 1, 0.0, 0.0])
    inputs, starts, lengths = inputs_that_score(scores, 4), int32([0] * 4), int32([30] * 4)
    expected = reference.select_positions(scores.expand(4, -1), starts, lengths, 5)
    assert expected[0].tolist() == [3, 4, 9, 10, 11]
    sizes = Sizes(5, block_q=4, lanes=16, step=4)
    rows_alike(fused(interpreted, *inputs, starts, lengths, 5, sizes=sizes), expected)
    rows_alike(the_pair(interpreted, inputs, starts, lengths, 5), expected)


@pytest.mark.parametrize("bound", [INF, -INF, NAN])
def test_only_rows_that_prove_it_pass(interpreted, bound):
    starts, lengths = ragged_windows()
    inputs = random_inputs(len(starts), KEYS)
    bounds = torch.full((len(starts),), bound)
    failed, _ = failed_rows(interpreted, inputs, starts, lengths, bounds)
    assert torch.equal(failed, lengths > (CAPACITY if bound == -INF else 0))


def test_what_is_no_number_is_no_proof(interpreted):
    """A bound that one number too few reaches, and scores that are NaN: not kept, so not chosen."""
    scores = torch.arange(KEYS).float()
    scores[::3] = NAN
    inputs, (starts, lengths) = inputs_that_score(scores, 8), whole_windows(8)
    bound = scores.nan_to_num(-INF).topk(TOPK - 1).values[-1]
    failed, counts = failed_rows(interpreted, inputs, starts, lengths, bound.expand(8).contiguous())
    assert failed.all() and (counts.sum(1) == TOPK - 1).all()


def test_rows_in_blocks_select_the_same(interpreted):
    starts, lengths = ragged_windows()
    inputs = random_inputs(len(starts), KEYS, seed=2)
    whole = fused(interpreted, *inputs, starts, lengths, TOPK)
    for block_rows in (1, 5, len(starts)):
        got = fused(interpreted, *inputs, starts, lengths, TOPK, block_rows=block_rows)
        rows_alike(got, whole)


@pytest.mark.parametrize("num_programs", [1, 2])
def test_few_programs_rescue_all_rows(interpreted, num_programs):
    scores = torch.ones(KEYS)
    inputs = inputs_that_score(scores, 19)
    starts, lengths = whole_windows(19)
    lengths -= torch.arange(19, dtype=torch.int32)
    expected = reference.select_positions(scores.expand(19, -1), starts, lengths, TOPK)
    budget = num_programs * SIZES.block_q * KEYS * 4
    rows_alike(fused(interpreted, *inputs, starts, lengths, TOPK, rescue_bytes=budget), expected)


@pytest.mark.parametrize("equal", [False, True])
def test_slots_come_from_the_row_of_the_request(interpreted, equal):
    starts, lengths = ragged_windows()
    inputs = random_inputs(len(starts), KEYS)
    if equal:
        inputs = inputs_that_score(torch.ones(KEYS), len(starts))  # through the rescue
    page_table = torch.randperm(3 * KEYS).view(3, KEYS).to(torch.int32)
    requests = torch.arange(len(starts), dtype=torch.int32) % 3
    expected = the_pair(interpreted, inputs, starts, lengths, TOPK, page_table, requests)
    got = fused(interpreted, *inputs, starts, lengths, TOPK, page_table, requests)
    rows_alike(got, expected)


def test_no_rows(interpreted):
    inputs = random_inputs(0, 10)
    empty = int32([])
    assert fused(interpreted, *inputs, empty, empty, TOPK).shape == (0, TOPK)


def test_no_keys(interpreted):
    inputs = random_inputs(3, 0)
    empty = int32([0] * 3)
    assert (fused(interpreted, *inputs, empty, empty, TOPK) == -1).all()


def test_sizes_of_a_real_model(interpreted):
    """Past the capacity, at it, and in between; queries of two requests in one block."""
    inputs = random_inputs(4, 36_000)
    starts = int32([0, 3, 500, 33_000])
    lengths = int32([36_000, 8192, 32_768, 3000])
    sizes = Sizes.of(2048, HEADS)
    expected = the_pair(interpreted, inputs, starts, lengths, 2048, sizes=sizes)
    rows_alike(fused(interpreted, *inputs, starts, lengths, 2048, sizes=None), expected)
    bounds = guessed_bounds(interpreted, inputs, starts, lengths, sizes)
    failed, _ = failed_rows(interpreted, inputs, starts, lengths, bounds, sizes)
    assert not failed.any()


@settings(max_examples=15)
@given(
    st.lists(st.sampled_from(VALUES), min_size=1, max_size=90),
    st.integers(1, 20),
    st.integers(0, 5),
    st.sampled_from([1, 2, 8]),
)
def test_any_row(interpreted, values, topk, start, step):
    scores = torch.tensor(values)
    starts = int32([min(start, len(values)), 0, 0])
    lengths = int32([len(values) - int(starts[0]), len(values), len(values) // 2])
    inputs = inputs_that_score(scores, 3)
    expected = reference.select_positions(scores.expand(3, -1), starts, lengths, topk)
    sizes = Sizes(topk, block_q=2, lanes=16, step=step)
    rows_alike(fused(interpreted, *inputs, starts, lengths, topk, sizes=sizes), expected)


@pytest.mark.parametrize("num_keys, step", [(0, 4), (1, 1), (130, 4), (1000, 32)])
def test_samples_are_one_key_of_each_step(interpreted, num_keys, step):
    _, k, k_scale, _ = random_inputs(1, num_keys)
    sampled_k, sampled_scale = interpreted("gather_samples", k, k_scale, step)
    keys = sampled_keys(num_keys, step)
    assert [key // step for key in keys] == list(range(len(keys)))
    found = sampled_k.view(torch.uint8)
    assert torch.equal(found[: len(keys)], k.view(torch.uint8)[keys])
    assert torch.equal(sampled_scale[: len(keys)], k_scale[keys])
    assert not found[len(keys) :].any() and len(found) == -(-num_keys // step)


def test_a_bound_is_the_rank_that_stands_for_the_aim(interpreted):
    """Of the samples in the row's own window, or none where the window is kept whole."""
    starts, lengths = ragged_windows()
    # Windows that begin just behind a sample.
    starts = torch.cat((starts, torch.arange(100, 130, dtype=torch.int32)))
    lengths = torch.cat((lengths, int32([150] * 30)))
    scores = torch.randn(KEYS, generator=torch.Generator().manual_seed(5))
    inputs = inputs_that_score(scores, len(starts))
    bounds = guessed_bounds(interpreted, inputs, starts, lengths)
    keys = torch.tensor(sampled_keys(KEYS, SIZES.step))
    for start, length, bound in zip(starts.tolist(), lengths.tolist(), bounds, strict=True):
        inside = scores[keys[(keys >= start) & (keys < start + length)]]
        rank = max(SIZES.aim * len(inside) // max(length, 1), 1)
        assert bound == -INF if length <= CAPACITY else (inside >= bound).sum() == rank


def test_a_bound_is_near_its_rank_and_never_above(interpreted):
    """Counting ends within a sixteenth, on the side that costs no rescue."""
    scores = torch.randn(4096, generator=torch.Generator().manual_seed(6))
    sizes = Sizes(512, block_q=4, lanes=16, step=4)
    inputs = inputs_that_score(scores, 12)
    lengths = torch.arange(4085, 4097, dtype=torch.int32)
    bounds = guessed_bounds(interpreted, inputs, torch.zeros_like(lengths), lengths, sizes)
    keys = torch.tensor(sampled_keys(len(scores), sizes.step))
    for length, bound in zip(lengths.tolist(), bounds, strict=True):
        inside = scores[keys[keys < length]]
        rank = sizes.aim * len(inside) // length
        assert rank <= (inside >= bound).sum() <= rank + rank // 16


def test_samples_are_spread_over_their_steps():
    places = torch.tensor([key % 32 for key in sampled_keys(32 * 4096, 32)]).bincount()
    assert len(places) == 32 and places.min() > 96 and places.max() < 160


@pytest.mark.parametrize("topk", [1, 8, 128, 2048])
def test_sizes_leave_the_guess_room_on_both_sides(topk):
    sizes = Sizes.of(topk, HEADS)
    capacity = sizes.lanes * sizes.levels
    assert sizes.aim <= 0.45 * capacity
    assert sizes.aim >= 1.7 * topk or topk == 1
    assert sizes.aim // sizes.step >= min(topk, 100)  # samples above the bound
