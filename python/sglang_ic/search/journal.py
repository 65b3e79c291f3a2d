"""Every loss that was ever measured, on disk at once: what survives a kill.

A search is a pure function of its losses, so nothing else has to be saved: a search that is resumed
runs again from its beginning, finds what it asks for in the journal until it gets to where it was
killed, and goes on. One JSON object a line; the first describes the search:

    {"schema_version": 1, "model": "...", "data": "...", "method": "fast", ...}
    {"pattern": "FFSF", "sequence": 3, "loss": 8041.25, "layer_tokens": 16384}
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1


class JournalError(ValueError):
    """A journal that does not belong to this search, or is none; the message is one line."""


class Journal:
    """Appends to a file, and remembers what was in it."""

    def __init__(self, path: Path, header: Mapping[str, Any], resume: bool) -> None:
        """Start a journal, or go on with one.

        Args:
            header: JSON-ready facts on which the losses depend.
        Raises:
            JournalError: there is one and `resume` was not asked for, it is of another search, or
                it is damaged elsewhere than in its last line, which a kill may have cut.
        """
        self.path = path
        self.losses: dict[tuple[str, int], tuple[float, int]] = {}
        header = {"schema_version": SCHEMA_VERSION, **header}
        lines = self._read(header, resume)
        scratch = path.with_name(f".{path.name}")
        scratch.write_text("".join(f"{line}\n" for line in (json.dumps(header), *lines)))
        os.replace(scratch, path)  # without the cut line
        self._file = path.open("a")

    def add(self, pattern: str, sequence: int, loss: float, layer_tokens: int) -> None:
        self.losses[pattern, sequence] = (loss, layer_tokens)
        record = {"pattern": pattern, "sequence": sequence, "loss": loss}
        self._file.write(json.dumps({**record, "layer_tokens": layer_tokens}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _read(self, header: dict, resume: bool) -> list[str]:
        """The lines after the header that are whole; fills `losses`."""
        if not self.path.exists():
            return []
        # A line counts once its end is there.
        whole = self.path.read_text().split("\n")[:-1]
        if not resume and len(whole) > 1:
            raise JournalError(
                f"{self.path.parent}/ holds a search already: add --resume to go on with it, or "
                "name another --output"
            )
        if not resume or not whole:
            return []  # one that never measured anything is no search
        found = self._decode(whole[0], 1)
        for key in (*header, *found):
            # As JSON has them: tuples are lists there.
            if found.get(key) != json.loads(json.dumps(header.get(key))):
                raise JournalError(
                    f"{self.path} is of a search with {key} {found.get(key)!r}, this one has "
                    f"{header.get(key)!r}: give the same arguments and data, or another --output"
                )
        for number, line in enumerate(whole[1:], start=2):
            record = self._decode(line, number)
            try:
                key = (record["pattern"], record["sequence"])
                self.losses[key] = (record["loss"], record["layer_tokens"])
            except KeyError as error:
                raise self._damaged(number) from error
        return whole[1:]

    def _decode(self, line: str, number: int) -> dict:
        try:
            record = json.loads(line)
        except ValueError as error:
            raise self._damaged(number) from error
        if not isinstance(record, dict):
            raise self._damaged(number)
        return record

    def _damaged(self, number: int) -> JournalError:
        return JournalError(
            f"{self.path} is damaged in line {number}: cut the file before that line and --resume, "
            "or name another --output"
        )


class Journaled:
    """`objective.Objective` that asks another one only for what the journal does not hold."""

    def __init__(
        self,
        measure: Callable[[str, int], tuple[float, int]],
        rebase: Callable[[str], None],
        weights: Sequence[int],
        journal: Journal,
        recalled: Callable[[int], None] = lambda layer_tokens: None,
    ) -> None:
        """Ask `measure` for what the journal lacks.

        Args:
            measure: (pattern, sequence) -> sum of losses, nats, and layer-token-forwards.
            recalled: told of the layer-token-forwards of losses that the journal held.
        """
        self.weights = weights
        # Work of an earlier run counts when its result is used, so a resumed search counts all.
        self.layer_token_forwards = 0
        self._measure, self._rebase = measure, rebase
        self._journal, self._recalled = journal, recalled

    def losses(self, pattern: str, sequences: Sequence[int]) -> list[float]:
        return [self._loss(pattern, sequence) for sequence in sequences]

    def _loss(self, pattern: str, sequence: int) -> float:
        known = self._journal.losses.get((pattern, sequence))
        if known is None:
            known = self._measure(pattern, sequence)
            self._journal.add(pattern, sequence, *known)
        else:
            self._recalled(known[1])
        self.layer_token_forwards += known[1]
        return known[0]

    def rebase(self, pattern: str) -> None:
        self._rebase(pattern)
