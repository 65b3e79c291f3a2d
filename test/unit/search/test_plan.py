"""The plan's counts against what searches really do."""

import pytest
from _objectives import Resuming, Synthetic, like_a_model
from hypothesis import given
from hypothesis import strategies as st

from sglang_ic.pattern import LayerPattern
from sglang_ic.search.constraints import Constraints
from sglang_ic.search.greedy import EXHAUSTIVE, FAST, search
from sglang_ic.search.objective import LossTable
from sglang_ic.search.plan import exhaustive_cost, fast_cost


@pytest.mark.parametrize(
    ("num_layers", "num_full", "evaluations"), [(47, 12, 1015), (78, 22, 2772)]
)
def test_the_papers_searches_have_the_papers_counts(num_layers, num_full, evaluations):
    rules = Constraints.make(LayerPattern.full(num_layers), num_full, (), 1)
    cost = exhaustive_cost(rules, 1000)
    assert cost.num_evaluations == evaluations
    assert cost.at_most == (evaluations + 1) * num_layers * 1000


@given(st.integers(0, 100), st.integers(1, 3), st.data())
def test_an_exhaustive_search_does_what_was_planned(seed, num_blocks, data):
    rules = Constraints.make(LayerPattern.full(9), data.draw(st.integers(3, 8)), (), num_blocks)
    objective = Synthetic(like_a_model(9, 5, seed), [10] * 5)
    list(search(LossTable(objective), rules, EXHAUSTIVE))
    planned = exhaustive_cost(rules, 5 * 11)
    assert objective.layer_token_forwards == planned.at_least == planned.at_most


@given(st.integers(0, 100), st.sets(st.integers(1, 8)), st.data())
def test_a_fast_search_costs_what_was_planned_or_less(seed, kept, data):
    rules = Constraints.make(LayerPattern.full(9), data.draw(st.integers(1, 8)), (), 1)
    objective = Resuming(like_a_model(9, 12, seed), [10] * 12, kept)
    list(search(LossTable(objective), rules, FAST))
    planned = fast_cost(
        rules, [11] * 12, lambda layer: max((x for x in kept if x <= layer), default=0)
    )
    assert planned.at_least <= objective.layer_token_forwards <= planned.at_most
