"""Run jobs inside one environment's SGLang: imported once, a forked child process for each job.

    python _driver.py MODULE...     # plugin modules to register, each with a `register()`

SGLang keeps global state, so every model needs a process of its own, but its imports take most of
a start. Jobs come as one JSON object a line, `{"id": 1, "call": "module:function", "kwargs": {},
"out": PATH}`; the child saves what the function returns with torch.save at `out`, or the traceback
as text at `out` + ".error". Each finished job is answered with `{"id": 1, "status": 0}`.
`_environments.py` is the other end.
"""

import gc
import importlib
import json
import os
import select
import sys
import traceback
from pathlib import Path

POLL_SEC = 0.02


def preload(plugins: list[str]) -> None:
    """Import what every job needs; afterwards this process still has a single thread."""
    for name in plugins:
        importlib.import_module(name).register()
    import sglang.benchmark.one_batch
    import sglang.srt.models.registry  # noqa: F401

    gc.freeze()  # what children inherit stays shared, and their collections stay short


def run_job(job: dict) -> int:
    """In the child: call the job's function and save its result. Returns the exit status."""
    import torch

    module, _, function = job["call"].partition(":")
    try:
        result = getattr(importlib.import_module(module), function)(**job["kwargs"])
        torch.save(result, job["out"])
    except BaseException:  # SystemExit too: how our plugins stop a server
        Path(job["out"] + ".error").write_text(traceback.format_exc())
        return 1
    return 0


def start(job: dict) -> int:
    pid = os.fork()
    if pid == 0:
        # No atexit, no unwinding: this is a copy of the driver.
        os._exit(run_job(job))
    return pid


def serve(requests: int, replies) -> None:
    """Fork a child per request until the requests end and every child is done."""
    running: dict[int, int] = {}  # child's pid -> job id
    pending, at_end = b"", False
    while running or not at_end:
        if not at_end and select.select([requests], [], [], POLL_SEC)[0]:
            read = os.read(requests, 1 << 16)
            at_end = not read
            *lines, pending = (pending + read).split(b"\n")
            for line in lines:
                job = json.loads(line)
                running[start(job)] = job["id"]
        elif at_end:
            select.select([], [], [], POLL_SEC)
        for pid in list(running):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                answer = {"id": running.pop(pid), "status": os.waitstatus_to_exitcode(status)}
                print(json.dumps(answer), file=replies, flush=True)


def main() -> None:
    # SGLang prints; keep the answers apart.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    preload(sys.argv[1:])
    serve(0, replies)


if __name__ == "__main__":
    main()
