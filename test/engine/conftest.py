"""Fixtures of the load-test client's tests: mock servers, loads, and runs of the client."""

import json
import signal
import subprocess
import sys

import _environments
import pytest

from sglang_ic.demo.tokenizer import write_tokenizer


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
    """Run the client; gives its exit code and prints, and the JSON report if there is one.

    Without `has_tokenizer` it takes the one that the first arm's server names.
    """

    def run(scenario, *argv, has_tokenizer=True, **kwargs):
        path = tmp_path / "load.toml"
        path.write_text(scenario)
        words = ["--scenario", path, "--output", tmp_path / "report"]
        words += ["--tokenizer", tokenizer] if has_tokenizer else []
        words = [str(word) for word in (*words, *argv)]
        job = _environments.fork().submit("_bench_jobs:client", argv=words, **kwargs)
        told = job.result()
        report = tmp_path / "report" / "report.json"
        told["report"] = json.loads(report.read_text()) if report.exists() else None
        return told

    return run


@pytest.fixture
def load():
    """load(requests=8) -> a scenario with answers of one length.

    A share of 0.999 of a length rounds up to all of it.
    """

    def text(requests=4, concurrency=(2,), prompt=100, output=4, **traffic):
        rows = "".join(f"{key} = {value}\n" for key, value in traffic.items())
        return (
            f"requests = {requests}\nconcurrency = {list(concurrency)}\n[[traffic]]\n"
            f"prompt_tokens = {prompt}\noutput_tokens = {output}\nrange_ratio = 0.999\n{rows}"
        )

    return text
