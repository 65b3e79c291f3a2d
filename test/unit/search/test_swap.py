"""Exchanges after the search."""

import pytest
from _objectives import Synthetic, like_a_model
from hypothesis import given
from hypothesis import strategies as st

from sglang_ic.pattern import LayerPattern
from sglang_ic.search.constraints import Constraints
from sglang_ic.search.objective import LossTable
from sglang_ic.search.swap import exchanges, refine

FULL = LayerPattern.full(6)


def total(loss, pattern, count):
    return sum(loss(pattern, q) for q in range(count))


@given(st.integers(0, 50), st.booleans())
def test_every_swap_lowers_the_loss_and_keeps_the_count(seed, racing):
    loss = like_a_model(6, 12, seed)
    rules = Constraints.make(FULL, 3, [4], 1)
    pattern = "FSSSFF"
    for swap in refine(LossTable(Synthetic(loss, [9] * 12)), pattern, rules, 5, racing):
        assert total(loss, swap.pattern, 12) < total(loss, pattern, 12)
        assert swap.pattern.count("F") == 3 and swap.pattern[4] == "F"
        pattern = LayerPattern(swap.pattern).text


def test_a_swap_undoes_a_conversion_that_was_good_only_at_first():
    prices = {"FFSS": 5.0, "FSFS": 3.0, "FSSF": 4.0}
    table = LossTable(Synthetic(lambda pattern, q: prices[pattern], [1, 1]))
    rules = Constraints.make(LayerPattern.full(4), 2, (), 1)
    swaps = list(refine(table, "FFSS", rules, 3, False))
    assert [swap.pattern for swap in swaps] == ["FSFS"]  # and then nothing helps


def test_an_exchange_that_changes_nothing_is_not_made():
    table = LossTable(Synthetic(lambda pattern, q: 1.0, [1, 1]))
    rules = Constraints.make(LayerPattern.full(4), 2, (), 1)
    assert list(refine(table, "FFSS", rules, 3, True)) == []


def test_only_what_may_be_changed_is_exchanged():
    rules = Constraints.make(LayerPattern("FFFSFFFF"), 5, [1], 2)
    # Layer 3 was Shared at the start, 0, 1 and 4 are fixed, and blocks keep their counts.
    assert exchanges("FFFSFSSF", rules) == [(7, 5), (7, 6)]
    assert exchanges("FFSSFSSF", rules) == [(7, 5), (7, 6)]


@pytest.mark.parametrize("max_swaps", [0, 1])
def test_at_most_as_many_as_asked_for(max_swaps):
    loss = like_a_model(6, 8, 1)
    rules = Constraints.make(FULL, 3, (), 1)
    table = LossTable(Synthetic(loss, [9] * 8))
    assert len(list(refine(table, "FFFSSS", rules, max_swaps, False))) == max_swaps
