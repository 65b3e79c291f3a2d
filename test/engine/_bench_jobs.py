"""Runs of the load-test client in a process that has SGLang imported already."""

import contextlib
import io
import os
import signal
import sys
import threading

from sglang_ic.bench import cli, launch
from sglang_ic.bench.runner import Runner


def client(
    argv: list[str],
    interrupt_in_block: int | None = None,
    delay_sec: float = 0.0,
    pid: int | None = None,
    number: int = signal.SIGINT,
    mock_flags: dict[str, list[str]] | None = None,
) -> dict:
    """`python -m sglang_ic.bench` with `argv`: exit code and what it printed.

    Args:
        interrupt_in_block: send a signal `delay_sec` after that block (from 1) began.
        pid: of the process that gets it; this one by default.
        number: of the signal.
        mock_flags: of the mock server that is started for each arm in place of SGLang.
    """
    measure, begun = Runner.measure, []

    def counted(runner, *args):
        begun.append(args)
        if len(begun) == interrupt_in_block:
            alarm = threading.Timer(delay_sec, os.kill, (pid or os.getpid(), number))
            alarm.daemon = True
            alarm.start()
        return measure(runner, *args)

    def mock_command(arm, *, port, **_):
        words = [sys.executable, "-m", "sglang_ic.bench.mock_server", "--port", str(port)]
        return [*words, *mock_flags[arm.name]]

    Runner.measure = counted
    if mock_flags is not None:
        launch.command = mock_command
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(argv)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


def auth_headers(environments: list[dict[str, str]]) -> list[list[dict]]:
    """(ours, upstream's) headers for each environment."""
    from sglang_ic.bench import endpoint, upstream

    told = []
    for variables in environments:
        for name in ("OPENAI_API_KEY", "API_KEY"):
            os.environ.pop(name, None)
        os.environ.update(variables)
        told.append([endpoint.auth_headers(), upstream.serving().get_auth_headers()])
    return told


def prompts(folder: str, scenario: str, seeds: list[int]) -> list[list]:
    """(prompt, output_len) of every row of a scenario's first load, for each seed."""
    from pathlib import Path

    from sglang_ic.bench import scenario_file, traffic

    point = scenario_file.read(Path(scenario)).points[0]
    tokens = traffic.text_tokens(folder)
    return [
        [(row.prompt, row.output_len) for row in traffic.make_rows(point, tokens, seed)]
        for seed in seeds
    ]
