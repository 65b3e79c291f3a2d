"""The document and the page, from a journal made by hand."""

import json

import pytest

from sglang_ic.latency import cli, document, report, trace
from sglang_ic.latency.journal import JournalError

ARMS = {
    "stock full": {"engine": "stock", "pattern": "FFFF", "changes": ""},
    "fork full": {"engine": "fork", "pattern": "FFFF", "changes": ""},
    "fork 2 Full": {"engine": "fork", "pattern": "FSFS", "changes": ""},
    "fork 1 Full": {"engine": "fork", "pattern": "FSSS", "changes": ""},
}
ROWS = ["prefill 2048", "decode 2048 x4", "profile prefill 2048"]


def run(run_id: str = "2026-01-02T03:04:05+00:00") -> dict:
    return {
        "event": "run",
        "run": run_id,
        "part": "p",
        "title": "A title",
        "command": "python -m sglang_ic.latency plan.toml --part p",
        "hardware": {"cpu": "C", "num_cores": 2, "gpus": ["NVIDIA X, 100 MiB, 1"]},
        "python": "3.11.7",
        "weights": "dummy",
        "on_cpu": False,
        "switch": True,
        "together": False,
        "rows": ROWS,
        "arms": ARMS,
    }


def server(name: str, max_abs: float = 0.02) -> dict:
    return {
        "event": "server",
        "run": run()["run"],
        "part": "p",
        "name": name,
        "engine": name.partition(" ")[0],
        "arms": [arm for arm in ARMS if arm.startswith(name)],
        "command": ["python", name],
        "start_sec": 60.0,
        "latency": {
            "versions": {"sglang": "0.5.23"},
            "weights": {
                "projection_max_abs": max_abs,
                "projection_std": max_abs / 2,
                "norm_mean": 1.0,
            },
        },
        "info": {"max_total_num_tokens": 1000000, "kv_cache_dtype": "bfloat16"},
    }


def value(arm: str, number: float, round_: int = 0, row: str = ROWS[0], **more) -> dict:
    return {
        "event": "value",
        "run": run()["run"],
        "part": "p",
        "row": row,
        "arm": arm,
        "round": round_,
        "metric": "ttft_sec" if row.startswith("prefill") else "itl_ms",
        "value": number,
        "memory": {"peak_allocated_bytes": 3 * 2**30},
        **more,
    }


def profile(arm: str, launches: float | None, row: str = ROWS[2], **what: int) -> dict:
    return {
        "event": "profile",
        "run": run()["run"],
        "part": "p",
        "row": row,
        "arm": arm,
        "round": 0,
        "memory": {"peak_allocated_bytes": 5 * 2**30},
        "category_ms": {name: 10.0 for name in trace.NAMES},
        "launches_per_run": launches,
        **(what or {"num_prefilled_tokens": 512}),
        "longest": [
            {"name": "flashinfer::norm::X", "category": "sparse attention", "num": 1, "total_ms": 2}
        ],
    }


LINES = [
    run(),
    server("stock"),
    server("fork"),
    value("stock full", 4.0, 0, last_ids=[7]),
    value("stock full", 4.4, 1, last_ids=[8]),
    value("stock full", 4.1, 2, last_ids=[9]),
    value("fork full", 4.2, 0, last_ids=[7]),
    value("fork full", 4.1, 1, last_ids=[1]),
    value("fork 2 Full", 2.2),
    value("fork 1 Full", 1.2),
    value("fork full", 9.0, row=ROWS[1]),
    profile("stock full", None),
    profile("fork full", 1.0),
    profile("fork 2 Full", 1.5),
    {"event": "skipped", "row": "decode 2048 x64", "arm": "fork full", "reason": "no room"},
]


def test_medians_spread_and_speedups_over_the_first_arm():
    row = document.build(LINES)["rows"][0]
    assert (row["row"], row["metric"], row["reference"]) == (ROWS[0], "ttft_sec", "stock full")
    stock = row["arms"]["stock full"]
    assert (stock["values"], stock["median"], stock["num_full"]) == ([4.0, 4.4, 4.1], 4.1, 4)
    assert stock["relative_spread"] == pytest.approx(0.4 / 4.1)
    assert row["arms"]["fork 2 Full"]["speedup"] == pytest.approx(4.1 / 2.2)


