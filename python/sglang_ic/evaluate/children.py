"""An engine's processes as children of this one: their output, their failures, and Ctrl-C."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class ChildFailed(RuntimeError):
    """A process of the engine died."""


def child_failed(_signal: int, _frame: Any) -> None:
    """SIGQUIT handler: how SGLang's processes tell that they failed."""
    raise ChildFailed("a process of the engine failed")


@contextlib.contextmanager
def failures_raised() -> Iterator[None]:
    """Raise ChildFailed out of calls inside that wait for a process, if one dies meanwhile."""
    before = signal.signal(signal.SIGQUIT, child_failed)
    try:
        yield
    finally:
        signal.signal(signal.SIGQUIT, before)


def survive_children(engine: Any) -> None:
    """Let a request of `engine` raise RuntimeError when a process of it dies.

    From the first request on SGLang would end this process, and its results with it.
    """
    from sglang.srt.managers.tokenizer_manager import SignalHandler

    class StopRequest(SignalHandler):
        def running_phase_sigquit_handler(self, signum=None, frame=None):
            self.tokenizer_manager.event_loop.stop()

    engine.tokenizer_manager.signal_handler_class = StopRequest


@contextlib.contextmanager
def output_to(log: Path) -> Iterator[None]:
    """Send this process's output, and for good that of children started inside, to `log`."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    try:
        with log.open("a") as sink:
            os.dup2(sink.fileno(), 1)
            os.dup2(sink.fileno(), 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for target, source in enumerate(saved, start=1):
            os.dup2(source, target)
            os.close(source)


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back, so that processes started inside never get it and results can be kept."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
