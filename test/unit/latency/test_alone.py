"""Time in which one kind of kernel runs and no other, against a count of every microsecond."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_ic.latency.alone import alone_us

SPAN = st.tuples(st.sampled_from("abc"), st.integers(0, 30), st.integers(0, 12))


def test_kernels_side_by_side_count_for_neither():
    events = [("scores", 0, 10), ("moe", 6, 10), ("scores", 20, 5), ("scores", 22, 1)]
    assert alone_us(events) == ({"scores": 6 + 5, "moe": 6}, 21)


def test_nothing_ran():
    assert alone_us([]) == ({}, 0)


@given(st.lists(SPAN, max_size=12))
def test_every_microsecond_is_counted_once(events):
    kinds = [
        {kind for kind, begin, duration in events if begin <= now < begin + duration}
        for now in range(50)
    ]
    found, busy = alone_us(events)
    assert busy == sum(1 for one in kinds if one)
    for kind in "abc":
        assert found.get(kind, 0) == pytest.approx(sum(1 for one in kinds if one == {kind}))
