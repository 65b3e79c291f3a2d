"""Candidate layers need the environment variable, with a number that can work; pure Python."""

import pytest

from sglang_ic.candidates.switch import (
    CANDIDATE_PAGES,
    candidate_pages,
    fewest_pages,
    require_switch,
)
from sglang_ic.pattern import LayerPattern, PatternError


def given(value):
    return {} if value is None else {CANDIDATE_PAGES: value}


def test_without_candidate_layers_the_variable_is_not_even_read():
    for value in (None, "", "1", "many"):
        assert candidate_pages("FFSS", 128, given(value)) is None
        require_switch("FFSS", given(value))


@pytest.mark.parametrize("value", [None, "", " "])
def test_candidate_layers_without_the_variable_are_refused(value):
    with pytest.raises(PatternError, match=f"'FCSC' has C .* approximate: set {CANDIDATE_PAGES}"):
        require_switch("FCSC", given(value))
    with pytest.raises(PatternError, match=CANDIDATE_PAGES):
        candidate_pages("FCSC", 128, given(value))


@pytest.mark.parametrize("value", ["many", "-1", "1.5", "1e3", "١٢٨", "0x80", "1234567"])
def test_a_value_that_is_no_whole_number_is_refused(value):
    with pytest.raises(PatternError, match="is not a whole number"):
        candidate_pages("FC", 128, given(value))


@pytest.mark.parametrize(
    "index_topk, fewest", [(64, 17), (128, 17), (576, 17), (577, 18), (2048, 40)]
)
def test_too_few_pages_are_refused(index_topk, fewest):
    assert fewest_pages(index_topk) == fewest
    assert candidate_pages("FC", index_topk, given(str(fewest))) == fewest
    with pytest.raises(PatternError, match=f"give {fewest} or more pages of 64 tokens"):
        candidate_pages("FC", index_topk, given(str(fewest - 1)))


def test_messages_are_one_line():
    for environment in (given(None), given("x"), given("3")):
        with pytest.raises(PatternError) as refused:
            candidate_pages("F" + "C" * 200, 2048, environment)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["FCSC", "FFFC"])
def test_every_reader_of_patterns_asks_for_the_variable(text, monkeypatch, tmp_path):
    file = tmp_path / "pattern.json"
    file.write_text(f'{{"num_layers": 4, "pattern": "{text}"}}')
    monkeypatch.delenv(CANDIDATE_PAGES, raising=False)
    for written in (text, str(file)):
        with pytest.raises(PatternError, match=CANDIDATE_PAGES):
            LayerPattern.parse(written, 4)
    monkeypatch.setenv(CANDIDATE_PAGES, "64")
    for written in (text, str(file)):
        assert LayerPattern.parse(written, 4).text == text
