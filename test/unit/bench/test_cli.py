"""The whole client in one process, between a command line and a report; only HTTP is stood in for.

`load.run_block` is the line: it hands over made-up requests, and goes wrong as a test tells it to.
"""

import io
import json
import os
import signal
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from sglang_ic.bench import charts, cli, document, endpoint, launch, load, traffic, upstream
from sglang_ic.bench.endpoint import EndpointError, Identity
from sglang_ic.bench.runner import CALIBRATION_SEED
from sglang_ic.bench.servers import ServerError

SCENARIO = "requests = 4\n[[traffic]]\nprompt_tokens = 100\noutput_tokens = 3\n"
TWO = ["--arm", "a=http://a", "--arm", "b=http://b", "--no-control", "--rounds", "2"]


@dataclass
class Line:
    """Answers at every URL; a warm-up has seed 0."""

    make_request: object
    models: dict[str, str] = field(default_factory=dict)  # url -> name, "m" if not told
    sent: list = field(default_factory=list)  # (url, seed, concurrency, number of requests)
    hooks: dict = field(default_factory=dict)  # url -> function of (seed, index), may raise

    def identify(self, url):
        return Identity(self.models.get(url, "m"), "folder", None, None, "1", None, None)

    def run_block(self, url, model, rows, *, seed, concurrency, on_request, **_):
        self.sent.append((url, seed, concurrency, len(rows)))
        for index in range(len(rows)):
            self.hooks.get(url, lambda *_: None)(seed, index)
            on_request(self.make_request(index, start=float(index)))


@pytest.fixture
def line(monkeypatch, request_of):
    made = Line(request_of)
    monkeypatch.setattr(endpoint, "identify", made.identify)
    monkeypatch.setattr(endpoint, "indexer_counts", lambda url: None)
    monkeypatch.setattr(load, "run_block", made.run_block)
    monkeypatch.setattr(upstream, "serving", lambda: None)
    monkeypatch.setattr(charts, "charts", lambda told: {})  # test_report.py looks at them
    monkeypatch.setattr(traffic, "text_tokens", lambda path: path)
    rows = lambda point, tokens, seed, count=None: [None] * (count or point.requests)  # noqa: E731
    monkeypatch.setattr(traffic, "make_rows", rows)
    return made


@pytest.fixture
def servers(line, monkeypatch):
    """Stand-ins of launched servers, one URL for each arm's name."""
    started = []

    def start(arm):
        server = SimpleNamespace(
            name=arm.name, url=f"http://{arm.name}", command=[], start_sec=1.0, is_up=True
        )
        server.wait_until_ready = server.check_alive = lambda: None
        server.cpu_sec = lambda: 0.0
        server.stop = lambda: setattr(server, "is_up", False)
        started.append(server)
        return server

    monkeypatch.setattr(launch, "launcher", lambda *_, **__: (True, start))
    return started


@pytest.fixture
def run(tmp_path, capsys):
    """run(["--arm", ...]) -> exit code, report or None, stderr."""

    def client(words, scenario="concurrency = [2]\n" + SCENARIO, output=None):
        (tmp_path / "load.toml").write_text(scenario)
        output = output or tmp_path / "report"
        code = cli.main(["--scenario", f"{tmp_path}/load.toml", "--output", str(output), *words])
        report = output / "report.json"
        told = json.loads(report.read_text()) if report.exists() else None
        return code, told, capsys.readouterr().err

    return client


def raising(error, *, in_seed, at=0):
    def hook(seed, index):
        if seed == in_seed and index == at:
            raise error

    return hook


def whole(report):
    return [(b["arm"], b["round"]) for b in report["blocks"] if len(b["requests"]) == 4]


def given_up(report):
    return {arm["name"]: arm["given_up"] for arm in report["arms"] if arm["given_up"]}


