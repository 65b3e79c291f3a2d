"""Overlap and attention mass of selections, against hand-computed values."""

import numpy as np
import pytest

from sglang_ic.evaluate.overlap import (
    Probed,
    chance_overlap,
    mean_mass,
    mean_overlap,
    overlap_matrix,
    recalled,
    sampled_positions,
)
from sglang_ic.pattern import LayerPattern


def test_overlap_by_hand():
    # Layers share 2 of 4 in row 0 and 4 of 4, in another order, in row 1.
    topk = np.array([[[0, 1, 2, 3], [5, 6, 7, 8]], [[2, 3, 9, 4], [8, 7, 6, 5]]], np.int32)
    assert overlap_matrix(topk).tolist() == [[1.0, 0.75], [0.75, 1.0]]


def test_unused_places_do_not_count():
    topk = np.array([[[0, 1, -1, -1]], [[1, -1, 2, -1]]], np.int32)
    assert overlap_matrix(topk).tolist() == [[1.0, 0.5], [0.5, 1.0]]


def probed(rows, overlapping, mass):
    topk = np.zeros((2, rows, 2), np.int32)
    topk[:, :] = [0, 1]
    if not overlapping:
        topk[1] = [2, 3]
    values = np.full((2, 2, rows), np.nan)
    values[0, 0], values[1, 0], values[1, 1] = mass
    return Probed(np.arange(rows) + 7, topk, values)


def test_means_weigh_rows_not_samples():
    both = [probed(1, True, (1.0, 0.8, 0.9)), probed(3, False, (0.6, 0.4, 0.5))]
    assert mean_overlap(both)[0, 1] == pytest.approx(0.25)
    mass = mean_mass(both)
    assert mass[1].tolist() == pytest.approx([0.5, 0.6])
    assert np.isnan(mass[0, 1])
    # 2 of 8, and 2 of 8, 9, 10 tokens seen.
    assert chance_overlap(both) == pytest.approx((2 / 8 + 2 / 8 + 2 / 9 + 2 / 10) / 4)


def test_recalled_mass_is_that_of_the_owners_set():
    mass = np.array([[0.9, np.nan, np.nan], [0.5, 0.8, np.nan], [0.3, 0.4, 0.7]])
    assert recalled(mass, LayerPattern("FFF")).tolist() == [0.9, 0.8, 0.7]
    assert recalled(mass, LayerPattern("FSS")).tolist() == [0.9, 0.5, 0.3]
    assert recalled(mass, LayerPattern("FFS")).tolist() == [0.9, 0.8, 0.4]


def test_sampled_positions_see_at_least_four_times_what_is_selected():
    found = sampled_positions(1000, 32, 64)
    assert (found[0], found[-1], len(found)) == (128, 999, 64)
    assert sampled_positions(130, 32, 64) == [128, 129]
