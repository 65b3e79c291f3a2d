"""Measurements as a document: what each number is over, and what is unknown."""

import numpy as np
import pytest

from sglang_ic.evaluate import plots, report
from sglang_ic.evaluate.arms import Arm
from sglang_ic.evaluate.overlap import Probed
from sglang_ic.evaluate.samples import Sample, Span
from sglang_ic.evaluate.summary import (
    Measured,
    accuracy,
    arm_summary,
    losses,
    selections,
)
from sglang_ic.pattern import LayerPattern


def measured(name, cluster, length, right, dnll=0.0, kl=(0.0, 0.0), same=2):
    spans = tuple(Span("ab"[i % 2], 1, 2) for i in range(len(right)))
    sample = Sample(name, cluster, length, (1, 2, 3), spans)
    kl = np.array(kl, np.float32)
    return Measured(sample, 1.0, np.array(right, bool), dnll, kl, 0.1, same)


def test_losses_pool_tokens_and_cluster_documents():
    both = [
        measured("x@0", "x", 3, [], dnll=0.5, kl=(0.0, 1.0), same=1),
        measured("x@3", "x", 3, [], dnll=0.5, kl=(2.0, 3.0)),
        measured("y@0", "y", 3, [], dnll=-1.0, kl=(4.0, 5.0)),
    ]
    found = losses(both)
    assert (found["num_documents"], found["num_tokens"]) == (2, 6)
    assert found["nll"] == pytest.approx(0.5)
    assert found["dnll"] == 0.0
    # Sums 1 and -1 over 4 and 2 tokens: sqrt(2 * (1 + 1)) / 6.
    assert found["dnll_se"] == pytest.approx(2 / 6)
    assert (found["kl_mean"], found["kl_median"]) == (2.5, 2.5)
    assert found["kl_p99_9"] == pytest.approx(4.995)
    assert found["same_top1"] == pytest.approx(5 / 6)
    assert found["kl_unresolved_mass"] == pytest.approx(0.05)


def test_accuracy_by_task_and_length():
    arm = [
        measured("x", "x", 100, [True, False]),
        measured("y", "y", 200, [True, True, False]),
        measured("z", "z", 200, []),
    ]
    reference = [
        measured("x", "x", 100, [True, True]),
        measured("y", "y", 200, [True, True, True]),
        measured("z", "z", 200, []),
    ]
    rows = {(row["task"], row["length"]): row for row in accuracy(arm, reference)}
    assert rows["all", None]["accuracy"] == pytest.approx(3 / 5)
    assert rows["all", None]["difference"] == pytest.approx(-2 / 5)
    assert rows["a", None]["num_answers"] == 3
    assert rows["a", 200]["accuracy"] == 0.5
    assert rows["b", 100]["difference"] == -1.0
    assert rows["b", 200]["difference"] == 0.0
    assert rows["all", 200]["num_documents"] == 1  # the document without answers is none of them
    assert rows["all", 200]["ci95"] is None
    low, high = rows["all", None]["ci95"]
    assert low <= 0.6 <= high


def probed(mass):
    values = np.full((2, 2, 1), np.nan)
    values[0, 0], values[1, 0], values[1, 1] = mass
    return Probed(np.array([9]), np.array([[[0, 1]], [[1, 2]]], np.int32), values)


def document(reference_text="FF", arm_text="FS"):
    reference = [measured("x", "x", 100, [True]), measured("y", "y", 200, [True])]
    worse = [measured("x", "x", 100, [True], 1.0), measured("y", "y", 200, [False], 1.0)]
    full, shared = LayerPattern(reference_text), LayerPattern(arm_text)
    arms = [
        (Arm("full", "reference", full), reference, [probed((0.9, 0.5, 0.8))]),
        (Arm("half", "pattern", shared), worse, [probed((0.9, 0.4, 0.6))]),
        (Arm("random@1/seed:0", "random", shared, seed=0), worse, []),
    ]
    base, base_probed = reference, arms[0][2]
    return {
        "model": {"path": "tiny", "index_topk": 2},
        "data": {"source": "test", "num_samples": {"100": 1, "200": 1}},
        "interrupted": False,
        "command": "python -m sglang_ic.evaluate",
        "hardware": {"gpus": [], "cpu": "a CPU", "num_cores": 2},
        "software": {"python": "3.11"},
        "seconds": 1.0,
        "settings": {"num_top": 64},
        "reference": "full",
        "not_probed": None,
        "selections": selections(base_probed),
        "arms": [
            arm_summary(arm, full, found, base, base_probed, seen) for arm, found, seen in arms
        ],
    }


def test_attention_mass_of_own_reused_and_used_sets():
    full, half, unseen = (arm["attention"] for arm in document()["arms"])
    assert full["own_set"] == full["reused_set"] == full["set_in_use"] == [0.9, 0.8]
    assert half["own_set"] == [0.9, 0.8]
    assert half["reused_set"] == [0.9, 0.5]  # from the reference's pass
    assert half["set_in_use"] == [0.9, 0.6]  # from its own
    assert unseen is None
    found = document()["selections"]
    assert found["mass"] == [[0.9, None], [0.5, 0.8]]
    assert found["overlap"] == [[1.0, 0.5], [0.5, 1.0]]


def test_own_set_of_a_layer_that_is_always_shared_is_unknown():
    arms = document(reference_text="FS")["arms"]
    assert arms[1]["attention"]["own_set"] == [0.9, None]


def test_report_and_pictures_show_every_arm(tmp_path):
    found = document()
    page, shown = report.markdown(found), report.terminal(found)
    for arm in found["arms"]:
        assert arm["name"] in page and arm["name"] in shown
    assert "1: 50.0" in shown  # the Shared layer that loses most
    names = [path.name for path in plots.write(found, tmp_path)]
    assert names == ["overlap.png", "attention.png", "accuracy.png"]


def test_table_is_aligned_markdown():
    found = report.table([["pattern", "dNLL"], ["full", "0.0000"], ["freq:4,offset:1", "-1"]])
    assert found.splitlines() == [
        "| pattern         |   dNLL |",
        "|-----------------|-------:|",
        "| full            | 0.0000 |",
        "| freq:4,offset:1 |     -1 |",
    ]


def test_small_numbers_keep_their_size():
    assert report.number(0.0) == "0.0000"
    assert report.number(3e-6) == "3.0e-06"
    assert report.number(None) == "-"
