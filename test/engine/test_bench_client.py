"""The load-test client against servers whose latencies are known. Needs `make setup`.

A mock server sends every token at a deadline of its own, in its own process. Long latencies show
an error of scale: 2% of them (80 ms and 12 ms) is more than a two-core machine with both cores busy
delays a process that wakes up, as a rule. Short ones show an error of a constant size, such as a
millisecond more for every token; they are judged by medians, with a fixed allowance. A stall only
ever makes a run look slower, and the next run has its own, while what a client counts wrong (a
connection, a warm-up, a token too many) is in every run: so a run that is late is repeated, and one
that is early fails at once.
"""

import _environments
import numpy as np
import pytest

pytestmark = pytest.mark.engine

LONG_MS = {"ttft_ms": 4000.0, "itl_ms": 600.0}
SHORT_MS = {"ttft_ms": 200.0, "itl_ms": 30.0}
# What the client's machine may add to a median: a connection and a wake-up; a wake-up.
ALLOWED_MS = {"ttft_ms": 10.0, "itl_ms": 1.0}
TOLERANCE = 0.02
RUNS = 4


def check(run, truth_ms, percentiles, allowed_ms):
    """Repeat `run` while it is late; `allowed_ms` is added to the tolerance of what is late."""
    for _ in range(RUNS):
        arm = run()
        late = {
            (metric, percentile): arm[metric][percentile] - truth
            for metric, truth in truth_ms.items()
            for percentile in percentiles
        }
        within = {metric: TOLERANCE * truth for metric, truth in truth_ms.items()}
        assert all(ms >= -within[metric] for (metric, _), ms in late.items()), late
        if all(ms <= within[metric] + allowed_ms[metric] for (metric, _), ms in late.items()):
            return
    pytest.fail(f"more than {TOLERANCE:.0%} late in each of {RUNS} runs, in the last: {late} ms")


@pytest.fixture
def run_mock(load, mock, run_client):
    """run_mock(truth, requests at once, of so many tokens) -> a function that measures them."""

    def prepare(truth_ms, at_once, output):
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in truth_ms.items()]
        argv = ("--arm", f"mock={mock(*flags)}", "--no-control", "--rounds", "1")
        requests = max(2, at_once)

        def run():
            scenario = load(requests=requests, concurrency=(at_once,), output=output)
            told = run_client(scenario, *argv)
            assert told["code"] == 0, told["err"]
            arm = told["report"]["points"][0]["arms"]["mock"]
            assert arm["num_ok"] == requests
            assert arm["itl_ms"]["num"] >= (output - 2) * requests
            return arm

        return run

    return prepare


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 16])
def test_known_latencies_come_out_within_two_percent(run_mock, at_once):
    run = run_mock(LONG_MS, at_once, output=10)
    check(run, LONG_MS, ("p50", "p99"), dict.fromkeys(LONG_MS, 0.0))


@pytest.mark.parametrize("at_once", [1, 4])
def test_short_latencies_have_no_constant_error(run_mock, at_once):
    check(run_mock(SHORT_MS, at_once, output=60), SHORT_MS, ("p50",), ALLOWED_MS)


def test_a_server_twice_as_fast_has_a_speed_up_of_two_and_a_control_of_one(load, mock, run_client):
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


def test_an_open_loop_sends_at_its_rate_and_tells_goodput(load, mock, run_client):
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


def test_prompts_depend_on_the_seed_alone(load, tokenizer, tmp_path):
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


def test_servers_are_asked_with_the_key_that_upstream_sends():
    environments = [
        {},
        {"OPENAI_API_KEY": "k"},
        {"API_KEY": "k"},
        {"OPENAI_API_KEY": "", "API_KEY": "k"},
        {"OPENAI_API_KEY": "k", "API_KEY": "other"},
    ]
    told = _environments.fork().run("_bench_jobs:auth_headers", environments=environments)
    for variables, (ours, upstreams) in zip(environments, told, strict=True):
        assert ours == upstreams, (
            f"{variables}: sglang.benchmark.serving.get_auth_headers has changed: "
            "make endpoint.auth_headers follow"
        )
    assert told[0][0] == {} and told[1][0] == {"Authorization": "Bearer k"}
