"""What layers start from, kept between passes, so that a pass can begin above the embedding.

The store holds, for each sequence, what a run of layers was handed in one pass, and the roles of
the layers below (its *trace*). What a layer is handed depends on these roles alone, so an entry
serves every pattern that agrees with the trace below it; nothing has to be thrown away in time, and
nothing stale can be used.

Kept entries follow the *base*, the pattern that the next ones are variations of: a pass under
another pattern records up to the first layer where the two differ.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os.path import commonprefix

import torch

from sglang_ic.search.stack import Entry


@dataclass(frozen=True)
class Layout:
    """How large entries are, and which layers' entries fit."""

    bytes_per_token: int  # of one layer's entry
    layers: tuple[int, ...]  # ascending

    @classmethod
    def plan(
        cls, bytes_per_token: int, num_tokens: int, wanted: Sequence[int], limit_bytes: int
    ) -> "Layout":
        """As many of the `wanted` layers as fit for all `num_tokens`, evenly spread.

        The lowest of each group is kept, from which the passes of the others can begin.
        """
        fit = min(len(wanted), limit_bytes // max(1, bytes_per_token * num_tokens))
        return cls(bytes_per_token, tuple(wanted[i * len(wanted) // fit] for i in range(fit)))


class StateStore:
    """Entries of all sequences."""

    def __init__(self, layers: Iterable[int], num_sequences: int, device_bytes: int = 0) -> None:
        """Start with no entry.

        Args:
            layers: those whose entries are kept.
            device_bytes: what may stay on the accelerator; the rest is copied to host memory.
        """
        self.layers = tuple(sorted(layers))
        self.base = ""
        self.device_bytes_left = device_bytes
        # Neighbours between two Full layers carry the same indices: one host copy is enough.
        self._copied: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None)
        self._trace = [""] * num_sequences
        self._entries: list[dict[int, list[Entry]]] = [{} for _ in range(num_sequences)]

    def resume(self, sequence: int, pattern: str) -> tuple[int, list[Entry] | None]:
        """The highest layer that a pass under `pattern` can begin with, and what it starts from.

        Returns:
            (0, None) if it has to begin at the embedding.
        """
        agree = len(commonprefix([pattern, self._trace[sequence]]))
        usable = [layer for layer in self._entries[sequence] if layer <= agree]
        if not usable:
            return 0, None
        return max(usable), self._entries[sequence][max(usable)]

    def make_room(self, sequence: int, pattern: str) -> tuple[int, ...]:
        """Layers whose entries a pass under `pattern` should bring to `record`.

        What these entries replace is let go of at once, so that they find its place empty.
        """
        agree = len(commonprefix([pattern, self._trace[sequence]]))
        upto = len(commonprefix([pattern, self.base]))
        wanted = tuple(layer for layer in self.layers if agree < layer <= upto)
        if wanted:
            self._drop(sequence, agree)
        return wanted

    def place(self, entry: Entry) -> Entry:
        """The entry where it can stay until it is dropped: on the device, or on the host."""
        if entry.hidden.device.type == "cpu":
            return entry
        if _nbytes(entry) <= self.device_bytes_left:
            self.device_bytes_left -= _nbytes(entry)
            return entry
        if entry.topk is not None and self._copied[0] is not entry.topk:
            self._copied = (entry.topk, entry.topk.cpu())
        topk = None if entry.topk is None else self._copied[1]
        return Entry(entry.hidden.cpu(), entry.residual.cpu(), topk)

    def record(self, sequence: int, pattern: str, entries: dict[int, list[Entry]]) -> None:
        """Keep what a pass under `pattern` handed to the layers of `make_room`."""
        if entries:
            self._trace[sequence] = pattern[: max(entries)]
            self._entries[sequence].update(entries)

    def rebase(self, pattern: str) -> None:
        """Record for variations of `pattern` from now on; older entries stay until replaced."""
        self.base = pattern

    def forget(self) -> None:
        """Drop every entry."""
        for sequence in range(len(self._entries)):
            self._drop(sequence, 0)

    def _drop(self, sequence: int, agree: int) -> None:
        """Forget what depends on more than the lowest `agree` layers."""
        self._trace[sequence] = self._trace[sequence][:agree]
        for layer in [x for x in self._entries[sequence] if x > agree]:
            for entry in self._entries[sequence].pop(layer):
                if entry.hidden.device.type != "cpu":
                    self.device_bytes_left += _nbytes(entry)


def _nbytes(entry: Entry) -> int:
    # Shared indices are counted with every entry: too much, never too little.
    topk = 0 if entry.topk is None else entry.topk.nbytes
    return entry.hidden.nbytes + entry.residual.nbytes + topk
