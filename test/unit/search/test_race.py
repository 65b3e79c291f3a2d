"""The best of several patterns with few evaluations."""

import math

import numpy as np
import pytest
from _objectives import Synthetic
from hypothesis import given
from hypothesis import strategies as st

from sglang_ic.search.estimate import estimate
from sglang_ic.search.objective import LossTable
from sglang_ic.search.race import Contestant, race, rounds

BASE = "base"


def table_of(losses):
    """A table over rows {pattern: [Q] losses}; patterns are any words here."""
    rows = {BASE: [0.0] * len(next(iter(losses.values()))), **losses}
    objective = Synthetic(lambda pattern, q: float(rows[pattern][q]), [1] * len(rows[BASE]))
    return LossTable(objective), objective


def contest(losses, racing, bounds=None):
    table, objective = table_of(losses)
    contestants = [Contestant(k, k, (bounds or {}).get(k, -math.inf)) for k in losses]
    return race(table, BASE, contestants, racing), objective


def test_rounds_grow_and_end_with_everything():
    assert rounds(20, True) == [4, 6, 9, 13, 19, 20]
    assert rounds(13, True) == [4, 6, 9, 13]
    assert rounds(3, True) == [3]
    assert rounds(20, False) == [20]


@given(
    st.lists(st.lists(st.integers(-3, 3), min_size=6, max_size=6), min_size=1, max_size=6),
)
def test_without_racing_and_bounds_the_first_best_wins(rows):
    losses = {f"p{i}": row for i, row in enumerate(rows)}
    verdict, _ = contest(losses, racing=False)
    assert verdict.winner == min(losses, key=lambda k: sum(losses[k]))


@given(
    st.lists(st.lists(st.integers(-3, 3), min_size=6, max_size=6), min_size=1, max_size=6),
    st.lists(st.integers(0, 3), min_size=6, max_size=6),
)
def test_bounds_that_hold_change_no_winner(rows, slack):
    losses = {f"p{i}": row for i, row in enumerate(rows)}
    bounds = {k: np.mean(losses[k]) - slack[i] for i, k in enumerate(losses)}
    verdict, _ = contest(losses, racing=False, bounds=bounds)
    assert verdict.winner == min(losses, key=lambda k: sum(losses[k]))


def test_who_cannot_win_is_not_looked_at():
    losses = {"good": [1.0] * 8, "bad": [9.0] * 8}
    verdict, objective = contest(losses, racing=True, bounds={"good": 0.0, "bad": 5.0})
    assert verdict.winner == "good"
    assert "bad" not in {pattern for pattern, _ in objective.asked}
    assert "bad" not in verdict.increases


def test_a_bound_that_the_leader_passes_later_is_still_honoured():
    """The leader looks below 1 at first, is 2.5 on all; a bound of 1 must be tried."""
    losses = {"late": [0.0, 1.8, 0.1, 1.7] + [3.0] * 12, "even": [1.2, 1.3] * 8}
    verdict, _ = contest(losses, racing=True, bounds={"late": 0.0, "even": 1.0})
    assert verdict.winner == "even"


def test_hopeless_patterns_are_dropped_after_a_few_sequences():
    generator = np.random.default_rng(1)
    losses = {f"p{i}": i + generator.normal(0, 0.3, 64) for i in range(6)}
    verdict, objective = contest(losses, racing=True)
    assert verdict.winner == "p0"
    assert verdict.increases["p0"].num_sequences == 64
    assert verdict.increases["p5"].num_sequences < 16
    assert len(objective.asked) < 3 * 64


@given(st.integers(0, 200))
def test_the_winner_was_evaluated_on_every_sequence(seed):
    generator = np.random.default_rng(seed)
    losses = {f"p{i}": generator.normal(0, 1, 40) for i in range(5)}
    verdict, _ = contest(losses, racing=True)
    assert verdict.increases[verdict.winner].num_sequences == 40
    whole = [k for k, found in verdict.increases.items() if found.num_sequences == 40]
    assert verdict.winner == min(whole, key=lambda k: losses[k].mean())


def test_racing_rarely_loses_the_best():
    """300 races of near equals, whose means differ by half of a sequence's spread."""
    wrong = 0
    for seed in range(300):
        generator = np.random.default_rng(seed)
        losses = {f"p{i}": 0.5 * i + generator.normal(0, 1, 48) for i in range(4)}
        verdict, _ = contest(losses, racing=True)
        wrong += verdict.winner != min(losses, key=lambda k: losses[k].mean())
    assert wrong <= 9


def test_losses_are_asked_for_once():
    losses = {f"p{i}": np.random.default_rng(i).normal(0, 1, 40) for i in range(5)}
    _, objective = contest(losses, racing=True)
    assert len(objective.asked) == len(set(objective.asked))


def test_an_estimate_from_everything_is_a_fact():
    found = estimate(np.array([1.0, 3.0]), np.array([1, 1]))
    assert (found.mean, found.error, found.lower(0.99)) == (2.0, 0.0, 2.0)


def test_an_estimate_from_one_of_several_says_nothing():
    assert estimate(np.array([1.0]), np.array([1, 1, 1])).lower(0.99) == -math.inf


def test_an_estimates_bound_holds_as_often_as_it_says():
    population = np.random.default_rng(5).normal(0, 1, 40)
    weights, held = np.ones(40, dtype=int), 0
    for seed in range(2000):
        order = np.random.default_rng(seed).permutation(40)
        held += estimate(population[order[:10]], weights).lower(0.9) <= population.mean()
    assert held / 2000 == pytest.approx(0.9, abs=0.03)
