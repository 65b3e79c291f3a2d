"""The latency harness on real servers of the bundled model, on CPU. Needs `make setup stock`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.stock]

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SEC = 850
# The same pattern on both engines; contexts past index_topk (128).
PLAN = """
title = "Two arms"
model = "bundled"
weights = "checkpoint"
flags = ["--random-seed", "1", "--max-running-requests", "2"]
[arms]
"stock 4 Full" = { engine = "stock", pattern = "freq:4,offset:1" }
"fork 4 Full" = { engine = "fork", pattern = "freq:4,offset:1" }
[parts.switched]
arms = ["stock 4 Full", "fork 4 Full"]
stages = [
    { kind = "prefill", context = 700, rounds = 2 },
    { kind = "decode", context = 512, rounds = 1, batch_sizes = [1, 2, 1000], new_tokens = 16 },
]
switch = true
together = false
flags = []
"""


def measure(folder: Path, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "ignore", "-m", "sglang_ic.latency", *words]
    return subprocess.run(
        [*command, "--output", str(folder / "out")],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SEC,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latency")
    (folder / "plan.toml").write_text(PLAN)
    done = measure(folder, str(folder / "plan.toml"), "--part", "switched")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def document(folder):
    return json.loads((folder / "out.json").read_text())


def test_every_row_has_every_repeat_of_both_arms(document):
    rows = {row["row"]: row for row in document["rows"]}
    assert list(rows) == ["prefill 700", "decode 512 x1", "decode 512 x2"]
    for name, num in (("prefill 700", 2), ("decode 512 x1", 1), ("decode 512 x2", 1)):
        for arm in ("stock 4 Full", "fork 4 Full"):
            values = rows[name]["arms"][arm]["values"]
            assert len(values) == num and min(values) > 0
            assert rows[name]["arms"][arm]["num_full"] == 4


def test_a_batch_that_the_pool_cannot_hold_is_left_out_by_name(document):
    assert {one["row"] for one in document["left_out"]} == {"decode 512 x1000"}


def test_upstreams_server_obeys_the_roles_that_it_was_given(document):
    """Both engines answer a prompt past index_topk with one token, if they select alike."""
    (control,) = document["rows"][0]["controls"]
    assert control["num_prompts_equal"] == control["num_prompts_compared"] == 2


def test_each_server_tells_its_own_sglang_weights_and_pool(document):
    versions = [server["latency"]["versions"]["sglang"] for server in document["servers"]]
    assert [version.partition("+")[2] != "" for version in versions] == [False, True]
    for server in document["servers"]:
        assert server["info"]["max_total_num_tokens"] > 0
        assert 0.005 < server["latency"]["weights"]["projection_max_abs"]
    assert all(one["peak_process_bytes"] > 2**28 for one in document["memory"])


def test_what_was_measured_is_not_measured_again(folder):
    before = (folder / "out.jsonl").read_text()
    done = measure(folder, str(folder / "plan.toml"), "--part", "switched")
    assert done.returncode == 0 and "starting" not in done.stderr
    assert (folder / "out.jsonl").read_text() == before


def test_the_report_has_its_chart_and_no_server_is_left(folder, document):
    assert (folder / "out.png").stat().st_size > 10_000
    assert "![" in (folder / "out.md").read_text()
    ports = {one["command"][one["command"].index("--port") + 1] for one in document["servers"]}
    left = [p.pid for p in psutil.process_iter(["cmdline"]) if ports & set(p.cmdline())]
    assert left == []
