"""Which arms are measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_ic.evaluate.arms import (
    Controls,
    own_pattern,
    plan,
    random_pattern,
    uniform_pattern,
)
from sglang_ic.pattern import PatternError


def texts(arms):
    return [arm.pattern.text for arm in arms]


def test_reference_comes_first_and_patterns_follow():
    arms, notes = plan("full", ["freq:4", "FSSSSSSF"], Controls(), 8)
    assert [(arm.name, arm.kind) for arm in arms] == [
        ("full", "reference"),
        ("freq:4", "pattern"),
        ("FSSSSSSF", "pattern"),
    ]
    assert texts(arms) == ["FFFFFFFF", "FFSSSFSS", "FSSSSSSF"]
    assert notes == ()


def test_reference_given_as_a_pattern_is_measured_again_under_its_own_name():
    arms, _ = plan("full", ["full"], Controls(), 4)
    assert [arm.name for arm in arms] == ["full", "full again"]


def test_controls_have_the_full_count_of_each_pattern_and_are_measured_once():
    arms, notes = plan("full", ["FFSSSSSS", "FSSSFSSS", "FFFSSSSS"], Controls(True, 2), 8)
    controls = arms[4:]
    assert [(arm.kind, arm.pattern.num_full) for arm in controls] == [
        ("random", 2),
        ("random", 2),
        ("uniform", 3),
        ("random", 3),
        ("random", 3),
    ]
    assert len(set(texts(arms))) == len(arms)
    assert notes == ("uniform@2 is the same as FSSSFSSS",)
    assert all((arm.seed is None) == (arm.kind == "uniform") for arm in controls)


def test_full_pattern_has_no_controls():
    assert len(plan("FSFS", ["full"], Controls(True, 3), 4)[0]) == 2


def test_missing_random_patterns_are_told():
    arms, notes = plan("full", ["FFSS"], Controls(False, 5), 4)
    assert sorted(texts(arms[2:])) == ["FSFS", "FSSF"]
    assert notes == (
        "only 2 of 5 random patterns: no more with 2 Full of 4 layers differ from the others",
    )


@given(st.integers(1, 80), st.data())
def test_control_patterns_are_valid_and_the_same_every_time(num_layers, data):
    num_full = data.draw(st.integers(1, num_layers))
    seed = data.draw(st.integers(0, 5))
    drawn = random_pattern(num_layers, num_full, seed)
    assert drawn.num_full == num_full
    assert drawn == random_pattern(num_layers, num_full, seed)
    spread = uniform_pattern(num_layers, num_full)
    assert spread.num_full == num_full
    full = [*spread.full_layers, num_layers]
    gaps = [b - a for a, b in zip(full, full[1:], strict=False)]
    assert max(gaps) - min(gaps) <= 1


def test_uniform_quarter_is_the_papers():
    assert uniform_pattern(16, 4).text == "FSSS" * 4


REFUSED = {
    "twice": (["freq:4", "FFSSSFSS"], "same pattern"),
    "wrong length": (["FSS"], "3 letters"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_patterns_are_refused(name):
    patterns, words = REFUSED[name]
    with pytest.raises(PatternError, match=words):
        plan("full", patterns, Controls(), 8)


def test_controls_are_parsed_or_refused():
    assert Controls.parse(["uniform", "random:3"]) == Controls(True, 3)
    assert Controls.parse([]) == Controls()
    for text in ("even", "random", "random:0", "random:x"):
        with pytest.raises(PatternError):
            Controls.parse([text])


def test_checkpoint_with_trained_sharing_has_a_pattern_of_its_own():
    assert own_pattern(None, 4) is None
    assert own_pattern(frozenset(range(5)), 4) is None  # layer 4 is an MTP layer
    assert own_pattern(frozenset({0, 2}), 4).text == "FSFS"
    with pytest.raises(PatternError, match="layer 0"):
        own_pattern(frozenset({1}), 4)


def test_a_pattern_with_candidate_layers_has_no_controls(monkeypatch):
    monkeypatch.setenv("SGLANG_IC_APPROXIMATE_CANDIDATE_PAGES", "20")
    arms, notes = plan("full", ["FCCCCCCC", "FFSSSSSS"], Controls(True, 1), 8)
    assert [arm.kind for arm in arms] == ["reference", "pattern", "pattern", "uniform", "random"]
    assert {arm.pattern.num_full for arm in arms[3:]} == {2} and notes == ()
