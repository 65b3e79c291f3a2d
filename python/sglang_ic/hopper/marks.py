"""A mark on whatever runs meanwhile, for hooks that are called from more than one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


@contextmanager
def marked(mark: ContextVar[bool], value: bool = True) -> Iterator[None]:
    """Set `mark` for the block, and what it was after it, also when the block fails."""
    before = mark.set(value)
    try:
        yield
    finally:
        mark.reset(before)
