"""The two SGLangs that engine tests run, and a way to run jobs inside them.

    fork()   the patched SGLang with both plugins, in `.venv` (`make setup`)
    stock()  upstream's wheel with the CPU plugin only, in `.venv-stock` (`make stock`)

    job = fork().submit("_parity_jobs:measure", model=path)    # starts at once
    logits = job.result()["logits"]                            # waits; EngineError if it failed

Set SGLANG_IC_FORK_PYTHON / SGLANG_IC_STOCK_PYTHON to use other interpreters, and
SGLANG_IC_FORK_PATH / SGLANG_IC_STOCK_PATH to put folders before their packages.
"""

import atexit
import functools
import itertools
import json
import os
import signal
import subprocess
import tempfile
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TIMEOUT_SEC = 600
# Results are compared bit for bit, so the order of every sum must be the same on both sides; and a
# process with OpenMP threads cannot be forked.
NUM_THREADS = 1


class EngineError(RuntimeError):
    """A job failed; the message ends with its traceback."""


@dataclass(frozen=True)
class Environment:
    """An interpreter with one SGLang, and the plugins that its processes register."""

    name: str
    python: Path
    path: tuple[str, ...]  # folders before the interpreter's own packages
    plugins: tuple[str, ...]

    def variables(self) -> dict[str, str]:
        own = {
            "PYTHONPATH": os.pathsep.join(self.path),
            "SGLANG_USE_CPU_ENGINE": "1",
            # The driver registers by hand; SGLang would register every installed plugin.
            "SGLANG_PLUGINS": "none",
            "OMP_NUM_THREADS": str(NUM_THREADS),
            "MKL_NUM_THREADS": str(NUM_THREADS),
            "TOKENIZERS_PARALLELISM": "false",
            # Upstream compiles the expert routing, seconds in every process; not what we compare.
            "TORCH_COMPILE_DISABLE": "1",
        }
        return {**os.environ, **own}


def environment(name: str, folder: str, plugins: tuple[str, ...]) -> Environment:
    """The environment called `name`, in `folder` of the repository unless overridden.

    Raises:
        FileNotFoundError: there is no such interpreter.
    """
    prefix = f"SGLANG_IC_{name.upper()}"
    python = Path(os.environ.get(f"{prefix}_PYTHON", ROOT / folder / "bin" / "python"))
    if not python.exists():
        raise FileNotFoundError(f"{python} does not exist: run `make setup stock`")
    first = filter(None, os.environ.get(f"{prefix}_PATH", "").split(os.pathsep))
    path = (*first, str(ROOT / "python"), str(HERE))
    return Environment(name, python, path, plugins)


def fork_environment() -> Environment:
    return environment("fork", ".venv", ("sglang_ic.cpu.plugin", "sglang_ic.plugin"))


def stock_environment() -> Environment:
    """Upstream's files as they are; stand-ins take the place of its two GPU-only packages."""
    found = environment("stock", ".venv-stock", ("sglang_ic.cpu.plugin",))
    standins = str(HERE.parent / "standins")
    return Environment(found.name, found.python, (standins, *found.path), found.plugins)


@functools.cache
def fork() -> "Driver":
    return Driver(fork_environment())


@functools.cache
def stock() -> "Driver":
    return Driver(stock_environment())


class Driver:
    """A running `_driver.py`. Jobs run at the same time if they are submitted before waiting."""

    def __init__(self, where: Environment):
        self.environment = where
        self._folder = tempfile.TemporaryDirectory(prefix=f"sglang-ic-{where.name}-")
        self._log = Path(self._folder.name) / "log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [where.python, HERE / "_driver.py", *where.plugins],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=where.variables(),
                text=True,
                start_new_session=True,  # a group of its own, to end it with its jobs
            )
        self._ids = itertools.count()
        self._jobs: dict[int, Future] = {}
        self._reader = threading.Thread(target=self._read_answers, daemon=True)
        self._reader.start()
        atexit.register(self.close)

    def submit(self, call: str, **kwargs: Any) -> "Job":
        """Start `module:function` with JSON-ready arguments in a process of its own.

        Raises:
            EngineError: the driver has ended, for example because a plugin refused its SGLang.
        """
        number = next(self._ids)
        out = Path(self._folder.name) / f"{number}.pt"
        self._jobs[number] = done = Future()
        request = {"id": number, "call": call, "kwargs": kwargs, "out": str(out)}
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
        except BrokenPipeError as error:
            raise EngineError(self._epitaph()) from error
        return Job(call, out, done, self._log)

    def run(self, call: str, **kwargs: Any) -> Any:
        return self.submit(call, **kwargs).result()

    def close(self) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._folder.cleanup()

    def _read_answers(self) -> None:
        for line in self._process.stdout:
            answer = json.loads(line)
            self._jobs.pop(answer["id"]).set_result(answer["status"])
        for job in self._jobs.values():
            job.set_exception(EngineError(self._epitaph()))

    def _epitaph(self) -> str:
        return f"the {self.environment.name} driver ended: {_tail(self._log)}"


@dataclass(frozen=True)
class Job:
    call: str
    out: Path
    done: Future  # of the exit status
    log: Path

    def result(self) -> Any:
        """What the job's function returned; it can be asked for once.

        Raises:
            EngineError: the function raised, or its process died.
        """
        status = self.done.result(timeout=TIMEOUT_SEC)
        error = Path(f"{self.out}.error")
        if error.exists():
            raise EngineError(f"{self.call} failed\n{error.read_text()}")
        if status:
            raise EngineError(f"{self.call} ended with status {status}: {_tail(self.log)}")
        result = torch.load(self.out, weights_only=False)
        self.out.unlink()
        return result


def _tail(log: Path, num_chars: int = 3000) -> str:
    return log.read_text(errors="replace")[-num_chars:]
