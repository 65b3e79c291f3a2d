"""Server processes: whole groups end, and a failure shows the log. Small scripts stand in."""

import inspect
import socket
import sys
import time

import pytest

from sglang_ic.bench import servers
from sglang_ic.bench.servers import PORTS, LaunchedServer, ServerError, free_port

CHILD = "import time; time.sleep(600)"
# A leader with a child, as SGLang has schedulers; both ignore the first, polite signal if told.
LEADER = (
    "import signal, subprocess, sys, time\n"
    "{prelude}\n"
    f"child = subprocess.Popen([sys.executable, '-c', {CHILD!r}])\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(600)\n"
)


@pytest.fixture
def start(tmp_path):
    started = []

    def run(code):
        command = [sys.executable, "-c", code, "--port", "1"]
        started.append(LaunchedServer("mine", command, {}, tmp_path / "logs" / "mine.log"))
        return started[-1]

    yield run
    for server in started:
        server.stop()


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def child_of(server):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if server.log.read_text().strip():
            return int(server.log.read_text())
        time.sleep(0.05)
    raise AssertionError("the stand-in did not start")


def test_stop_ends_the_whole_group_and_may_be_repeated(start):
    server = start(LEADER.format(prelude=""))
    child = child_of(server)
    assert is_running(child)
    server.stop()
    assert not is_running(child)
    server.stop()


def test_a_child_that_outlives_its_leader_is_ended_too(start):
    code = LEADER.format(prelude="").replace("time.sleep(600)\n", "")
    server = start(code)
    child = child_of(server)
    time.sleep(0.3)
    with pytest.raises(ServerError, match="ended with code 0"):
        server.check_alive()
    assert is_running(child)
    server.stop()
    assert not is_running(child)


def test_a_server_that_ignores_the_polite_signal_is_killed(start, monkeypatch):
    monkeypatch.setattr("sglang_ic.bench.servers.STOP_TIMEOUT_SEC", 1.0)
    server = start(LEADER.format(prelude="signal.signal(signal.SIGTERM, signal.SIG_IGN)"))
    child = child_of(server)
    server.stop()
    assert not is_running(child)


def test_a_server_that_ends_is_named_with_the_end_of_its_log(start):
    server = start("print('\\n'.join(map(str, range(100)))); raise SystemExit(3)")
    with pytest.raises(ServerError, match="arm 'mine' ended with code 3.*mine.log") as error:
        server.wait_until_ready()
    assert "\n" not in str(error.value)
    assert error.value.tail.splitlines()[-1] == "99" and len(error.value.tail.splitlines()) == 20


def test_free_ports_differ():
    taken = set()
    ports = [free_port(taken) for _ in range(20)]
    assert len(set(ports)) == 20


def test_no_port_is_one_that_sglang_takes_for_itself():
    network = pytest.importorskip("sglang.srt.utils.network")
    drawn = inspect.signature(network.get_free_port_below_ephemeral).parameters
    assert PORTS[1] <= drawn["low"].default


def test_a_port_that_is_taken_is_not_given(monkeypatch):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        monkeypatch.setattr(f"{servers.__name__}.random.sample", lambda *_: [port, 12_345, 12_346])
        assert free_port({12_345}) == 12_346
        monkeypatch.setattr(f"{servers.__name__}.random.sample", lambda *_: [port])
        with pytest.raises(OSError, match="none of 1,000 ports"):
            free_port(set())


def test_a_server_that_outlives_every_signal_is_named(start, monkeypatch):
    """It stands for a process that hangs in a driver: nothing that is sent reaches it."""
    monkeypatch.setattr("sglang_ic.bench.servers.STOP_TIMEOUT_SEC", 0.3)
    server = start(LEADER.format(prelude=""))
    child_of(server)
    with monkeypatch.context() as patch:
        patch.setattr(server, "_signal", lambda number: True)
        with pytest.raises(ServerError, match="arm 'mine' .process .* cannot be ended"):
            server.stop()


def test_a_key_reaches_the_server_and_not_its_command_as_shown(tmp_path):
    command = [sys.executable, "-c", "import sys; print(sys.argv)", "--port", "1", "--api-key", "k"]
    server = LaunchedServer("mine", command, {}, tmp_path / "mine.log")
    assert server.command[-2:] == ["--api-key", "***"]
    with pytest.raises(ServerError, match="ended with code 0") as error:
        server.wait_until_ready()
    assert "'--api-key', 'k'" in error.value.tail
