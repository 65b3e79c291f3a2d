"""The bound on KL against hand-computed values, and against exact ones."""

import math

import numpy as np
import pytest

from sglang_ic.evaluate.kl import ROWS_PER_BLOCK, Named, bounded_kl


def named(target, probability, ids, probabilities):
    """One prediction."""
    return Named(
        np.array([target], np.int32),
        np.log([probability]),
        np.array([ids], np.int32),
        np.log([probabilities]),
    )


def test_whole_vocabulary_is_exact():
    reference = named(0, 0.5, [0, 1, 2], [0.5, 0.3, 0.2])
    arm = named(0, 0.25, [2, 0, 1], [0.5, 0.25, 0.25])
    kl, unresolved = bounded_kl(reference, arm)
    exact = 0.5 * math.log(0.5 / 0.25) + 0.3 * math.log(0.3 / 0.25) + 0.2 * math.log(0.2 / 0.5)
    assert kl[0] == pytest.approx(exact, abs=1e-6)
    assert unresolved[0] < 1e-6


def test_true_token_counts_even_if_no_list_has_it():
    reference = named(9, 0.1, [0, 1], [0.5, 0.4])
    arm = named(9, 0.3, [0, 1], [0.36, 0.34])
    exact = 0.5 * math.log(0.5 / 0.36) + 0.4 * math.log(0.4 / 0.34) + 0.1 * math.log(0.1 / 0.3)
    assert bounded_kl(reference, arm)[0][0] == pytest.approx(exact, abs=1e-6)


def test_token_that_the_arm_does_not_name_has_at_most_its_last_probability():
    # Token 1 could have 0.3 at the arm; the rest, 0.1 of the reference, shares 0.4 - 0.3.
    reference = named(0, 0.4, [1, 0], [0.5, 0.4])
    arm = named(0, 0.3, [2, 0], [0.3, 0.3])
    kl, unresolved = bounded_kl(reference, arm)
    # Everything but token 0 has 0.7 at the arm, 0.3 of it at most on token 1.
    by_hand = 0.4 * math.log(0.4 / 0.3) + 0.5 * math.log(0.5 / 0.3) + 0.1 * math.log(0.1 / 0.4)
    assert kl[0] == pytest.approx(by_hand)
    assert unresolved[0] == pytest.approx(0.6)


def test_what_fits_under_the_cap_is_one_bucket():
    reference = named(0, 0.6, [0, 1], [0.6, 0.1])
    arm = named(0, 0.5, [0, 2], [0.5, 0.3])
    # Token 1 would get 0.1 / 0.4 of 0.5, below 0.3.
    by_hand = 0.6 * math.log(0.6 / 0.5) + 0.4 * math.log(0.4 / 0.5)
    assert bounded_kl(reference, arm)[0][0] == pytest.approx(by_hand)


def test_equal_distributions_have_none():
    same = named(7, 0.01, [0, 1], [0.5, 0.3])
    assert bounded_kl(same, same)[0].tolist() == [0.0]


def test_bound_holds_and_grows_with_the_list():
    generator = np.random.default_rng(0)
    num_rows, num_tokens = 2 * ROWS_PER_BLOCK + 7, 40
    p, q = generator.dirichlet(np.full(num_tokens, 0.3), (2, num_rows))
    targets = generator.integers(0, num_tokens, num_rows)
    exact = (p * np.log(p / q)).sum(1)

    def arm(distribution, num_top):
        ids = np.argsort(-distribution, 1)[:, :num_top]
        return Named(
            targets.astype(np.int32),
            np.log(distribution[np.arange(num_rows), targets]),
            ids.astype(np.int32),
            np.log(np.take_along_axis(distribution, ids, 1)),
        )

    before = np.zeros(num_rows)
    for num_top in (2, 4, 12, 40):
        found, _ = bounded_kl(arm(p, num_top), arm(q, num_top))
        assert (found <= exact + 1e-4).all()
        assert found.mean() > before.mean()
        before = found
    assert found == pytest.approx(exact, abs=1e-3)
