"""The fast method against the exhaustive one, worked out by hand."""

import json
import math

import pytest
from search_report import fidelity, results


def section(folder):
    return fidelity.measure(results.read(folder))


def test_a_near_equal_agrees_and_its_error_is_that_of_the_difference(folder):
    row = section(folder)["rows"][0]
    assert (row["share"], row["num_full"], row["same"]) == ("1/2", 4, False)
    # Differences -1, 2, -1, 1 over 400 tokens: their mean is 1/400 per token; around 0.25 a
    # sequence they are -1.25, 1.75, -1.25, 0.75.
    assert row["difference"] == pytest.approx(1 / 400)
    squares = 1.25**2 + 1.75**2 + 1.25**2 + 0.75**2
    assert row["stderr"] == pytest.approx(math.sqrt(4 / 3 * squares) / 400)
    assert row["agrees"]


def test_a_random_pattern_fails_the_same_test(folder):
    found = section(folder)
    assert [row["num_random"] for row in found["rows"]] == [1, 0, 0]
    assert found["rows"][0]["num_random_that_fail"] == 1 and found["random_fails"]


@pytest.mark.parametrize("changed", [{"kind": "pattern"}, {"pattern": "FFFSFSSS"}])
def test_no_random_pattern_or_one_that_passes_shows_nothing(folder, changed):
    for path in folder.glob("losses-*/losses.json"):
        document = json.loads(path.read_text())
        random = next(one for one in document["patterns"] if one["kind"] == "random")
        random.update(changed)
        path.write_text(json.dumps(document))
    assert not section(folder)["random_fails"]


def test_a_pattern_that_is_worse_everywhere_does_not_agree(folder):
    path = folder / "fast-1" / "pattern.json"
    document = json.loads(path.read_text())
    document["patterns"]["4"] = document["steps"][0]["pattern"] = "FSFSFSFS"
    path.write_text(json.dumps(document))
    found = section(folder)
    assert not found["rows"][0]["agrees"] and not found["same_answer"]


def test_work_is_counted_up_to_each_pattern(folder):
    found = section(folder)
    assert [row["work"] for row in found["rows"]] == [0.1, 0.1, 0.1]
    assert found["rows"][2]["layer_token_forwards"] == {"exhaustive": 30_000, "fast": 3_000}
    assert found["work_within_target"]
    assert not found["enough_tokens"]


def test_searches_of_other_data_cannot_be_compared(folder):
    path = folder / "fast-1" / "pattern.json"
    document = json.loads(path.read_text())
    document["data"]["fingerprint"] = "other"
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="different calibration data"):
        section(folder)


def test_without_the_exhaustive_search_there_is_no_section(folder):
    (folder / "exhaustive" / "pattern.json").unlink()
    assert section(folder) is None
