"""Servers side by side: a start is a minute of compiling and loading, most of it on one core."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

SERVERS_AT_ONCE = 4


class AtOnce:
    """Results of functions that run a few at a time, by name; a failure is that of its asker alone.

    As a context manager: whatever is asked for, all have ended when it is left.
    """

    def __init__(self, functions: dict[str, Callable[[], Any]]) -> None:
        self._pool = ThreadPoolExecutor(SERVERS_AT_ONCE)
        self._futures = {name: self._pool.submit(run) for name, run in functions.items()}

    def __getitem__(self, name: str) -> Any:
        return self._futures[name].result()

    def __enter__(self) -> "AtOnce":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
