"""Patterns that a searched one is compared with."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_ic.pattern import LayerPattern, PatternError
from sglang_ic.search.controls import Controls, similarity_pattern


def kept(overlap, text):
    """Sum of each layer's overlap with its owner."""
    return sum(overlap[layer, owner] for layer, owner in enumerate(LayerPattern(text).owners))


@given(st.integers(0, 300), st.integers(2, 7), st.data())
def test_similarity_is_the_best_of_all_patterns(seed, num_layers, data):
    overlap = np.random.default_rng(seed).random((num_layers, num_layers))
    others = data.draw(st.sets(st.integers(1, num_layers - 1)))
    layers = sorted({0, *others})
    num_full = data.draw(st.integers(1, len(layers)))
    found = similarity_pattern(overlap, layers, num_full)
    assert found.count("F") == num_full
    best = max(
        kept(overlap, "".join("F" if x in {0, *chosen} else "S" for x in range(num_layers)))
        for chosen in combinations(layers[1:], num_full - 1)
    )
    assert kept(overlap, found) == pytest.approx(best)


def test_controls_have_the_same_number_of_full_layers_and_differ():
    controls = Controls.parse(["uniform", "similarity", "random:5"])
    found = controls.patterns(LayerPattern.full(16), 4, np.eye(16))
    assert [kind for kind, _ in found] == ["uniform", "similarity", *["random"] * 5]
    assert found[0][1] == "FSSSFSSSFSSSFSSS"
    assert all(text.count("F") == 4 and LayerPattern(text) for _, text in found)
    assert len({text for _, text in found[2:]}) == 5


def test_controls_of_trained_sharing_use_layers_that_have_an_indexer():
    start = LayerPattern("FFSSFFSF")
    found = Controls(True, True, 3).patterns(start, 3, np.eye(8))
    for _, text in found:
        assert text.count("F") == 3
        assert all(start.is_full(x) for x, letter in enumerate(text) if letter == "F")


def test_there_are_no_more_random_patterns_than_there_are():
    assert len(Controls(num_random=10).patterns(LayerPattern.full(4), 2, None)) == 3


@pytest.mark.parametrize("given", ["Uniform", "random", "random:0", "random:x", "greedy", ""])
def test_another_control_is_refused(given):
    with pytest.raises(PatternError, match="--control|random"):
        Controls.parse([given])
