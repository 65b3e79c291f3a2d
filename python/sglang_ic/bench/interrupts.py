"""What ends the client from outside: a Ctrl-C, a SIGTERM, a terminal that is gone.

Servers live in sessions of their own, so nothing but the client ends them: whatever kills it
outright would leave them running, with all the memory of an accelerator. So each of the signals
stops it in order, and a closed terminal or pipe (a Ctrl-C ends `| tee` too) takes no more text.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any, TextIO

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Make each of the signals a KeyboardInterrupt; what was ignored before (nohup) stays so."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    taken = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in taken:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore the signals for a moment, where one would leave a process or half a report."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class LastingStream:
    """A stream whose other end may go away: what nobody reads any more is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
