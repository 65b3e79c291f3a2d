"""Server processes that the client starts: on loopback, in a process group, ended with it.

Each server is the leader of a session of its own, so its schedulers end with it and a Ctrl-C in
the terminal reaches the client alone, which then stops the servers in order.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil

from sglang_ic.bench.endpoint import is_ready
from sglang_ic.command_line import masked

START_TIMEOUT_SEC = 1800  # a 700B checkpoint from a cold disk
STOP_TIMEOUT_SEC = 30
TAIL_LINES = 20
PORTS = 10_000, 20_000  # Linux gives from 32768 on, SGLang takes from 22000 to 29999


class ServerError(RuntimeError):
    """A server that did not start or has ended; `tail` is the end of its log."""

    def __init__(self, message: str, tail: str) -> None:
        super().__init__(message)
        self.tail = tail


class LaunchedServer:
    """A server process; nothing runs after `stop`, which may be called at any time, twice too.

    Attributes:
        command: as it may be shown, without keys and passwords.
    """

    def __init__(self, name: str, command: list[str], environment: dict[str, str], log: Path):
        self.name, self.command, self.log = name, masked(command), log
        self.url = f"http://127.0.0.1:{command[command.index('--port') + 1]}"
        self.start_sec: float | None = None  # until it answered
        self._begin = time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as sink:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Return when the server generates.

        Raises:
            ServerError: it ended, or does not answer in time.
        """
        while not is_ready(self.url):
            self.check_alive()
            if time.monotonic() - self._begin > START_TIMEOUT_SEC:
                raise self._error(f"did not answer in {START_TIMEOUT_SEC} s")
            time.sleep(0.5)
        if self.start_sec is None:
            self.start_sec = time.monotonic() - self._begin

    def check_alive(self) -> None:
        """Raises: ServerError: the process has ended."""
        code = self._process.poll()
        if code is not None:
            raise self._error(f"ended with code {code}")

    def cpu_sec(self) -> float:
        """CPU time of the server and its processes so far."""
        total = 0.0
        with contextlib.suppress(psutil.NoSuchProcess):
            leader = psutil.Process(self._process.pid)
            for process in (leader, *leader.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    total += times.user + times.system
        return total

    def stop(self) -> None:
        """End the process group and wait until every process of it is gone.

        Raises:
            ServerError: it outlives even a SIGKILL, for example in a driver's call.
        """
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + STOP_TIMEOUT_SEC
            while self._signal(number) and time.monotonic() < deadline:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(0.2)
                number = 0  # once is enough: from here on only look whether anyone is left
        try:
            self._process.wait(STOP_TIMEOUT_SEC)
        except subprocess.TimeoutExpired as error:
            raise self._error(f"(process {self._process.pid}) cannot be ended") from error

    def _signal(self, number: int) -> bool:
        """Signal the group; False if no process of it is left."""
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return False
        return True

    def _error(self, what: str) -> ServerError:
        lines = self.log.read_text(errors="replace").splitlines()
        return ServerError(
            f"the server of arm {self.name!r} {what}; its log is {self.log}",
            "\n".join(lines[-TAIL_LINES:]),
        )


def free_port(taken: set[int]) -> int:
    """A loopback port that nothing listens on and that is not in `taken`; adds it there.

    A server binds its port a minute after it was chosen here. So it is none of those that Linux
    gives to whoever asks for any, and none of those that SGLang picks for itself: see PORTS.

    Raises:
        OSError: no port can be bound.
    """
    for port in random.sample(range(*PORTS), 1000):
        if port in taken:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    continue
                raise
            taken.add(port)
            return port
    raise OSError(f"none of 1,000 ports from {PORTS[0]} to {PORTS[1]} is free on 127.0.0.1")