def test_all_goes_well(line, run):
    code, report, err = run(TWO)
    assert code == 0 and "error" not in err and given_up(report) == {}
    assert whole(report) == [("a", 0), ("b", 0), ("b", 1), ("a", 1)]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (EndpointError("http://b was lost"), "http://b was lost"),
        (KeyError("completed"), "KeyError: 'completed'"),
        (ValueError("no summary"), "ValueError: no summary"),
    ],
)
def test_whatever_ends_an_arm_leaves_the_blocks_and_a_reason(line, run, error, reason):
    line.hooks["http://b"] = raising(error, in_seed=2, at=3)  # its second block, round 1
    code, report, err = run(TWO)
    assert code == 1
    assert whole(report) == [("a", 0), ("b", 0), ("a", 1)]
    cut = [block for block in report["blocks"] if len(block["requests"]) == 3]
    assert [(block["arm"], block["round"]) for block in cut] == [("b", 1)]
    assert given_up(report) == {"b": reason}
    assert f"error: arm 'b' is given up: {reason}" in err
    assert ("Traceback" in err) == (not isinstance(error, EndpointError))


def test_a_reference_that_is_lost_ends_the_session_by_name(line, run):
    line.hooks["http://a"] = raising(EndpointError("http://a was lost"), in_seed=2)
    code, report, _ = run([*TWO, "--rounds", "3"])
    assert code == 1 and given_up(report) == {"a": "http://a was lost"}
    assert whole(report) == [("a", 0), ("b", 0), ("b", 1)]


def test_before_the_first_request_an_error_is_the_users(line, run):
    line.hooks["http://a"] = raising(EndpointError("http://a does not flush"), in_seed=1)
    code, report, err = run(TWO)
    assert (code, report) == (2, None)
    assert [one for one in err.splitlines() if "error" in one] == ["error: http://a does not flush"]


def test_a_server_of_another_model_costs_its_own_arm_only(line, servers, run):
    line.models["http://1/4"] = "other"
    words = ["--arm", "full", "--arm", "1/4=freq:4", "--rounds", "2"]
    code, report, err = run([*words, "--servers", "one-at-a-time"])
    assert code == 1
    assert whole(report) == [(arm, n) for n, arm in [
        (0, "full"), (0, "full (again)"), (1, "full (again)"), (1, "full")
    ]]  # fmt: skip
    assert list(given_up(report)) == ["1/4"]
    assert "serves model 'other', arm 'full' serves 'm'" in given_up(report)["1/4"]
    assert not [server.name for server in servers if server.is_up]


def test_a_server_that_cannot_be_ended_does_not_keep_the_others(line, servers, run, monkeypatch):
    def refuse():
        raise ServerError("the server of arm 'full' cannot be ended", "its last words")

    def hook(seed, index):
        servers[0].stop = refuse

    line.hooks["http://full"] = hook
    code, report, err = run(["--arm", "full", "--arm", "1/4=freq:4", "--rounds", "1"])
    assert [server.is_up for server in servers] == [True, False, False]
    assert code == 1 and len(whole(report)) == 3
    assert given_up(report) == {"full": "the server of arm 'full' cannot be ended"}
    assert "its last words" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_first_block_keeps_its_requests_and_no_server(line, servers, run, number):
    before = {one: signal.getsignal(one) for one in signal.Signals if one < 20}

    def hook(seed, index):
        if (seed, index) == (1, 2):
            os.kill(os.getpid(), number)

    line.hooks["http://full"] = hook
    code, report, _ = run(["--arm", "full", "--rounds", "1"])
    assert code == 130 and report["is_interrupted"]
    assert [len(block["requests"]) for block in report["blocks"]] == [2]
    assert len(servers) == 2 and not any(server.is_up for server in servers)
    assert {one: signal.getsignal(one) for one in before} == before


def test_a_pipe_that_closes_with_the_ctrl_c_keeps_the_report(line, servers, run, monkeypatch):
    """`| tee` is in the terminal's group too."""

    closed = []

    class Pipe(io.StringIO):
        def write(self, text):
            if closed:
                raise BrokenPipeError
            return super().write(text)

    def hook(seed, index):
        if (seed, index) == (1, 2):
            closed.append(True)
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdout", Pipe())
    monkeypatch.setattr(sys, "stderr", Pipe())
    line.hooks["http://full"] = hook
    code, report, _ = run(["--arm", "full", "--rounds", "1"])
    assert code == 130 and len(report["blocks"]) == 1
    assert len(servers) == 2 and not any(server.is_up for server in servers)


def test_a_signal_before_any_request_leaves_one_line(line, run):
    line.hooks["http://a"] = raising(KeyboardInterrupt(), in_seed=0)
    code, report, err = run(TWO)
    assert (code, report) == (130, None) and "stopped before anything was measured" in err


