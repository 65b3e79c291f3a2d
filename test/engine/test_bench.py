"""The load-test client as a user starts it, on the bundled model. Needs `make setup`."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.engine, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
PATTERN = "freq:4,offset:1"  # FSSSFSSS...
TIMEOUT_SEC = 600
# Above index_topk (128): below it every pattern selects the same tokens.
SCENARIO = """
description = "Questions about two documents."
requests = 4
concurrency = [1, 2]
[[traffic]]
prefix_tokens = 320
requests_per_prefix = 2
prompt_tokens = 80
output_tokens = 8
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    (folder / "questions.toml").write_text(SCENARIO)
    words = ["--arm", "full", "--arm", f"1/4={PATTERN}", "--no-control", "--rounds", "1"]
    words += ["--scenario", str(folder / "questions.toml"), "--output", str(folder / "report")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "sglang_ic.bench", *words],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SEC,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done, folder / "report", json.loads((folder / "report" / "report.json").read_text())


def test_every_request_of_both_arms_succeeds_with_the_length_asked_for(measured):
    _, _, report = measured
    assert len(report["blocks"]) == 4  # two loads, two arms
    for block in report["blocks"]:
        assert len(block["requests"]) == block["num_planned"] == 4
        for one in block["requests"]:
            assert one["error"] is None
            assert one["output_tokens"] == one["wanted_tokens"]
            assert one["first_tokens"] == 1
            assert len(one["itl_sec"]) == one["output_tokens"] - 1
    lengths = [[one["prompt_tokens"] for one in b["requests"]] for b in report["blocks"]]
    assert lengths[0] == lengths[1] != lengths[2] == lengths[3]


def test_the_arms_run_their_own_patterns_and_the_counters_say_so(measured):
    _, _, report = measured
    patterns = {arm["name"]: arm["pattern"] for arm in report["arms"]}
    assert patterns == {"full": "F" * 16, "1/4": "FSSS" * 4}
    for point in report["points"]:
        assert point["arms"]["full"]["indexer"]["skipped_share"] == 0
        assert point["arms"]["1/4"]["indexer"]["skipped_share"] == 0.75
        assert point["arms"]["full"]["indexer"]["num_run"] > 0


def test_a_shared_prefix_is_found_in_a_cache_that_every_block_starts_empty(measured):
    _, _, report = measured
    alone = [block for block in report["blocks"] if block["point"].endswith("1 at a time")]
    for block in alone:
        cached = [one["cached_tokens"] for one in block["requests"]]  # in the order sent
        assert cached[0] == 0  # the warm-up and other blocks had the same prefixes or lengths
        assert sum(tokens >= 256 for tokens in cached) == 2, cached  # whole pages of 64
    assert all(arm["cache_hit_rate"] > 0.2 for arm in report["points"][0]["arms"].values())


def test_the_reports_are_whole_and_need_no_network(measured):
    done, folder, report = measured
    names = {path.name for path in folder.iterdir()}
    images = {name for name in names if name.endswith(".png")}
    assert names == {"report.json", "report.md", "report.html", "logs", *images}
    assert images == {"speedup.png", "questions-latency.png"}
    html = (folder / "report.html").read_text()
    assert html.count("data:image/png;base64,") == 2
    assert not re.search(r'(?:src|href)="(?!data:)', html)
    for text in (html, (folder / "report.md").read_text()):
        assert "questions: 2 at a time" in text and "FSSS" * 4 in text
    assert "report.html" in done.stdout
    words = [word for arm in report["arms"] for word in arm["command"]]
    assert not [word for word in words if word.startswith(str(ROOT))]  # run from the checkout


def test_no_server_is_left_behind(measured):
    _, _, report = measured
    ports = {arm["command"][arm["command"].index("--port") + 1] for arm in report["arms"]}
    assert len(ports) == 2
    listening = {str(c.laddr.port) for c in psutil.net_connections("tcp") if c.status == "LISTEN"}
    assert not ports & listening
    # What process_iter read of each: a process that ends meanwhile has None, and raises nothing.
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert [line for line in lines if ports & set(line)] == []
