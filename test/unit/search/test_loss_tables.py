"""Which patterns are measured, and losses by data set."""

import json

import pytest

from sglang_ic.pattern_text import PatternError
from sglang_ic.search import loss_tables


@pytest.fixture
def file(tmp_path) -> str:
    path = tmp_path / "pattern.json"
    path.write_text(json.dumps({"num_layers": 4, "patterns": {"2": "FFSS", "4": "FFFF"}}))
    return str(path)


def test_patterns_that_two_searches_found_are_measured_once(file):
    found = loss_tables.named_patterns([f"{file}@2", "FFSS", "FSSS", f"{file}@4"], [], 4)
    assert [one["pattern"] for one in found] == ["FFFF", "FFSS", "FSSS"]
    assert [one["kind"] for one in found] == ["reference", "pattern", "pattern"]
    assert found[1]["names"] == [f"{file}@2", "FFSS"]
    assert found[0]["names"] == [f"{file}@4"]


def test_controls_have_as_many_full_layers_and_differ_from_what_is_given():
    found = loss_tables.named_patterns(["FFSS"], ["uniform", "random:9"], 4)
    controls = [one for one in found if one["kind"] in ("uniform", "random")]
    # With 2 Full of 4 layers there are three patterns: the given one, uniform, and one more.
    assert [one["pattern"] for one in controls] == ["FSFS", "FSSF"]
    assert all(one["num_full"] == 2 for one in controls)


def test_a_pattern_of_another_length_is_refused():
    with pytest.raises(PatternError):
        loss_tables.named_patterns(["FFS"], [], 4)


DATA = [{"source": "a", "weights": [10, 10]}, {"source": "b", "weights": [10, 10, 20]}]


def test_losses_go_back_to_their_data_sets():
    import numpy as np

    found = loss_tables.split({"FF": np.arange(5.0)}, DATA)
    assert found == {"a": {"FF": [0.0, 1.0]}, "b": {"FF": [2.0, 3.0, 4.0]}}


def test_the_table_has_increases_per_token():
    patterns = loss_tables.named_patterns(["FS"], [], 2)
    losses = {
        "a": {"FF": [1.0, 2.0], "FS": [2.0, 3.0]},
        "b": {"FF": [0.0, 0.0, 0.0], "FS": [4.0, 4.0, 0.0]},
    }
    text = loss_tables.terminal({"data": DATA, "patterns": patterns, "losses": losses})
    row = next(line for line in text.splitlines() if line.startswith("| FS"))
    assert "0.1000 0.0000" in row and "0.2000 " in row


def test_candidate_layers_are_refused(monkeypatch):
    monkeypatch.setenv("SGLANG_IC_APPROXIMATE_CANDIDATE_PAGES", "20")
    with pytest.raises(PatternError, match="FCCS has C"):
        loss_tables.named_patterns(["FCCS"], [], 4)
