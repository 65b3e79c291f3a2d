"""A search that was killed anywhere goes on to the same end."""

import json
from types import SimpleNamespace

import pytest
from _objectives import Resuming, Synthetic, like_a_model
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_ic.pattern import LayerPattern
from sglang_ic.search.constraints import Constraints
from sglang_ic.search.greedy import EXHAUSTIVE, FAST, search
from sglang_ic.search.journal import Journal, Journaled, JournalError
from sglang_ic.search.objective import LossTable
from sglang_ic.search.result import Found, document
from sglang_ic.search.swap import refine

HEADER = {"model": "abc", "method": "fast", "keep_full": [0]}
NUM_LAYERS, WEIGHTS = 7, [100] * 10
LOSS = like_a_model(NUM_LAYERS, len(WEIGHTS), seed=2)


def run(path, method, resume, objective=None):
    """The document of a whole search with swaps, and the objective that was asked."""
    objective = objective or Synthetic(LOSS, WEIGHTS)
    journal = Journal(path, HEADER, resume)
    table = LossTable(Journaled(objective.measure, objective.rebase, objective.weights, journal))
    rules = Constraints.make(LayerPattern.full(NUM_LAYERS), 2, (), 1)
    found = Found(rules.start.text)
    found.steps += search(table, rules, method)
    found.swaps += refine(table, found.pattern, rules, 2, method.racing)
    journal.close()
    return document(found, table, {}, True), objective


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """By method: (document, bytes of the journal) of a search that nobody killed."""
    results = {}
    for name, method in (("fast", FAST), ("exhaustive", EXHAUSTIVE)):
        path = tmp_path_factory.mktemp(name) / "journal.jsonl"
        results[name] = run(path, method, False)[0], path.read_bytes()
    return results


@settings(max_examples=60)
@given(data=st.data(), name=st.sampled_from(["fast", "exhaustive"]))
def test_killed_at_any_byte_the_result_is_the_same(whole, tmp_path_factory, data, name):
    expected, journal = whole[name]
    cut = data.draw(st.integers(0, len(journal)))
    path = tmp_path_factory.mktemp("cut") / "journal.jsonl"
    path.write_bytes(journal[:cut])
    method = FAST if name == "fast" else EXHAUSTIVE
    found, objective = run(path, method, True)
    assert found == expected
    lines_kept = max(journal[:cut].count(b"\n") - 1, 0)
    lines = journal.count(b"\n") - 1
    assert len(objective.asked) == lines - lines_kept  # nothing twice
    assert path.read_bytes() == journal


def test_states_lost_in_a_kill_cost_work_and_nothing_else(tmp_path):
    def resuming():
        return Resuming(LOSS, WEIGHTS, range(1, NUM_LAYERS))

    first, _ = run(tmp_path / "a.jsonl", FAST, False, resuming())
    lines = (tmp_path / "a.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "b.jsonl").write_text("".join(lines[: len(lines) // 2]))
    second, _ = run(tmp_path / "b.jsonl", FAST, True, resuming())
    assert second["layer_token_forwards"] >= first["layer_token_forwards"]
    for found in (first, second):
        for part in (found, *found["steps"]):
            part["layer_token_forwards"] = part["layer_token_forwards_total"] = None
    assert second == first


def test_a_finished_search_is_not_overwritten(tmp_path):
    run(tmp_path / "journal.jsonl", FAST, False)
    with pytest.raises(JournalError, match="--resume"):
        Journal(tmp_path / "journal.jsonl", HEADER, False)


def test_resume_without_a_journal_starts_one(tmp_path):
    Journal(tmp_path / "journal.jsonl", HEADER, True).close()
    assert json.loads((tmp_path / "journal.jsonl").read_text())["model"] == "abc"


@pytest.mark.parametrize(
    "change", [{"model": "abd"}, {"method": "exhaustive"}, {"keep_full": [0, 1]}, {"new": 1}]
)
def test_a_journal_of_another_search_is_refused(tmp_path, change):
    Journal(tmp_path / "journal.jsonl", HEADER, False).close()
    (key,) = change
    with pytest.raises(JournalError, match=key):
        Journal(tmp_path / "journal.jsonl", HEADER | change, True)


@pytest.mark.parametrize("damage", ["{}", "[]", "not json", '{"pattern": "FF"}'])
def test_a_damaged_line_is_named(tmp_path, damage):
    path = tmp_path / "journal.jsonl"
    Journal(path, HEADER, False).close()
    with path.open("a") as file:
        file.write(f"{damage}\n")
    with pytest.raises(JournalError, match="line 2"):
        Journal(path, HEADER, True)


def test_losses_survive_bit_for_bit(tmp_path):
    path, value = tmp_path / "journal.jsonl", 0.1 + 0.2
    journal = Journal(path, HEADER, False)
    journal.add("FS", 0, value, 12)
    again = Journal(path, HEADER, True)  # while the first one still lives, as after a kill
    assert again.losses == {("FS", 0): (value, 12)}
    namespace = SimpleNamespace(measure=None, rebase=None)
    assert Journaled(namespace.measure, namespace.rebase, [5], again).losses("FS", [0]) == [value]
