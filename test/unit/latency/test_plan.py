"""Plan files: the bundled ones are sound, and every mistake is one line that names it."""

import copy
from pathlib import Path

import pytest

from sglang_ic.latency import plan_file
from sglang_ic.latency.plan import PlanError
from sglang_ic.pattern import PatternError

PLANS = sorted((Path(__file__).parents[3] / "benchmark/latency").glob("*.toml"))
GOOD = {
    "title": "t",
    "model": "bundled",
    "weights": "checkpoint",
    "flags": ["--random-seed", "1"],
    "arms": {
        "stock full": {"engine": "stock", "pattern": "full"},
        "fork 4": {"engine": "fork", "pattern": "freq:4,offset:1"},
    },
    "parts": {
        "one": {
            "arms": ["stock full", "fork 4"],
            "stages": [
                {"kind": "prefill", "context": 2048, "rounds": 2},
                {
                    "kind": "decode",
                    "context": 2048,
                    "rounds": 2,
                    "batch_sizes": [1, 2],
                    "new_tokens": 32,
                },
            ],
            "switch": True,
            "together": False,
            "flags": ["--max-running-requests", "4"],
        }
    },
}


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_bundled_plans_can_be_read(path, monkeypatch):
    if "candidates" in path.stem:
        monkeypatch.setenv("SGLANG_IC_APPROXIMATE_CANDIDATE_PAGES", "512")
    found = plan_file.read(path)
    assert found.parts and (found.model / "config.json").exists()
    for part in found.parts:
        rows = [row for stage in part.stages for row in stage.rows]
        assert len(set(rows)) == len(rows)


def test_the_rows_of_the_hopper_plan_have_their_control_arms():
    found = plan_file.read(next(path for path in PLANS if path.stem == "hopper"))
    assert (found.num_layers, found.weights) == (47, "dummy")
    prefill = {arm.name: arm for arm in found.part("prefill").arms}
    assert prefill["stock full"].pattern == prefill["fork full"].pattern
    again, first = prefill["stock full, again"], prefill["stock full"]
    assert (again.pattern, again.server) == (first.pattern, first.server)
    assert prefill["stock 12 Full"].pattern == prefill["fork 12 Full"].pattern
    assert prefill["fork 12 Full, replaced"].pattern == prefill["fork 12 Full"].pattern
    for name in ("prefill", "decode-bf16", "decode-fp8"):
        forks = [arm for arm in found.part(name).arms if arm.engine == "fork" and not arm.changes]
        assert {arm.pattern.num_full for arm in forks} == {47, 12, 1}  # for "no indexer"


def test_a_plan_becomes_frozen_values():
    found = plan_file.parse(GOOD, Path())
    part = found.part("one")
    assert [str(arm.pattern) for arm in part.arms] == ["F" * 16, "FSSS" * 4]
    assert part.flags == ("--random-seed", "1", "--max-running-requests", "4")
    assert [stage.rows for stage in part.stages] == [
        ("prefill 2048",),
        ("decode 2048 x1", "decode 2048 x2"),
    ]


def changed(path: list, value) -> dict:
    data = copy.deepcopy(GOOD)
    at = data
    for key in path[:-1]:
        at = at[key]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return data


PART, STAGES = ["parts", "one"], ["parts", "one", "stages"]


def test_what_is_an_arms_own_is_kept_and_told():
    own = {"environment": {"A": "b c"}, "flags": ["--x", "1"]}
    arm = (
        plan_file.parse(changed(["arms", "fork 4"], GOOD["arms"]["fork 4"] | own), Path())
        .parts[0]
        .arms[1]
    )
    assert (arm.environment, arm.flags) == ((("A", "b c"),), ("--x", "1"))
    assert arm.changes == "'A=b c' --x 1"


@pytest.mark.parametrize(
    "path, value, words",
    [
        (["wieghts"], "dummy", "does not know 'wieghts'"),
        (["title"], None, "lacks 'title'"),
        (["weights"], "random", "weights = 'random': use one of dummy, checkpoint"),
        (["model"], "nowhere", "holds no config.json"),
        (["arms", "fork 4", "engine"], "vllm", "engine 'vllm': use one of stock, fork"),
        (["arms", "fork 4", "engine"], None, "arm 'fork 4' lacks 'engine'"),
        (
            ["arms", "fork 4", "env"],
            {},
            "it has engine, pattern, and can have environment",
        ),
        (["arms", "fork 4", "environment"], {"A": 1}, "give a table of strings"),
        (["arms", "fork 4", "flags"], "--x y", "has flags '--x y': give a list of strings"),
        ([*PART, "arms"], ["fork 5"], "use some of stock full, fork 4"),
        ([*PART, "arms"], ["fork 4", "fork 4"], "names an arm twice"),
        ([*PART, "switch"], "yes", "give true or false"),
        ([*STAGES, 0, "kind"], "sleep", "kind 'sleep': use prefill, decode, profile"),
        ([*STAGES, 0, "new_tokens"], 9, "does not know 'new_tokens'"),
        ([*STAGES, 0, "context"], 0, "context 0: give integers of 1 or more"),
        ([*STAGES, 0, "rounds"], 0, "rounds 0: give integers"),
        ([*STAGES, 1, "batch_sizes"], [], "give at least one"),
        ([*STAGES, 1, "batch_sizes"], [1, -2], "batch_sizes -2"),
        ([*STAGES, 1, "new_tokens"], 3, "give 16 or more"),
    ],
)
def test_a_mistake_is_named(path, value, words):
    with pytest.raises(PlanError) as error:
        plan_file.parse(changed(path, value), Path())
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_tail_as_long_as_the_context_is_refused():
    stage = {"kind": "profile", "context": 64, "rounds": 1, "tail_tokens": 64, "new_tokens": 32}
    with pytest.raises(PlanError, match="the tail must be shorter"):
        plan_file.parse(changed([*STAGES, 0], stage), Path())


def test_a_pattern_that_does_not_fit_the_model_is_refused():
    with pytest.raises(PatternError):
        plan_file.parse(changed(["arms", "fork 4", "pattern"], "preset:30b-a3b-1/4"), Path())


def test_a_missing_file_and_a_missing_part_are_named(tmp_path):
    with pytest.raises(PlanError, match="cannot be read"):
        plan_file.read(tmp_path / "none.toml")
    with pytest.raises(PlanError, match="no part 'two'; accepted: one"):
        plan_file.parse(GOOD, Path()).part("two")


def test_stock_cannot_run_candidate_layers(monkeypatch):
    monkeypatch.setenv("SGLANG_IC_APPROXIMATE_CANDIDATE_PAGES", "20")
    pattern = "F" + "C" * 15
    given = changed(["arms", "stock full", "pattern"], pattern)
    with pytest.raises(PlanError, match="stock SGLang has no C .* run them as Full"):
        plan_file.parse(given, Path())
    parsed = plan_file.parse(changed(["arms", "fork 4", "pattern"], pattern), Path())
    assert parsed.parts[0].arms[1].pattern.text == pattern
