"""What a whole search would take, from a few timed candidates."""

import pytest
from search_report import speed

from sglang_ic.pattern import LayerPattern
from sglang_ic.search.constraints import Constraints


def test_projection_by_hand():
    """Three layers to one Full: candidates 2, then 1; and the start."""
    rules = Constraints.make(LayerPattern.full(3), 1, (), 1)
    lengths = [10] * 8
    whole = {"seconds": 2.0, "layer_tokens": 240}
    timed = [{"layer": 2, "seconds": 1.0, "layer_tokens": 80}]
    found = speed.project(rules, lengths, whole, whole, timed, [1, 2])
    assert found["exhaustive"]["num_candidates"] == 3
    assert found["exhaustive"]["projected_seconds"] == 4 * 2.0
    assert found["fast"]["seconds_per_layer_token"] == 1 / 80
    # At best: the start (3 layers x 80), layer 1 in the first round (2 x 40), the winners 2 and 1
    # (1 x 80 and 2 x 80).
    assert found["fast"]["layer_token_forwards"][0] == 240 + 80 + 80 + 160
    assert found["fast"]["projected_seconds"][0] == pytest.approx(560 / 80)


@pytest.mark.parametrize(
    ("wanted", "layers"), [(1, [46]), (2, [23, 46]), (4, [11, 23, 34, 46]), (99, [*range(1, 47)])]
)
def test_timed_layers_are_spread_and_end_with_the_highest(wanted, layers):
    assert speed.spread(range(1, 47), wanted) == layers
