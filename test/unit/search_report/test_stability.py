"""Orders and losses across calibration sets."""

import pytest
from search_report import results, stability


@pytest.fixture
def section(folder):
    return stability.measure(results.read(folder))


def test_spearman_by_hand(section):
    # Steps of layers 1..7 on a: 7 6 4 5 3 2 1; on b: 1 2 3 4 5 6 7. Squared differences of the
    # steps: 36 16 1 1 4 16 36 = 110, and 1 - 6 * 110 / (7 * 48) is the correlation.
    assert section["spearman"] == [
        {"sets": ["a", "b"], "correlation": pytest.approx(1 - 6 * 110 / (7 * 48))}
    ]


def test_cross_loss_is_against_the_pattern_found_there(section):
    rows = {(r["num_full"], r["found_on"], r["measured_on"]): r for r in section["cross_loss"]}
    own, other = rows[4, "b", "b"], rows[4, "a", "b"]
    assert (own["pattern"], other["pattern"]) == ("FFFFSSSS", "FFFSFSSS")
    assert own["increase"] == pytest.approx(16 / 400)
    assert own["difference"] == 0.0 and own["agrees"]
    assert other["increase"] == pytest.approx(33 / 400)
    assert other["difference"] == pytest.approx(17 / 400) and not other["agrees"]
    assert rows[1, "a", "b"]["agrees"]  # the same pattern on both sets


def test_one_set_says_nothing_about_stability(folder):
    (folder / "fast-2" / "pattern.json").unlink()
    assert stability.measure(results.read(folder)) is None
