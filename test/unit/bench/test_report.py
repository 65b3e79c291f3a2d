"""The document and the reports made from it."""

import json
import re

import pytest

from sglang_ic.bench import charts, document, html, launch, markdown
from sglang_ic.bench.arms import parse_all
from sglang_ic.bench.endpoint import Identity
from sglang_ic.bench.scenario import Point, Scenario, Traffic
from sglang_ic.bench.session import Plan, Result

TRAFFIC = (Traffic(prompt_tokens=100, output_tokens=3),)
POINTS = (
    Point("cold", "1 at a time", TRAFFIC, 2, concurrency=1),
    Point("cold", "2 per second", TRAFFIC, 2, rate=2.0, objective=(("ttft_ms", 150.0),)),
)


@pytest.fixture
def built(request_of, block_of):
    arms = parse_all(["full", "<b>=http://host:1"], control=False)
    plan = Plan(tuple(arms), POINTS, 1, 1, True, None, None)
    result = Result(
        identities={
            "full": Identity("m", None, 4096, None, "0.5.23", "FFFF", "flag"),
            "<b>": Identity("m", None, 4096, None, "0.5.23", None, None),
        },
        points={point.key: point for point in POINTS},
        retired={"<b>": "it ended"},
        left_out={"cold: 9 tokens": "too long"},
    )
    for point in POINTS:
        for arm, ttft in (("full", 0.2), ("<b>", 0.1)):
            requests = [
                request_of(0, ttft=ttft),
                request_of(1, ttft=ttft),
                request_of(2, error="no token", error_text="a | b\nc"),
            ]
            result.blocks.append(block_of(requests, arm=arm, point=point.key, indexer=(1, 3)))
    half = block_of([request_of(0, ttft=77.0)], point=POINTS[0].key, round=1, num_planned=9)
    result.blocks.append(half)
    scenarios = [Scenario("cold", "Cold <prompts>.", POINTS)]
    return document.build(
        plan,
        scenarios,
        result,
        command="python -m sglang_ic.bench",
        settings={"rounds": 1, "scale": 1.0, "seed": 1},
        started_at="2026-01-01T00:00:00+00:00",
        finished_at="2026-01-01T00:01:00+00:00",
    )


def test_the_document_is_json_with_everything_to_reproduce_it(built):
    again = json.loads(json.dumps(built, allow_nan=False))
    assert again == built
    assert built["schema_version"] == document.SCHEMA_VERSION
    assert built["versions"]["python"] and built["hardware"]["num_cores"] >= 1
    assert built["settings"] == {"rounds": 1, "scale": 1.0, "seed": 1}


def test_a_block_that_was_not_finished_is_kept_and_not_counted(built):
    assert [len(block["requests"]) for block in built["blocks"]] == [3, 3, 3, 3, 1]
    full = built["points"][0]["arms"]["full"]
    assert full["num_sent"] == 3 and full["ttft_ms"]["max"] == pytest.approx(200)


def test_both_reports_tell_the_same_numbers(built):
    page, images = markdown.report(built), charts.charts(built)
    shown = html.report(built, images)
    assert set(images) == {"speedup", "cold-latency", "cold-goodput"}
    for image in images.values():
        assert image.startswith(b"\x89PNG")
    for text in (page, shown):
        assert "2.00 [2.00, 2.00]" in text
        assert "2 / 3" in text and "1 requests failed, no token" in text
        assert "it ended" in text and "too long" in text
        assert "75%" in text
    assert "&lt;b&gt;" in shown and "<b>" not in shown
    assert shown.count("data:image/png;base64,") == 3


def test_a_running_server_may_have_a_gpu_that_the_client_has_not(built):
    built["hardware"]["gpus"] = []
    assert markdown.hardware_line(built).startswith("client on ")
    assert not [note for note in markdown.notes(built) if "without a GPU" in note]
    for arm in built["arms"]:
        arm["url"] = None
    assert not markdown.hardware_line(built).startswith("client on ")
    assert [note for note in markdown.notes(built) if "without a GPU" in note]


def test_few_rounds_are_called_few(built):
    assert "1 rounds are few" in markdown.ratio_caption(built)
    built["settings"]["rounds"] = 20
    assert "few" not in markdown.ratio_caption(built)


def test_a_bar_in_a_cell_does_not_break_the_table():
    lines = markdown.table(["x"], [["a | b"]])
    assert lines == ["| x |", "|---|", "| a \\| b |"]


def test_every_row_of_a_table_has_as_many_cells_as_its_heading(built):
    for part in re.split(r"\n\n", markdown.report(built)):
        rows = [line for line in part.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) <= 1


def test_paths_of_the_machine_are_shortened(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert document.shown(f"{tmp_path}/p.json@4") == "p.json@4"
    assert document.shown(f"1/4={tmp_path}/p.json") == "1/4=p.json"
    assert document.shown(str(launch.STOCK_PYTHON)) == ".venv-stock/bin/python"
    assert document.shown("/home/someone/model") == "~/model"
    assert document.shown("/srv/home/someone/model") == "/srv/home/someone/model"
