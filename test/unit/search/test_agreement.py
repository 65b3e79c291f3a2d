"""Two searches against each other."""

import json

import numpy as np
import pytest

from sglang_ic.search import agreement

LOSSES = {
    "FFF": [10.0, 20.0, 30.0],
    "FFS": [11.0, 22.0, 30.5],
    "FSF": [12.0, 21.0, 30.6],  # +1, -1, +0.1: no difference to speak of
    "FSS": [15.0, 26.0, 35.0],
}


def write(folder, patterns, order, work, controls=(), data="d"):
    folder.mkdir()
    lines = [{"schema_version": 1}]
    for text in LOSSES:
        lines += [
            {"pattern": text, "sequence": sequence, "loss": loss, "layer_tokens": 1}
            for sequence, loss in enumerate(LOSSES[text])
        ]
    (folder / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    document = {
        "patterns": {str(text.count("F")): text for text in patterns},
        "order": order,
        "steps": [
            {"pattern": text, "layer_token_forwards": work // text.count("F")}
            for text in patterns[1:]
        ],
        "controls": [
            {"kind": kind, "num_full": text.count("F"), "pattern": text} for kind, text in controls
        ],
        "data": {"fingerprint": data, "weights": [10, 10, 10]},
    }
    (folder / "pattern.json").write_text(json.dumps(document))
    return str(folder)


@pytest.fixture
def reference(tmp_path):
    return write(tmp_path / "a", ["FFF", "FFS", "FSS"], [2, 1], 1000)


def test_near_equals_agree_and_a_bad_pattern_does_not(reference, tmp_path, capsys):
    controls = [("random", "FSS"), ("uniform", "FFS")]
    other = write(tmp_path / "b", ["FFF", "FSF", "FSS"], [1, 2], 100, controls)
    first = agreement.Search(tmp_path / "a")
    found = agreement.rows(first, agreement.Search(tmp_path / "b"))
    verdicts = {(row[0], row[1]): row[4] for row in found[1:]}
    assert "3" not in {count for count, _ in verdicts}  # both began there
    assert verdicts[("2", "searched")] == "yes"
    assert verdicts[("1", "searched")] == "same"
    assert verdicts[("2", "uniform")] == "same"
    assert agreement.main([reference, other]) == 0
    assert "10.0% of it" in capsys.readouterr().out


def test_a_worse_pattern_fails_the_test(reference, tmp_path):
    other = write(tmp_path / "b", ["FFF"], [1], 100)
    document = json.loads((tmp_path / "b" / "pattern.json").read_text())
    document["patterns"]["2"] = "FSS"  # as if it were the one found
    (tmp_path / "b" / "pattern.json").write_text(json.dumps(document))
    found = agreement.rows(agreement.Search(tmp_path / "a"), agreement.Search(tmp_path / "b"))
    assert [row[4] for row in found if row[:2] == ["2", "searched"]] == ["no"]
    assert other


def test_a_difference_of_just_over_one_standard_error_does_not_agree():
    # Around their mean of m the differences are -1 and 1: the standard error of the sum is 2.
    weights = np.array([10, 10])
    for mean, agrees in ((0.99, True), (-0.99, True), (1.01, False), (-1.01, False)):
        found, error, verdict = agreement.paired(np.array([mean - 1, mean + 1]), weights)
        assert (found, error) == (pytest.approx(mean / 10), pytest.approx(0.1))
        assert verdict is agrees


def test_two_patterns_with_equal_losses_agree():
    assert agreement.paired(np.zeros(3), np.array([5, 5, 5])) == (0.0, 0.0, True)


def test_rank_correlation_is_of_the_layers_in_both_orders():
    assert agreement.rank_correlation([3, 1, 2, 7], [3, 1, 2, 5]) == pytest.approx(1.0)
    assert agreement.rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert agreement.rank_correlation([1, 2], [2, 1]) is None


def test_other_data_gives_no_losses(reference, tmp_path, capsys):
    other = write(tmp_path / "b", ["FFF", "FSF"], [1], 100, data="e")
    assert agreement.main([reference, other]) == 0
    assert "data differ" in capsys.readouterr().out


def test_folders_without_a_search_are_refused(tmp_path, capsys):
    assert agreement.main([str(tmp_path), str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
