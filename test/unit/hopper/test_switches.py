"""The switches: what was measured runs unless turned off, and a wrong name is refused."""

from dataclasses import fields, replace

import pytest

from sglang_ic.hopper.switches import (
    DECODE_ATTENTION,
    DECODE_STREAMS,
    NAMES,
    OFF,
    PREFILL_ATTENTION,
    PREFILL_SCORES,
    PREFILL_TOPK,
    Switches,
    asked_for,
    field_of,
)

MEASURED = Switches(
    prefill_topk="ragged",
    prefill_scores="fused",
    prefill_attention="heads",
    decode_attention="split",
)


@pytest.mark.parametrize("environment", [{}, {PREFILL_TOPK: ""}, {PREFILL_SCORES: " "}])
def test_what_was_measured_runs_unless_turned_off(environment):
    assert Switches.read(environment) == MEASURED
    assert asked_for(environment) == ()


def test_all_is_turned_off_by_one_word():
    environment = dict.fromkeys(NAMES, OFF)
    assert Switches.read(environment) == Switches()
    assert asked_for(environment) == ()


def test_every_variable_has_a_field():
    assert {field_of(name) for name in NAMES} == {one.name for one in fields(Switches)}


def test_every_replacement_can_be_asked_for():
    given = {
        PREFILL_TOPK: "ragged",
        PREFILL_SCORES: "fused",
        PREFILL_ATTENTION: "heads",
        DECODE_ATTENTION: "split",
        DECODE_STREAMS: "roles",
    }
    assert Switches.read(given) == replace(MEASURED, decode_streams="roles")
    assert asked_for(given) == tuple(given)


@pytest.mark.parametrize("name", [name for name in NAMES if name != DECODE_STREAMS])
def test_each_is_turned_off_by_itself(name):
    assert Switches.read({name: OFF}) == replace(MEASURED, **{field_of(name): None})


@pytest.mark.parametrize(
    "name, value, accepted",
    [
        (PREFILL_TOPK, "triton", "ragged, off"),
        (PREFILL_SCORES, "triton", "fused, off"),
        (PREFILL_ATTENTION, "32", "heads, off"),
        (DECODE_ATTENTION, "heads", "split, off"),
        (DECODE_STREAMS, "two", "indexer, roles, off"),
    ],
)
def test_another_name_is_refused_in_one_line(name, value, accepted):
    with pytest.raises(ValueError) as refused:
        Switches.read({name: value})
    assert str(refused.value) == f"{name}={value}: accepted is {accepted}; unset it for the default"
