"""What was measured, a line of JSON each, on disk at once: a run that is killed loses nothing.

Kinds of lines (`event`): `run` (one command on one machine), `server` (one that was started),
`value` (one number of one arm, row and round), `profile` (kernel times of one arm and row),
`skipped` (a row that an arm cannot fill, and why).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class JournalError(ValueError):
    """A journal that cannot be used; the message is one line for the user."""


class Journal:
    """Lines of a file that only grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = read(path) if path.exists() else []

    def add(self, event: str, **values: Any) -> None:
        text = json.dumps({"event": event, **values})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        # As it will be read again: a tuple is a list then, and the two are not equal.
        self.lines.append(json.loads(text))

    def done(self, part: str) -> set[tuple[str, str, int]]:
        """(row, arm, round) of everything measured, or known to be impossible, in a part."""
        return {
            (line["row"], line["arm"], line["round"])
            for line in self.lines
            if line["event"] in ("value", "profile", "skipped") and line["part"] == part
        }


def read(path: Path) -> list[dict[str, Any]]:
    """All lines.

    Raises:
        JournalError: a line is not JSON. A last line without its end, as a killed run may leave
            it, is cut off.
    """
    lines = []
    raw = path.read_bytes().splitlines(keepends=True)
    size = 0
    for number, text in enumerate(raw, 1):
        if not text.endswith(b"\n"):
            os.truncate(path, size)
            break
        try:
            lines.append(json.loads(text))
        except ValueError as error:
            raise JournalError(f"{path} line {number} is not JSON: mend or move it") from error
        size += len(text)
    return lines