def test_an_output_that_cannot_be_written_is_refused_before_a_request(line, run, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run(TWO, output=tmp_path / "file" / "report")
    assert code == 2 and line.sent == []
    assert err.startswith("error: --output") and err.count("\n") == 1


def test_two_scenarios_of_one_name_are_refused(line, run, tmp_path):
    other = tmp_path / "other" / "load.toml"
    other.parent.mkdir()
    other.write_text("concurrency = [1]\n" + SCENARIO)
    code, _, err = run(["--scenario", str(other), *TWO])
    assert code == 2 and line.sent == []
    assert err == "error: two scenarios are called 'load': rename a file\n"


def test_the_output_folder_is_there_before_the_first_request(line, run, tmp_path):
    seen = []
    line.hooks["http://a"] = lambda *_: seen.append((tmp_path / "report").is_dir())
    run(TWO)
    assert seen[0] is True


def test_a_chart_that_fails_does_not_cost_the_numbers(line, run, monkeypatch, tmp_path, capsys):
    def fail(told):
        raise RuntimeError("no font")

    monkeypatch.setattr(charts, "charts", fail)
    with pytest.raises(RuntimeError, match="no font"):
        run(TWO)
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert len(whole(report)) == 4
    assert "every number is in" in capsys.readouterr().err


def test_a_document_that_fails_does_not_cost_the_requests(line, run, monkeypatch, tmp_path, capsys):
    def fail(*_, **__):
        raise RuntimeError("no median")

    monkeypatch.setattr(document, "build", fail)
    with pytest.raises(RuntimeError, match="no median"):
        run(TWO)
    blocks = json.loads((tmp_path / "report" / "blocks.json").read_text())
    assert [len(block["requests"]) for block in blocks] == [4] * 4
    assert "blocks.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "whose"), [([], "'folder' of arm 'a'"), (["--tokenizer", "gone"], "'gone' cannot")]
)
def test_a_tokenizer_that_is_not_here_is_one_line_before_any_block(
    line, run, monkeypatch, words, whose
):
    def fail(path):
        raise OSError("Repo id must be in the form\n'namespace/name'")

    monkeypatch.setattr(traffic, "text_tokens", fail)
    code, _, err = run([*TWO, *words])
    lines = [one for one in err.splitlines() if "error" in one.lower()]
    assert code == 2 and line.sent == [] and len(lines) == 1
    assert whose in lines[0] and "give --tokenizer" in lines[0]


def test_keys_are_in_no_report(line, run, tmp_path):
    words = [*TWO, "--", "--api-key", "hush", "--admin-api-key=hush-too", "--tp", "8"]
    code, report, _ = run(words)
    assert report["settings"]["server_flags"][:2] == ["--api-key", "***"]
    assert "--tp 8" in report["command"]
    for path in (tmp_path / "report").glob("report.*"):
        assert "hush" not in path.read_text(), path


@pytest.mark.parametrize(
    ("load", "order"),
    [
        ("concurrency = [2]\n", [2, "block"]),
        ("concurrency = [6]\n", [6, "block"]),
        ("concurrency = [2]\nobjective = { ttft_ms = '2x' }\n", [2, 8, "block"]),
        ("rates = ['50%', 3.0]\n", [8, "block", "block"]),
        ("concurrency = [6]\nrates = ['80%']\n", [6, "block", 8, "block"]),
    ],
)
def test_every_arm_is_warmed_alike_before_it_is_measured(line, run, load, order):
    """Warm-ups by their requests, all at a time. The reference alone calibrates, after its own."""
    code, _, _ = run([*TWO, "--rounds", "1"], scenario=load + SCENARIO)
    assert code == 0
    for arm in ("http://a", "http://b"):
        sent = [one[1:] for one in line.sent if one[0] == arm and one[1] < CALIBRATION_SEED]
        assert all(at_once == num for seed, at_once, num in sent if seed == 0)
        assert [num if seed == 0 else "block" for seed, _, num in sent] == order
    calibrating = [one[0] for one in line.sent if one[1] >= CALIBRATION_SEED]
    assert set(calibrating) == ({"http://a"} if "%" in load or "x'" in load else set())
