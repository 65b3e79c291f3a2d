"""The load-test client against servers whose latencies are known. Needs `make setup`.

A mock server sends every token at a deadline of its own, in its own process. Its latencies are
chosen so that 2% of them (80 ms and 12 ms) is more than a two-core machine with both cores busy
delays a process that wakes up, as a rule. Such a stall only ever makes a run look slower, and the
next run has its own, while what a client counts wrong (a connection, a warm-up, a token too many)
is in every run: so a run that is late is repeated, and one that is early fails at once.
"""

import json
import re
import signal
import subprocess
import sys

import _environments
import numpy as np
import pytest

from sglang_ic.demo.tokenizer import write_tokenizer

pytestmark = pytest.mark.engine

TTFT_MS, ITL_MS = 4000.0, 600.0
TOLERANCE = 0.02
RUNS = 4


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, max_length=1 << 20)
    return folder


@pytest.fixture
def mock():
    """Start mock servers: mock("--itl-ms", "20") gives a URL, mock.pids[url] its process."""
    running = {}

    def start(*flags):
        command = [sys.executable, "-m", "sglang_ic.bench.mock_server", *flags]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        running[url] = process
        start.pids[url] = process.pid
        return url

    start.pids = {}
    yield start
    for process in running.values():
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


@pytest.fixture
def run_client(tmp_path, tokenizer):
    """Run the client; gives its exit code and prints, and the JSON report if there is one."""

    def run(scenario, *argv, **kwargs):
        path = tmp_path / "load.toml"
        path.write_text(scenario)
        words = ["--scenario", path, "--tokenizer", tokenizer, "--output", tmp_path / "report"]
        words = [str(word) for word in (*words, *argv)]
        job = _environments.fork().submit("_bench_jobs:client", argv=words, **kwargs)
        told = job.result()
        report = tmp_path / "report" / "report.json"
        told["report"] = json.loads(report.read_text()) if report.exists() else None
        return told

    return run


def load(requests=4, concurrency=(2,), prompt=100, output=4, **traffic):
    """A scenario with answers of one length (a share of 0.999 of it rounds up to all of it)."""
    rows = "".join(f"{key} = {value}\n" for key, value in traffic.items())
    return (
        f"requests = {requests}\nconcurrency = {list(concurrency)}\n[[traffic]]\n"
        f"prompt_tokens = {prompt}\noutput_tokens = {output}\nrange_ratio = 0.999\n{rows}"
    )


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 16])
def test_known_latencies_come_out_within_two_percent(mock, run_client, at_once):
    flags = ("--ttft-ms", str(TTFT_MS), "--itl-ms", str(ITL_MS))
    scenario = load(requests=max(2, at_once), concurrency=(at_once,), output=10)
    argv = ("--arm", f"mock={mock(*flags)}", "--no-control", "--rounds", "1")
    for _ in range(RUNS):
        told = run_client(scenario, *argv)
        assert told["code"] == 0, told["err"]
        arm = told["report"]["points"][0]["arms"]["mock"]
        assert arm["num_ok"] == max(2, at_once) and arm["itl_ms"]["num"] >= 8 * arm["num_ok"]
        errors = {
            (metric, percentile): arm[metric][percentile] / truth - 1
            for metric, truth in (("ttft_ms", TTFT_MS), ("itl_ms", ITL_MS))
            for percentile in ("p50", "p99")
        }
        assert min(errors.values()) >= -TOLERANCE, errors
        if max(errors.values()) <= TOLERANCE:
            return
    pytest.fail(f"more than {TOLERANCE:.0%} late in each of {RUNS} runs, in the last: {errors}")


