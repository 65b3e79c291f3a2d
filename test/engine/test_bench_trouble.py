"""The load-test client when servers, users or machines do not do their part. Needs `make setup`.

Whatever happens, no server stays behind, and what was measured until then is in a report that says
what happened.
"""

import re
import signal

import psutil
import pytest

pytestmark = pytest.mark.engine

QUICK = ("--ttft-ms", "100", "--itl-ms", "20")


def test_failures_are_named_counted_and_in_no_average(load, mock, run_client):
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


def test_sessions_grow_and_a_turn_after_a_failed_one_does_not_count(load, mock, run_client):
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


def test_ctrl_c_keeps_what_was_measured(load, mock, run_client):
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


def test_ctrl_c_in_the_first_block_keeps_its_requests(load, mock, run_client):
    argv = ("--arm", f"one={mock('--ttft-ms', '300')}", "--no-control", "--rounds", "1")
    told = run_client(load(requests=30, concurrency=(1,)), *argv, interrupt_in_block=1, delay_sec=4)
    assert told["code"] == 130
    report = told["report"]
    assert report["is_interrupted"] and len(report["blocks"]) == 1
    assert 0 < len(report["blocks"][0]["requests"]) < 30
    assert report["points"][0]["arms"] == {}  # no block is whole


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_servers_that_were_started_and_keeps_the_rest(load, run_client, number):
    flags = {"full": ["--ttft-ms", "200"], "1/4": ["--ttft-ms", "400"]}
    told = run_client(
        load(requests=12, concurrency=(1,)),
        *("--arm", "full", "--arm", "1/4=freq:4", "--no-control", "--rounds", "2"),
        mock_flags=flags,
        interrupt_in_block=2,
        delay_sec=3,
        number=number,
    )
    assert told["code"] == 130, told["err"]
    report = told["report"]
    first, second = report["blocks"]
    assert len(first["requests"]) == 12 and 0 < len(second["requests"]) < 12
    ports = {arm["command"][arm["command"].index("--port") + 1] for arm in report["arms"]}
    assert len(ports) == 2
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert [line for line in lines if ports & set(line)] == []


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
def test_arms_that_cannot_be_compared_are_refused_in_one_line(load, mock, run_client, arms, says):
    urls = {"url": mock(), "other": mock("--model", "other")}
    argv = [word for arm in arms for word in ("--arm", arm.format(**urls))]
    told = run_client(load(), *argv, "--no-control")
    assert told["code"] == 2 and told["report"] is None
    lines = [line for line in told["err"].splitlines() if "error" in line]
    assert len(lines) == 1 and re.search(says, lines[0]), told["err"]


def test_a_tokenizer_that_only_the_server_has_is_asked_for(load, mock, run_client):
    url = mock("--tokenizer", "/srv/models/not-on-this-machine")
    told = run_client(load(), "--arm", f"far={url}", "--no-control", has_tokenizer=False)
    assert told["code"] == 2 and told["report"] is None
    lines = [line for line in told["err"].splitlines() if "error" in line.lower()]
    assert len(lines) == 1, told["err"]
    assert "'/srv/models/not-on-this-machine' of arm 'far'" in lines[0]
    assert "give --tokenizer PATH" in lines[0]


def test_a_server_that_does_not_start_is_named_with_the_end_of_its_log(load, run_client, tmp_path):
    told = run_client(load(), "--arm", "full", "--model-path", tmp_path / "no-model")
    assert told["code"] == 2 and told["report"] is None
    assert re.search(
        r"error: the server of arm 'full' ended with code \d+; its log is ", told["err"]
    )
    assert "no-model" in told["err"].partition("its log is")[2]  # the server's own words


def test_an_arm_whose_server_ends_is_given_up_and_the_others_go_on(load, mock, run_client):
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


def test_a_server_that_dies_within_a_block_keeps_what_it_answered(load, mock, run_client):
    stays = mock(*QUICK)
    dies = mock(*QUICK, "--exit-after", "3")  # one warm-up and two requests
    argv = ("--arm", f"stays={stays}", "--arm", f"dies={dies}", "--no-control", "--rounds", "2")
    told = run_client(load(concurrency=(1,)), *argv)
    assert told["code"] == 1, told["err"]
    report = told["report"]
    errors = {
        (block["arm"], block["round"]): [one["error"] is None for one in block["requests"]]
        for block in report["blocks"]
    }
    assert errors == {
        ("stays", 0): [True] * 4,
        ("dies", 0): [True, True, False, False],
        ("stays", 1): [True] * 4,
    }
    assert report["points"][0]["ratios"]["dies"]["ttft_p50"]["num_pairs"] == 2
    given_up = {arm["name"]: arm["given_up"] for arm in report["arms"]}
    assert given_up["stays"] is None
    assert given_up["dies"] == f"{dies} was lost during a block (Connection refused)"


def test_a_chat_that_is_cut_off_in_mid_stream_does_not_count(load, mock, run_client):
    argv = [
        "--arm", f"good={mock(*QUICK)}",
        "--arm", f"hangs-up={mock(*QUICK, '--stop-after', '2')}",
        "--arm", f"says-so={mock(*QUICK, '--error-after', '2')}",
        "--no-control", "--rounds", "1",
    ]  # fmt: skip
    told = run_client(load(requests=2, turns=2), *argv)
    assert told["code"] == 1
    arms = told["report"]["points"][0]["arms"]
    assert arms["good"]["num_ok"] == 4 and arms["good"]["errors"] == {}
    for arm in ("hangs-up", "says-so"):
        assert arms[arm]["num_ok"] == 0 and arms[arm]["itl_ms"] is None
        assert arms[arm]["errors"]["stream cut off"]["num"] == 4
