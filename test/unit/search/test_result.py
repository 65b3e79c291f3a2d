"""What is written down of a search."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from _objectives import Synthetic, like_a_model

from sglang_ic.pattern import LayerPattern
from sglang_ic.search import plots, report
from sglang_ic.search.constraints import Constraints
from sglang_ic.search.controls import Controls
from sglang_ic.search.greedy import FAST, search
from sglang_ic.search.objective import LossTable
from sglang_ic.search.output import Output
from sglang_ic.search.result import Found, control_counts
from sglang_ic.search.selfcheck import Noise
from sglang_ic.search.swap import Swap

NUM_LAYERS, NUM_SEQUENCES = 8, 12


@pytest.fixture
def finished(tmp_path):
    """(folder, pattern.json as read back, found, table) of a synthetic search to 2 Full."""
    loss = like_a_model(NUM_LAYERS, NUM_SEQUENCES, 4)
    objective = Synthetic(loss, [99] * NUM_SEQUENCES)
    table = LossTable(objective)
    rules = Constraints.make(LayerPattern.full(NUM_LAYERS), 2, (), 1)
    setup = SimpleNamespace(
        constraints=rules,
        lengths=[100] * NUM_SEQUENCES,
        model={"path": "m", "architecture": "A", "index_topk": 8, "fingerprint": "00"},
        data={"source": "d", "num_sequences": 12, "num_tokens": 1200, "fingerprint": "11"},
    )
    args = SimpleNamespace(output=tmp_path, method="fast", resume=False, control=[], swaps=1)
    args.pipeline_blocks = 1
    engine = SimpleNamespace(kept_layers=(1, 2), kept_bytes=10)
    output = Output(args, setup, engine, Noise(0.0, 1e-4), [], "python -m sglang_ic.search")
    found = Found(rules.start.text)
    for step in search(table, rules, FAST):
        found.steps.append(step)
        output.write(found, table, complete=False)
        assert LayerPattern.parse(f"{tmp_path}/pattern.json@{step.pattern.count('F')}", 8)
    found.overlap = np.eye(NUM_LAYERS)
    found.controls = Controls(True, True, 3).patterns(rules.start, 2, found.overlap)
    output.write(found, table, complete=True)
    output.draw()
    assert "FILE" not in output.summary() and "pattern.json@2" in output.summary()
    return tmp_path, json.loads((tmp_path / "pattern.json").read_text()), found, table


def test_the_server_reads_every_pattern_by_its_count(finished):
    folder, document, found, _ = finished
    for step in found.steps:
        count = step.pattern.count("F")
        read = LayerPattern.parse(f"{folder}/pattern.json@{count}", NUM_LAYERS)
        assert read.text == step.pattern == document["patterns"][str(count)]
    assert document["patterns"]["8"] == "FFFFFFFF"


def test_the_curve_is_the_measured_one(finished):
    _, document, found, table = finished
    for step in found.steps:
        count = str(step.pattern.count("F"))
        assert document["loss"][count] == pytest.approx(step.loss, rel=1e-12)
        gap = table.all(step.pattern) - table.all(found.start)
        assert document["increase"][count] == pytest.approx(gap.sum() / (99 * NUM_SEQUENCES))
        error = np.std(gap / 99, ddof=1) / np.sqrt(NUM_SEQUENCES)
        assert document["increase_stderr"][count] == pytest.approx(error)
    assert document["order"] == [step.layer for step in found.steps]
    assert document["complete"]


def test_work_of_the_search_is_told_apart_from_that_of_controls(finished):
    _, document, found, table = finished
    assert document["layer_token_forwards"] == found.steps[-1].layer_token_forwards
    controls = {text for _, text in found.controls} - {step.pattern for step in found.steps}
    extra = document["layer_token_forwards_total"] - document["layer_token_forwards"]
    assert 0 < extra <= len(controls) * NUM_LAYERS * NUM_SEQUENCES * 100
    assert document["layer_token_forwards_total"] == table.objective.layer_token_forwards


def test_the_report_shows_every_pattern_and_its_own_state(finished):
    folder, document, found, _ = finished
    page = (folder / "report.md").read_text()
    assert all(step.pattern in page for step in found.steps)
    assert "The search is complete." in page
    assert "not complete" in report.markdown(document | {"complete": False})
    assert {path.name for path in folder.glob("*.png")} == {"loss.png", "order.png", "overlap.png"}


def test_pictures_of_an_earlier_run_do_not_stay(finished):
    folder, document, _, _ = finished
    plots.write(document | {"overlap": None}, folder)
    assert not (folder / "overlap.png").exists()


def test_a_swap_replaces_the_last_pattern_only(finished):
    _, _, found, _ = finished
    before = found.patterns
    found.swaps.append(Swap(1, 2, "FFSSSSSS", 1.0))
    assert found.patterns == [*before[:-1], "FFSSSSSS"]


def test_controls_are_measured_at_the_usual_counts_and_the_goal():
    assert control_counts(16, range(3, 16)) == [8, 4, 3]
    assert control_counts(47, range(12, 47)) == [24, 12]
    assert control_counts(16, range(2, 16)) == [8, 4, 2]