def test_a_server_twice_as_fast_has_a_speed_up_of_two_and_a_control_of_one(mock, run_client):
    slow = mock("--ttft-ms", "1600", "--itl-ms", "200")
    fast = mock("--ttft-ms", "800", "--itl-ms", "100")
    told = run_client(load(), "--arm", f"slow={slow}", "--arm", f"fast={fast}", "--rounds", "2")
    assert told["code"] == 0, told["err"]
    ratios = told["report"]["points"][0]["ratios"]
    for key in ("ttft_p50", "itl_p50", "e2e_p50", "output_tokens_per_sec"):
        assert ratios["fast"][key]["ratio"] == pytest.approx(2.0, rel=0.1), key
        assert ratios["slow (again)"][key]["ratio"] == pytest.approx(1.0, rel=0.1), key
    blocks = [(block["arm"], block["round"]) for block in told["report"]["blocks"]]
    forward = ["slow", "fast", "slow (again)"]
    assert blocks == [(arm, 0) for arm in forward] + [(arm, 1) for arm in forward[::-1]]
    sent = {}
    for block in told["report"]["blocks"]:
        lengths = [(one["prompt_tokens"], one["wanted_tokens"]) for one in block["requests"]]
        sent.setdefault((block["round"], block["seed"]), []).append(lengths)
    assert len(sent) == 2 and all(len(set(map(str, one))) == 1 for one in sent.values())


def test_failures_are_named_counted_and_in_no_average(mock, run_client):
    quick = ("--ttft-ms", "200", "--itl-ms", "50")
    argv = [
        "--arm", f"good={mock(*quick)}",
        "--arm", f"refuses={mock(*quick, '--fail', '3')}",
        "--arm", f"hangs-up={mock(*quick, '--stop-after', '2')}",
        "--no-control", "--rounds", "1",
    ]  # fmt: skip
    told = run_client(load(requests=6), *argv)
    assert told["code"] == 1
    arms = told["report"]["points"][0]["arms"]
    assert arms["good"]["errors"] == {} and arms["good"]["num_ok"] == 6
    refused = arms["refuses"]["errors"]["Internal Server Error"]
    assert refused["num"] == 2 and "told to fail" in refused["examples"][0]
    assert arms["refuses"]["num_ok"] == 4 and arms["refuses"]["ttft_ms"]["num"] == 4
    assert arms["refuses"]["ttft_ms"]["min"] > 190
    assert arms["hangs-up"]["errors"]["short answer"]["num"] == 6
    assert arms["hangs-up"]["ttft_ms"] is None
    assert "hangs-up" in {arm["name"] for arm in told["report"]["arms"] if arm["given_up"]}
    assert "refuses: 2 requests failed, Internal Server Error" in told["err"]
    markdown = told["report"]["points"][0]["ratios"]["refuses"]["ttft_p50"]
    assert markdown["num_pairs"] == 4


def test_sessions_grow_and_a_turn_after_a_failed_one_does_not_count(mock, run_client):
    quick = ("--ttft-ms", "100", "--itl-ms", "20")
    argv = ["--arm", f"good={mock(*quick)}", "--arm", f"bad={mock(*quick, '--fail', '5')}"]
    scenario = load(requests=2, concurrency=(1,), turns=3)
    told = run_client(scenario, *argv, "--no-control", "--rounds", "1")
    good, bad = (block["requests"] for block in told["report"]["blocks"])
    assert [(one["index"], one["turn"]) for one in good] == [
        (i, t) for i in (0, 1) for t in range(3)
    ]
    for first, second in zip(good, good[1:], strict=False):
        if second["turn"]:
            assert second["prompt_tokens"] > first["prompt_tokens"] + 100
    # The warm-up takes 3 answers, so the 5th is turn 1 of the first session.
    assert [one["error"] for one in bad[:3]] == [
        None,
        "Internal Server Error",
        "after a failed turn",
    ]


def test_ctrl_c_keeps_what_was_measured(mock, run_client):
    url = mock("--ttft-ms", "300", "--itl-ms", "100")
    argv = ("--arm", f"one={url}", "--arm", f"two={url}", "--rounds", "2", "--no-control")
    told = run_client(load(requests=12, concurrency=(1,)), *argv, interrupt_in_block=3, delay_sec=4)
    assert told["code"] == 130
    report = told["report"]
    assert report["is_interrupted"]
    assert [len(block["requests"]) for block in report["blocks"][:2]] == [12, 12]
    assert 0 < len(report["blocks"][2]["requests"]) < 12 and len(report["blocks"]) == 3
    point = report["points"][0]
    assert point["arms"]["one"]["num_sent"] == point["arms"]["two"]["num_sent"] == 12
    assert point["ratios"]["two"]["ttft_p50"]["num_pairs"] == 12


