"""The searched pattern against controls, on tables small enough to check by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from search_report import held_out, results


@pytest.fixture
def section(folder):
    return held_out.measure(results.read(folder))


def test_against_uniform_every_document_agrees(section):
    found = section["against_uniform"]
    # 4 nats of 100 tokens in every document: no resample changes it.
    assert found["dnll"]["difference"] == pytest.approx(-0.04)
    assert found["dnll"]["ci95"] == pytest.approx([-0.04, -0.04])
    assert found["dnll"]["verdict"] == "better"
    assert found["accuracy"]["difference"] == pytest.approx((22 - 6) / 24)
    assert found["accuracy"]["verdict"] == "better"


def test_the_median_of_random_patterns_is_the_middle_one(section):
    found = section["against_random"]
    assert found["dnll"]["difference"] == pytest.approx(-0.02)  # the middle one is 2 nats worse
    assert (found["dnll"]["num_beaten"], found["dnll"]["num_others"]) == (2, 3)
    assert found["dnll"]["range"] == pytest.approx([0.005, 0.06])
    assert found["accuracy"]["difference"] == pytest.approx((22 - 10) / 24)


def test_a_searched_pattern_that_loses_is_called_worse(folder):
    path = folder / "test" / "results.json"
    document = json.loads(path.read_text())
    for record in document["documents"]["searched"]:
        record["dnll_sum"] += 8
        for answer in record["answers"]:
            answer["right"] = False
    path.write_text(json.dumps(document))
    found = held_out.measure(results.read(folder))["against_uniform"]
    assert found["dnll"]["verdict"] == found["accuracy"]["verdict"] == "worse"


def test_near_equals_are_not_told_apart():
    generator = np.random.default_rng(0)
    counts = np.full(20, 100.0)
    mine = generator.normal(5, 3, 20)
    others = [(generator.permutation(mine), counts) for _ in range(3)]
    difference, (low, high) = held_out.median_difference((mine, counts), others)
    assert low < 0 < high and low < difference < high


def test_it_reads_what_evaluation_writes(folder):
    real = Path(__file__).parents[3] / "benchmark" / "reports" / "bundled-model-patterns.json"
    (folder / "test" / "results.json").write_bytes(real.read_bytes())
    found = held_out.measure(results.read(folder))
    assert found["full"]["dnll"] == 0.0 and found["num_documents"] == 8
    assert found["arms"][0]["kind"] == "pattern" and 0 < found["arms"][0]["accuracy"] < 1


def test_without_controls_there_is_nothing_to_compare(folder):
    path = folder / "test" / "results.json"
    document = json.loads(path.read_text())
    document["arms"] = document["arms"][:2]
    path.write_text(json.dumps(document))
    found = held_out.measure(results.read(folder))
    assert found["against_uniform"] is None and found["against_random"] is None
