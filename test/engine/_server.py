"""Start `sglang_ic.launch_server` as a user would, on loopback, and stop what was started."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sglang_ic.bench.servers import free_port

START_TIMEOUT_S = 300
_PORTS: set[int] = set()  # of all servers of this process, some of which start at once


def two_processors() -> str:
    """For SGLANG_CPU_OMP_THREADS_BIND: upstream wants a NUMA node for each rank, or their names."""
    first, *_, last = sorted(os.sched_getaffinity(0)) * 2
    return f"{first}|{last}"


class Server:
    """A running server: `get`, `post`, `stream`, and the log it writes."""

    def __init__(self, port: int, log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = log

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            body = answer.read().decode()
        return json.loads(body) if body.startswith(("{", "[")) else body

    def post(self, path: str, body: dict) -> Any:
        with urllib.request.urlopen(self._request(path, body), timeout=300) as answer:
            return json.loads(answer.read())

    def post_text(self, path: str, body: dict) -> str:
        with urllib.request.urlopen(self._request(path, body), timeout=300) as answer:
            return answer.read().decode()

    def stream(self, path: str, body: dict) -> list[dict]:
        """The chunks of a server-sent-events answer."""
        with urllib.request.urlopen(self._request(path, body), timeout=300) as answer:
            lines = [line.decode().strip() for line in answer]
        return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]

    def metric(self, name: str) -> float:
        """The value of a metric that has one series."""
        rows = [row for row in self.get("/metrics").splitlines() if row.startswith(name + "{")]
        assert len(rows) == 1, (name, rows)
        return float(rows[0].rpartition(" ")[2])

    def _request(self, path: str, body: dict) -> urllib.request.Request:
        return urllib.request.Request(
            self.url + path,
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )


def launch(*argv: str, module: str = "sglang_ic.launch_server", **kwargs: Any) -> subprocess.Popen:
    """The server process, in a process group of its own."""
    command = [sys.executable, "-m", module, *argv]
    return subprocess.Popen(command, start_new_session=True, **kwargs)


@contextlib.contextmanager
def running(tmp_path: Path, *argv: str, **kwargs: Any) -> Iterator[Server]:
    """A server that answers, stopped at the end; its log is shown if it does not come up."""
    port, log = free_port(_PORTS), tmp_path / "server.log"
    with log.open("w") as sink:
        process = launch(
            *("--port", str(port), *argv), stdout=sink, stderr=subprocess.STDOUT, **kwargs
        )
    server = Server(port, log)
    try:
        _wait_until_up(server, process)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def _wait_until_up(server: Server, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(
                f"the server ended with {process.returncode}:\n{server.log.read_text()[-4000:]}"
            )
        with contextlib.suppress(OSError):
            server.get("/health_generate")
            return
        time.sleep(0.5)
    raise AssertionError(f"no answer in {START_TIMEOUT_S} s:\n{server.log.read_text()[-4000:]}")