def test_no_indexer_is_a_line_for_the_engine_that_has_three_full_counts():
    found = document.build(LINES)["rows"][0]["no_indexer"]
    assert list(found) == ["fork"]
    # Medians 4.15, 2.2, 1.2 at 4, 2, 1 Full layers; means 7/3 and 7.55/3.
    assert found["fork"]["per_layer"] == pytest.approx(4.583333 / 4.666667, rel=1e-5)
    assert found["fork"]["value"] == pytest.approx(0.225, rel=1e-4)
    assert set(found["fork"]["residuals"]) == {"4", "2", "1"}


def test_an_arm_with_flags_of_its_own_is_in_no_line_and_no_control_but_says_so():
    own = {"engine": "fork", "pattern": "FFFF", "changes": "SGLANG_IC_X=1"}
    began = {**run(), "arms": {**ARMS, "fork full, x": own}}
    made = document.build([began, *LINES[1:], value("fork full, x", 1.0)])
    row, without = made["rows"][0], document.build(LINES)["rows"][0]
    assert row["arms"]["fork full, x"]["speedup"] == pytest.approx(4.1)
    assert (row["no_indexer"], row["controls"]) == (without["no_indexer"], without["controls"])
    assert "- fork full, x runs with `SGLANG_IC_X=1`." in report.markdown(made, None)


def test_candidate_layers_are_left_out_of_the_line():
    plain = document.build(LINES)["rows"][0]["no_indexer"]
    candidates = {"engine": "fork", "pattern": "FCCC", "changes": ""}
    begun = {**run(), "arms": {**ARMS, "fork candidates": candidates}}
    lines = [begun, *LINES[1:], value("fork candidates", 3.0)]
    assert document.build(lines)["rows"][0]["no_indexer"] == plain


def test_the_control_is_the_fork_over_stock_at_one_pattern():
    (control,) = document.build(LINES)["rows"][0]["controls"]
    assert (control["arm"], control["over"]) == ("fork full", "stock full")
    assert not control["is_same_engine"]
    assert control["ratio"] == pytest.approx(4.15 / 4.1)
    assert (control["low"], control["high"]) == pytest.approx((4.1 / 4.4, 4.2 / 4.0))
    assert (control["num_prompts_equal"], control["num_prompts_compared"]) == (1, 2)


def test_an_arm_measured_again_is_a_control_of_its_own_engine():
    again = {"engine": "stock", "pattern": "FFFF", "changes": ""}
    lines = [
        {**run(), "arms": {**ARMS, "stock full, again": again}},
        *LINES[1:],
        value("stock full, again", 8.2, 0, last_ids=[6]),
        value("stock full, again", 8.2, 1, last_ids=[8]),
    ]
    made = document.build(lines)
    other, same = made["rows"][0]["controls"]
    assert (other["arm"], other["over"]) == ("fork full", "stock full")
    assert (same["arm"], same["over"]) == ("stock full, again", "stock full")
    assert same["is_same_engine"] and same["ratio"] == pytest.approx(2)
    assert (same["num_prompts_equal"], same["num_prompts_compared"]) == (1, 2)
    page = report.markdown(made, None)
    assert "- Control, the other engine: fork full takes 1.012x the time of stock full" in page
    assert (
        "- Control, the same engine: stock full, again takes 2.000x the time of stock full "
        "(1.864-2.050 over repeats); both chose the same first token for 1 of 2 prompts." in page
    )


def test_arms_alike_are_one_point_of_the_line():
    again = {"engine": "fork", "pattern": "FFFF", "changes": ""}
    begun = {**run(), "arms": {**ARMS, "fork full, again": again}}
    lines = [begun, *LINES[1:], value("fork full, again", 7.15)]
    line = document.build(lines)["rows"][0]["no_indexer"]["fork"]
    # 4.2, 4.1 and 7.15 at 4 Full layers: their median is 4.2, not the last one alone.
    plain = document.build([*LINES, value("fork full", 4.25, 2)])["rows"][0]["no_indexer"]["fork"]
    assert line["value"] == pytest.approx(plain["value"])


def test_memory_is_the_highest_peak_of_a_server():
    stock, fork = document.build(LINES)["memory"]
    assert (stock["server"], stock["kv_pool_tokens"]) == ("stock", 1000000)
    assert stock["peak_allocated_bytes"] == fork["peak_allocated_bytes"] == 5 * 2**30


