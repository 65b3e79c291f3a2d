"""Ratios: their direction, their pairing, and intervals that hold what they should hold."""

import numpy as np
import pytest

from sglang_ic.bench.compare import ratios


def blocks_of(request_of, block_of, arm, seed, *, factor=1.0, rounds=4, count=12, weather=0.0):
    """Rounds of noisy requests, `factor` times as slow; `weather` is a round's own slowness."""
    random = np.random.default_rng(seed)
    result = []
    for number in range(rounds):
        slow = factor * float(np.exp(weather * random.normal()))
        requests = [
            request_of(
                index,
                ttft=slow * (0.1 + 0.1 * index) * float(random.uniform(0.9, 1.1)),
                itl=tuple(slow * random.uniform(0.018, 0.022, size=5)),
            )
            for index in range(count)
        ]
        result.append(block_of(requests, arm=arm, round=number))
    return result


def test_a_faster_arm_has_ratios_above_one(request_of, block_of):
    reference = blocks_of(request_of, block_of, "full", 1)
    faster = blocks_of(request_of, block_of, "fast", 2, factor=0.5)
    told = ratios(reference, faster)
    for key in ("ttft_p50", "ttft_mean", "itl_p50", "itl_p99", "e2e_mean"):
        assert told[key]["ratio"] == pytest.approx(2.0, rel=0.1), key
        assert told[key]["low"] < 2.0 < told[key]["high"] or told[key]["ratio"] != 2.0
        assert 1.5 < told[key]["low"] <= told[key]["ratio"] <= told[key]["high"] < 2.5
    assert told["output_tokens_per_sec"]["ratio"] == pytest.approx(2.0, rel=0.1)
    assert told["ttft_p50"]["num_pairs"] == 48


def test_an_arm_against_itself_is_exactly_one(request_of, block_of):
    reference = blocks_of(request_of, block_of, "full", 1)
    told = ratios(reference, reference)
    assert {entry["ratio"] for entry in told.values()} == {1.0}
    assert {entry["low"] for entry in told.values()} == {1.0}


def test_the_interval_covers_the_truth_about_as_often_as_it_says(request_of, block_of):
    """Rounds with weather: drawing requests alone would cover far less often."""
    covered = 0
    for seed in range(40):
        make = dict(rounds=8, count=6, weather=0.1)
        reference = blocks_of(request_of, block_of, "full", 2 * seed, **make)
        arm = blocks_of(request_of, block_of, "same", 2 * seed + 1, **make)
        entry = ratios(reference, arm)["ttft_mean"]
        covered += entry["low"] <= 1.0 <= entry["high"]
    assert covered >= 33


def test_only_requests_that_succeeded_in_both_arms_are_paired(request_of, block_of):
    reference = [block_of([request_of(0, ttft=0.2), request_of(1, ttft=5.0), request_of(2)])]
    arm = [block_of([request_of(0, ttft=0.1), request_of(1, error="no token")])]
    told = ratios(reference, arm)
    assert told["ttft_p50"]["num_pairs"] == 1
    assert told["ttft_p50"]["ratio"] == pytest.approx(2.0)
    assert told["ttft_p50"]["low"] is None  # one pair has no spread


def test_rounds_of_one_side_only_are_left_out(request_of, block_of):
    both = block_of([request_of(0, ttft=0.2), request_of(1, ttft=0.2)])
    extra = block_of([request_of(0, ttft=50.0)], round=1)
    told = ratios([both, extra], [both])
    assert told["ttft_mean"]["ratio"] == 1.0
    assert told["output_tokens_per_sec"]["num_rounds"] == 1
    assert told["output_tokens_per_sec"]["low"] is None


def test_nothing_in_common_gives_no_ratio(request_of, block_of):
    one = block_of([request_of(0)])
    assert ratios([one], []) == {}
    assert ratios([one], [block_of([request_of(0, error="no token")])]) == {}


def test_rounds_of_unequal_size_are_drawn_from_their_own_requests(request_of, block_of):
    """A short round must not lend its padding: a ratio outside all pairs would show it."""
    reference = [
        block_of([request_of(i, ttft=0.2) for i in range(6)]),
        block_of([request_of(0, ttft=0.6)], round=1),
    ]
    arm = [
        block_of([request_of(i, ttft=0.1) for i in range(6)]),
        block_of([request_of(0, ttft=0.2)], round=1),
    ]
    entry = ratios(reference, arm)["ttft_mean"]
    assert 2.0 <= entry["low"] <= entry["ratio"] <= entry["high"] <= 3.0