def test_an_open_loop_sends_at_its_rate_and_tells_goodput(mock, run_client):
    url = mock("--ttft-ms", "500", "--itl-ms", "50")
    scenario = "rates = [4.0]\n" + load(requests=20, concurrency=())
    scenario = 'objective = { ttft_ms = "1.5x", itl_ms = 25 }\n' + scenario
    told = run_client(scenario, "--arm", f"mock={url}", "--no-control", "--rounds", "1")
    assert told["code"] == 0, told["err"]
    point = told["report"]["points"][0]
    assert point["objective"]["ttft_ms"] == pytest.approx(750, rel=0.1)
    assert point["arms"]["mock"]["goodput"]["num_met"] == 0  # no token comes within 25 ms
    block = told["report"]["blocks"][0]
    starts = np.array([one["start_sec"] for one in block["requests"]])
    np.random.seed(block["seed"])
    gaps = np.random.exponential(1 / 4.0, size=19)
    assert starts[1:] - starts[0] == pytest.approx(np.cumsum(gaps), abs=0.2)


@pytest.mark.parametrize(
    ("arms", "says"),
    [
        (
            ["gone=http://127.0.0.1:1"],
            r"http://127\.0\.0\.1:1 does not answer \(Connection refused",
        ),
        (["a={url}", "b={other}"], r"arm 'b' serves model 'other', arm 'a' serves 'mock'"),
        ([], "no --arm"),
        (["a={url}", "a={url}"], "two arms are called 'a'"),
        (["{url}"], "has no name"),
    ],
)
def test_arms_that_cannot_be_compared_are_refused_in_one_line(mock, run_client, arms, says):
    urls = {"url": mock(), "other": mock("--model", "other")}
    argv = [word for arm in arms for word in ("--arm", arm.format(**urls))]
    told = run_client(load(), *argv, "--no-control")
    assert told["code"] == 2 and told["report"] is None
    lines = [line for line in told["err"].splitlines() if "error" in line]
    assert len(lines) == 1 and re.search(says, lines[0]), told["err"]


def test_a_server_that_does_not_start_is_named_with_the_end_of_its_log(run_client, tmp_path):
    told = run_client(load(), "--arm", "full", "--model-path", tmp_path / "no-model")
    assert told["code"] == 2 and told["report"] is None
    assert re.search(
        r"error: the server of arm 'full' ended with code \d+; its log is ", told["err"]
    )
    assert "no-model" in told["err"].partition("its log is")[2]  # the server's own words


def test_an_arm_whose_server_ends_is_given_up_and_the_others_go_on(mock, run_client):
    quick = ("--ttft-ms", "200", "--itl-ms", "20")
    stays, ends = mock(*quick), mock(*quick)
    argv = ("--arm", f"stays={stays}", "--arm", f"ends={ends}", "--no-control", "--rounds", "3")
    # Blocks: stays, ends, ends, stays, stays, ends; the server goes when the third begins.
    told = run_client(load(), *argv, interrupt_in_block=3, pid=mock.pids[ends])
    assert told["code"] == 1
    report = told["report"]
    whole = [(b["arm"], b["round"]) for b in report["blocks"] if len(b["requests"]) == 4]
    assert [one for one in whole if one[0] == "stays"] == [("stays", n) for n in range(3)]
    given_up = {arm["name"]: arm["given_up"] for arm in report["arms"]}
    assert given_up["stays"] is None
    assert given_up["ends"].endswith("(Connection refused)")
    assert "arm 'ends' is given up" in told["err"]
    assert report["points"][0]["ratios"]["ends"]["ttft_p50"]["num_pairs"] == 4


def test_prompts_depend_on_the_seed_alone(tokenizer, tmp_path):
    path = tmp_path / "load.toml"
    path.write_text(load(requests=8, prompt=200, prefix_tokens=300, requests_per_prefix=4))
    first, again, other = _environments.fork().run(
        "_bench_jobs:prompts", folder=str(tokenizer), scenario=str(path), seeds=[1, 1, 2]
    )
    assert first == again != other
    prefixes = [str(prompt[:290]) for prompt, _ in first]
    assert sorted(prefixes.count(one) for one in set(prefixes)) == [4, 4]
    assert len({str(prompt) for prompt, _ in first}) == 8
    assert all(490 <= len(prompt) <= 500 for prompt, _ in first)