def test_the_page_says_what_it_must():
    page = report.markdown(document.build(LINES), "x.png")
    for words in (
        "# A title",
        "NVIDIA X",
        "sglang 0.5.23",
        "![medians and repeats of every arm and kernel time by category](x.png)",
        "| stock full | 4 | 4.1 | 4-4.4 | 9.8% | 3 | 1.000 |",
        "no indexer, line through 3 Full counts of fork",
        "both chose the same first token for 1 of 2 prompts",
        "stock (index-K everywhere)",
        "1,000,000",
        "decode 2048 x64, fork full: no room",
        "a whole number, as it must be, in 1 of 2 profiles",
        "The last 512 of 2,048 prompt tokens, the others in the cache.",
        "| ms on the GPU | stock full | fork full | fork 2 Full |",
        "| Full layers | 4 | 4 | 2 |",
        "| sparse attention | 8.00 | 8.00 | 8.00 |",
        "| norm | 12.00 | 12.00 | 12.00 |",
        "| all kernels | 90.00 | 90.00 | 90.00 |",
        "| 44% | 44% | 44% |",
        "| launches per run |  | 1 | 1.5 |",
        "a sum can be more than the time that passed",
        "- 60 s, stock: `python stock`",
        "`python -m sglang_ic.latency plan.toml --part p`",
    ):
        assert words in page, words
    assert "Dummy weights" in page and "realistic spread" in page


def test_a_profile_of_decode_names_its_steps():
    line = profile("fork full", 1.0, row="profile decode 2048", num_new_tokens=32)
    page = report.markdown(document.build([run(), server("fork"), line]), None)
    assert "32 decode steps behind 2,048 tokens." in page


def test_servers_that_differ_by_port_are_one_line_and_an_arms_own_settings_are_told():
    own = {"engine": "fork", "pattern": "FFFF", "changes": "SGLANG_IC_X=1"}
    begun = {**run(), "arms": {**ARMS, "replaced": own}}
    plain = [server("fork") | {"command": ["python", "--port", port]} for port in ("1", "2")]
    third = server("replaced") | {"start_sec": 7.4, "arms": ["replaced"]}
    lines = [begun, *plain, third, profile("replaced", 1.0), value("fork full", 1.0)]
    page = report.markdown(document.build(lines), None)
    assert "- 60 and 60 s, fork: `python --port PORT`\n" in page
    assert "- 7 s, replaced: `python replaced` with `SGLANG_IC_X=1`\n" in page
    assert "- replaced runs with `SGLANG_IC_X=1`." in page


def test_weights_that_make_degenerate_scores_are_called_so():
    lines = [run(), server("fork", max_abs=0.001), value("fork full", 1.0)]
    assert "nearly equal" in report.weights_line(document.build(lines))


def test_a_row_from_two_commands_says_so():
    other = run("2026-01-02T04:00:00+00:00")
    lines = [*LINES, other, value("stock full", 4.0, 3) | {"run": other["run"]}]
    assert document.build(lines)["rows"][0]["num_runs"] == 2
    assert "Measured by 2 commands" in report.markdown(document.build(lines), None)


def test_an_empty_journal_has_no_report():
    with pytest.raises(JournalError, match="no measurement yet"):
        document.build([run()])


def test_the_chart_has_a_panel_for_every_row_and_every_profile():
    from sglang_ic.latency import chart

    made = document.build(LINES)
    figure = chart.draw(made)
    titles = [axis.get_title(loc="left") for axis in figure.axes if axis.axison]
    assert [title.partition(":")[0] for title in titles] == ROWS
    assert chart.png(made).startswith(b"\x89PNG")


def test_the_bars_of_a_profile_are_its_categories_end_to_end():
    from sglang_ic.latency import chart

    lines = [run(), server("fork"), profile("fork full", 1.0), profile("fork 2 Full", 1.0)]
    (axis, *_) = chart.draw(document.build(lines)).axes
    first = [bar for bar in axis.patches if bar.get_y() < 0.5]
    assert len(first) == len(trace.NAMES)
    edges = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in first]
    assert edges[0] == (0, 10) and edges[-1][1] == pytest.approx(90)
    assert all(end == start for (_, end), (start, _) in zip(edges, edges[1:], strict=False))


def test_a_report_is_made_from_a_journal_alone(tmp_path, capsys):
    text = "".join(json.dumps(line) + "\n" for line in LINES)
    (tmp_path / "v1.2.jsonl").write_text(text)
    assert cli.main(["--report", "--output", str(tmp_path / "v1.2")]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"v1.2.jsonl", "v1.2.json", "v1.2.md", "v1.2.png"}
    page = (tmp_path / "v1.2.md").read_text()
    assert "(v1.2.png)" in page and page in capsys.readouterr().out
