"""The order of blocks: fair, complete, the same seeds for all arms."""

from collections import Counter

import pytest

from sglang_ic.bench.schedule import blocks

ARMS = ["A", "B", "C"]


@pytest.mark.parametrize("together", [True, False])
def test_every_arm_runs_every_load_in_every_round_once(together):
    order = blocks(ARMS, 4, 3, together=together)
    assert len(order) == len(set(order)) == 3 * 4 * 3


def test_arms_take_turns_forward_and_backward():
    names = "".join(block.arm for block in blocks(["A", "B"], 1, 4, together=True))
    assert names == "ABBAABBA"
    assert "".join(block.arm for block in blocks(ARMS, 1, 2, together=True)) == "ABCCBA"


@pytest.mark.parametrize("together", [True, False])
def test_over_an_even_number_of_rounds_no_arm_is_earlier(together):
    order = blocks(ARMS, 2, 4, together=together)
    for point in range(2):
        places = Counter()
        for place, block in enumerate(order):
            if block.point == point:
                places[block.arm] += place
        assert len(set(places.values())) == 1, places


def test_one_server_at_a_time_runs_all_loads_of_a_round_before_the_next_starts():
    order = blocks(["A", "B"], 3, 2, together=False)
    starts = [b.arm for i, b in enumerate(order) if i == 0 or order[i - 1].arm != b.arm]
    assert starts == ["A", "B", "A"]  # B stays up between its rounds


@pytest.mark.parametrize("together", [True, False])
def test_the_reference_runs_every_load_before_any_other_arm(together):
    seen = set()
    for block in blocks(ARMS, 3, 2, together=together):
        assert block.arm == "A" or block.point in seen
        seen.add(block.point)


def test_seeds_differ_by_round_and_load_and_not_by_arm():
    seeds = {}
    for block in blocks(ARMS, 5, 3, together=True):
        seeds.setdefault((block.point, block.round), set()).add(block.seed(7))
    assert all(len(found) == 1 for found in seeds.values())
    assert len(set.union(*seeds.values())) == 15
