"""The benchmark report of the layer search from end to end, with a tiny random model.

What it finds is no matter here, its loss hardly depends on the pattern; that each step reads what
the one before it wrote, that a stopped one goes on, and that all of it reaches the page, is. The
steps run their command lines on one model in one process; `test_search.py` has them with engines.
"""

import json
from pathlib import Path

import pytest
from _environments import fork

from sglang_ic.demo.tiny import write_checkpoint

pytestmark = pytest.mark.engine

INDEX_TOPK = 32
LENGTH = 8 * INDEX_TOPK
BUILD_ALL = {"index_cache_pattern": "full", "index_cache_build": "all"}
WORDS = "river stone light green house old tree moon seven quiet birds walk".split()
STOP_AFTER = 25  # losses, of which the self-check takes ten


def text(number: int) -> str:
    return " ".join(WORDS[(i * i + i * number) % len(WORDS)] for i in range(LENGTH))[:LENGTH]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two calibration sets."""
    folder = tmp_path_factory.mktemp("report")
    for name, first in (("a", 1), ("b", 7)):
        records = [{"text": text(number)} for number in range(first, first + 5)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in records))
    return folder


def commands(model: str) -> list[dict]:
    """The steps of run_offline.sh, in small."""
    common = ["--model-path", model, "--context-lengths", str(LENGTH)]
    search = [*common, "--full-layers", "1"]
    found = [
        word
        for name in ("exhaustive", "fast-1", "fast-2")
        for count in (3, 2, 1)
        for word in ("--pattern", f"r/{name}/pattern.json@{count}")
    ]
    losses = [*common, "--data", "a.jsonl", "--data", "b.jsonl", *found, "--output", "r/losses"]
    losses += ["--control", "uniform", "--control", "random:2"]
    speed = ["--model-path", model, "--sequences", "2", "--tokens", str(LENGTH)]
    speed += ["--full-layers", "2", "--candidates", "2", "--output", "r/speed.json"]
    exhaustive = ["--method", "exhaustive", "--data", "a.jsonl", "--output", "r/exhaustive"]
    steps = [
        ("sglang_ic.search.cli", [*search, *exhaustive], None),
        ("sglang_ic.search.cli", [*search, "--data", "a.jsonl", "--output", "r/fast-1"], None),
        ("sglang_ic.search.cli", [*search, "--data", "b.jsonl", "--output", "r/fast-2"], None),
        ("sglang_ic.search.losses", losses, STOP_AFTER),
        ("sglang_ic.search.losses", [*losses, "--resume"], None),
        ("search_report.speed", speed, None),
        ("search_report.__main__", ["r", "out/search"], None),
    ]
    return [{"module": module, "argv": argv, "stop_after": n} for module, argv, n in steps]


@pytest.fixture(scope="module")
def codes(folder) -> list[int]:
    model = write_checkpoint(folder / "model", num_layers=6, index_topk=INDEX_TOPK)
    return (
        fork()
        .submit(
            "_search_jobs:report_steps",
            model=str(model),
            folder=str(folder),
            path=str(Path(__file__).parents[2] / "benchmark"),
            override=BUILD_ALL,
            steps=commands(str(model)),
        )
        .result()
    )


@pytest.fixture(scope="module")
def report(codes, folder) -> dict:
    return json.loads((folder / "out/search.json").read_text())


def test_every_step_ends_well_and_a_stopped_one_says_so(codes):
    assert codes == [0, 0, 0, 130, 0, 0, 0]


def test_losses_are_those_of_the_search(codes, folder):
    losses = json.loads((folder / "r/losses/losses.json").read_text())
    lines = (folder / "r/exhaustive/journal.jsonl").read_text().splitlines()[1:]
    searched = {(r["pattern"], r["sequence"]): r["loss"] for r in map(json.loads, lines)}
    compared = 0
    for pattern, row in losses["losses"]["a.jsonl"].items():
        for sequence, loss in enumerate(row):
            if (pattern, sequence) in searched:
                compared += 1
                assert searched[pattern, sequence] == loss
    assert compared >= 20
    assert losses["losses"]["a.jsonl"] != losses["losses"]["b.jsonl"]
    assert losses["noise"] == {"repeated": 0.0, "resumed": 0.0}


def test_a_resumed_step_measures_nothing_twice(codes, folder):
    lines = (folder / "r/losses/journal.jsonl").read_text().splitlines()[1:]
    keys = [(r["pattern"], r["sequence"]) for r in map(json.loads, lines)]
    losses = json.loads((folder / "r/losses/losses.json").read_text())
    assert len(keys) == len(set(keys)) == 10 * len(losses["patterns"])


def test_every_section_was_measured(report):
    fidelity = report["fidelity"]
    assert [row["num_full"] for row in fidelity["rows"]] == [3, 2, 1]  # 1/2, 1/4, 1/8 of 6
    assert all(0 < row["work"] < 1 for row in fidelity["rows"])
    assert fidelity["noise"]["fast"] == {"repeated": 0.0, "resumed": 0.0}
    assert [one["sets"] for one in report["stability"]["spearman"]] == [["a.jsonl", "b.jsonl"]]
    measured_on = {row["measured_on"] for row in report["stability"]["cross_loss"]}
    assert measured_on == {"a.jsonl", "b.jsonl"}
    assert report["speed"]["exhaustive"]["seconds_per_candidate"] > 0
    assert report["speed"]["fast"]["kept_layers"] == [1, 2, 3, 4, 5]
    layer_tokens = [one["layer_tokens"] for one in report["speed"]["fast"]["candidates"]]
    assert layer_tokens == [2 * LENGTH * (6 - 2), 2 * LENGTH * (6 - 5)]


def test_the_page_is_written_with_its_picture(report, folder):
    page = (folder / "out/search.md").read_text()
    assert page.count("Not measured.") == 1  # the held-out documents
    assert (folder / "out/search.png").stat().st_size > 10_000
