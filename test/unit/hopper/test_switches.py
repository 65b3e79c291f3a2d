"""The switches: off unless named, and a wrong name is refused."""

import pytest

from sglang_ic.hopper.switches import PREFILL_SCORES, PREFILL_TOPK, Switches


@pytest.mark.parametrize("environment", [{}, {PREFILL_TOPK: ""}, {PREFILL_SCORES: " "}])
def test_nothing_runs_unless_asked_for(environment):
    assert Switches.read(environment) == Switches(None, None)


@pytest.mark.parametrize("name", ["ragged", "triton"])
def test_a_topk_is_named(name):
    assert Switches.read({PREFILL_TOPK: name}) == Switches(prefill_topk=name)


def test_scores_have_a_switch_of_their_own():
    assert Switches.read({PREFILL_SCORES: "triton"}) == Switches(prefill_scores="triton")


@pytest.mark.parametrize(
    "name, value, accepted",
    [(PREFILL_TOPK, "fast", "ragged, triton"), (PREFILL_SCORES, "ragged", "triton")],
)
def test_another_name_is_refused_in_one_line(name, value, accepted):
    with pytest.raises(ValueError) as refused:
        Switches.read({name: value})
    assert str(refused.value) == (
        f"{name}={value}: accepted is {accepted}; unset it for upstream's own"
    )
