"""Runs of the load-test client in a process that has SGLang imported already."""

import contextlib
import io
import os
import signal
import threading

from sglang_ic.bench import cli
from sglang_ic.bench.session import Session


def client(
    argv: list[str],
    interrupt_in_block: int | None = None,
    delay_sec: float = 0.0,
    pid: int | None = None,
) -> dict:
    """`python -m sglang_ic.bench` with `argv`: exit code and what it printed.

    Args:
        interrupt_in_block: send a Ctrl-C `delay_sec` after that block (from 1) began.
        pid: of the process that gets it; this one by default.
    """
    measure, begun = Session._measure, []

    def counted(session, *args):
        begun.append(args)
        if len(begun) == interrupt_in_block:
            alarm = threading.Timer(delay_sec, os.kill, (pid or os.getpid(), signal.SIGINT))
            alarm.daemon = True
            alarm.start()
        return measure(session, *args)

    Session._measure = counted
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(argv)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


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
