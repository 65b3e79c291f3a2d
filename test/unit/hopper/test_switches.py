"""The switches: off unless named, and a wrong name is refused."""

import pytest

from sglang_ic.hopper.switches import (
    DECODE_STREAMS,
    NAMES,
    PREFILL_ATTENTION,
    PREFILL_PADDING,
    PREFILL_SCORES,
    PREFILL_TOPK,
    Switches,
)


@pytest.mark.parametrize("environment", [{}, {PREFILL_TOPK: ""}, {PREFILL_SCORES: " "}])
def test_nothing_runs_unless_asked_for(environment):
    assert Switches.read(environment) == Switches(None, None)


def test_topk_and_scores_have_a_switch_each():
    assert Switches.read({PREFILL_TOPK: "ragged"}) == Switches(prefill_topk="ragged")
    assert Switches.read({PREFILL_SCORES: "fused"}) == Switches(prefill_scores="fused")


def test_padding_and_streams_have_switches_that_go_with_all_others():
    given = {PREFILL_PADDING: "overlap", PREFILL_SCORES: "fused", DECODE_STREAMS: "roles"}
    assert Switches.read(given) == Switches(
        prefill_scores="fused", prefill_padding="overlap", decode_streams="roles"
    )


def test_attention_has_a_switch_that_goes_with_all_but_padding():
    given = {PREFILL_ATTENTION: "heads", PREFILL_SCORES: "fused", DECODE_STREAMS: "roles"}
    assert Switches.read(given) == Switches(
        prefill_scores="fused", prefill_attention="heads", decode_streams="roles"
    )
    assert PREFILL_ATTENTION in NAMES


def test_attention_without_padding_refuses_padding_beside_it():
    with pytest.raises(ValueError) as refused:
        Switches.read({PREFILL_ATTENTION: "heads", PREFILL_PADDING: "overlap"})
    assert str(refused.value) == (
        f"{PREFILL_PADDING}=overlap: {PREFILL_ATTENTION}=heads pads nothing; unset one of them"
    )


def test_fused_scores_refuse_a_topk_beside_them():
    with pytest.raises(ValueError) as refused:
        Switches.read({PREFILL_SCORES: "fused", PREFILL_TOPK: "ragged"})
    assert str(refused.value) == (
        f"{PREFILL_TOPK}=ragged: {PREFILL_SCORES}=fused selects too; unset one of them"
    )


@pytest.mark.parametrize(
    "name, value, accepted",
    [(PREFILL_TOPK, "triton", "ragged"), (PREFILL_SCORES, "triton", "fused")]
    + [(PREFILL_PADDING, "no", "overlap"), (DECODE_STREAMS, "two", "indexer, roles")]
    + [(PREFILL_ATTENTION, "32", "heads")],
)
def test_another_name_is_refused_in_one_line(name, value, accepted):
    with pytest.raises(ValueError) as refused:
        Switches.read({name: value})
    assert str(refused.value) == (
        f"{name}={value}: accepted is {accepted}; unset it for upstream's own"
    )
