"""Which layers may be converted, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_ic.pattern import LayerPattern, PatternError
from sglang_ic.search.constraints import (
    Constraints,
    parse_retention,
    pipeline_blocks,
    refuse_candidates,
)

FULL = LayerPattern.full(8)


@pytest.mark.parametrize(
    ("given", "num_layers", "expected"),
    [("1/4", 47, 12), ("1/2", 47, 24), ("0.25", 16, 4), ("1/8", 16, 2), ("1/8", 10, 2)],
)
def test_retention_rounds_up_as_the_published_patterns_do(given, num_layers, expected):
    assert parse_retention(given, num_layers) == expected


@pytest.mark.parametrize("given", ["1", "0", "-1/4", "4/1", "a quarter", "1/0", "nan", ""])
def test_another_retention_is_refused(given):
    with pytest.raises(PatternError, match="--retention"):
        parse_retention(given, 16)


@given(st.integers(1, 80), st.data())
def test_blocks_are_sglangs_pipeline_stages(num_layers, data):
    from sglang.srt.distributed.utils import get_pp_indices

    num_blocks = data.draw(st.integers(1, num_layers))
    expected = [get_pp_indices(num_layers, rank, num_blocks) for rank in range(num_blocks)]
    assert [(b.start, b.stop) for b in pipeline_blocks(num_layers, num_blocks)] == expected


@pytest.mark.parametrize("num_blocks", [0, 9])
def test_blocks_that_do_not_fit_are_refused(num_blocks):
    with pytest.raises(PatternError, match="--pipeline-blocks"):
        pipeline_blocks(8, num_blocks)


def test_fixed_layers_are_no_candidates():
    rules = Constraints.make(FULL, 4, [3], 2)
    assert rules.fixed == {0, 3, 4}
    assert rules.candidates("FFFFFFFF") == (1, 2)
    assert rules.candidates("FSFFFFFF") == (5, 6, 7)
    assert rules.candidates("FSFFFSFF") == (2,)
    assert rules.candidates("FSSFFSFF") == (6, 7)
    assert rules.candidates("FSSFFSSF") == (7,)  # the first block has nothing left


@pytest.mark.parametrize(
    ("start", "num_full", "keep_full", "num_blocks", "words"),
    [
        ("full", 8, (), 1, "ask for fewer"),
        ("full", 2, (1, 2), 1, "ask for 3 or more"),
        ("full", 1, (), 2, "layers 0, 4 must stay"),
        ("full", 4, (8,), 1, "--keep-full names layer 8"),
        ("FFSFFFFF", 4, (2,), 1, "layer 2 must stay"),
        ("FFFFSFFF", 4, (), 2, "layer 4 must stay"),
    ],
)
def test_contradictions_are_refused(start, num_full, keep_full, num_blocks, words):
    with pytest.raises(PatternError, match=words) as refused:
        Constraints.make(LayerPattern.parse(start, 8), num_full, keep_full, num_blocks)
    assert "\n" not in str(refused.value)


def test_candidate_layers_are_not_searched(monkeypatch):
    monkeypatch.setenv("SGLANG_IC_APPROXIMATE_CANDIDATE_PAGES", "20")
    assert refuse_candidates(FULL) is FULL
    with pytest.raises(PatternError, match="FCFCFCFC has C .* Full layers to Shared ones only"):
        refuse_candidates(LayerPattern.parse("FCFCFCFC", 8))
