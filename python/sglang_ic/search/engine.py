"""The objective that asks SGLang: an engine of our own, whose scheduler runs the passes."""

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sglang_ic.evaluate.in_process import InProcess
from sglang_ic.evaluate.overlap import overlap_matrix, sampled_positions
from sglang_ic.evaluate.wire import EngineError

# Selections are compared in this many sequences, at this many rows of each.
WATCHED_SEQUENCES = 4
WATCHED_ROWS = 64


class EngineObjective:
    """`objective.Objective` on a running engine.

    Attributes:
        kept_layers: layers that passes can begin with, from kept states; empty: all run whole.
        kept_bytes: what those states take at most, on each rank.
        host_bytes: the part of it for which the device has no room.
        seconds: time spent in passes.
        advance: told of the layer-token-forwards of every pass; may be replaced.
    """

    def __init__(
        self,
        engine: InProcess,
        sequences: Sequence[Sequence[int]],
        wanted_layers: Sequence[int],
        cache_bytes: int | None = None,
        default_host_bytes: int = 0,
    ) -> None:
        """Hand the sequences to the scheduler, which sets itself up.

        Args:
            sequences: token ids.
            wanted_layers: layers that patterns will differ in; empty runs every pass whole.
            cache_bytes: for kept states, on each rank; None: what the device has room for, and
                `default_host_bytes` of host memory.

        Raises:
            EngineError: the engine cannot do this; the message says why.
        """
        self.weights = [len(ids) - 1 for ids in sequences]
        self.layer_token_forwards = 0
        self.seconds = 0.0
        self._engine = engine
        self.advance: Callable[[int], None] = lambda layer_tokens: None
        self._folder = tempfile.TemporaryDirectory(prefix="sglang-ic-search-")
        self._answer = Path(self._folder.name) / "answer"
        data = Path(self._folder.name) / "sequences.npz"
        np.savez(data, *(np.asarray(ids, dtype=np.int32) for ids in sequences))
        found = self._ask(
            "index_cache_search_begin",
            data=str(data),
            wanted=json.dumps(sorted(wanted_layers)),
            limit_bytes=cache_bytes,
            host_bytes=default_host_bytes,
        )
        self.kept_layers = tuple(found["layers"])
        self.kept_bytes, self.host_bytes = found["bytes"], found["host_bytes"]

    def losses(self, pattern: str, sequences: Sequence[int]) -> list[float]:
        return [self.loss(pattern, sequence)[0] for sequence in sequences]

    def loss(self, pattern: str, sequence: int, whole: bool = False) -> tuple[float, int]:
        """Sum of one sequence's losses, nats, and the layer-token-forwards that it took.

        Args:
            whole: run all layers, and leave the kept states alone.
        """
        started = time.perf_counter()
        found = self._ask(
            "index_cache_search_loss", pattern=pattern, sequence=sequence, whole=whole
        )
        self.seconds += time.perf_counter() - started
        self.layer_token_forwards += found["layer_tokens"]
        self.advance(found["layer_tokens"])
        return found["loss"], found["layer_tokens"]

    def rebase(self, pattern: str) -> None:
        self._call("index_cache_search_rebase", pattern=pattern)

    def forget(self) -> None:
        """Drop the kept states, so that the next passes begin at the embedding."""
        self._call("index_cache_search_forget")

    def overlap(self, pattern: str, index_topk: int) -> np.ndarray:
        """[layers, layers] share of tokens that two layers both select under `pattern`."""
        matrices = []
        order = sorted(range(len(self.weights)), key=lambda x: -self.weights[x])
        for sequence in order[:WATCHED_SEQUENCES]:
            rows = sampled_positions(self.weights[sequence] + 1, index_topk, WATCHED_ROWS)
            answer = self._answer.with_suffix(".npy")
            self._call(
                "index_cache_search_selections",
                pattern=pattern,
                sequence=sequence,
                positions=json.dumps(rows),
                answer=str(answer),
            )
            matrices.append(overlap_matrix(np.load(answer)))
        return np.mean(matrices, axis=0)

    def close(self) -> None:
        self._engine.close()
        self._folder.cleanup()

    def _ask(self, method: str, **kwargs: Any) -> dict:
        self._call(method, answer=str(self._answer), **kwargs)
        return json.loads(self._answer.read_text())

    def _call(self, method: str, **kwargs: Any) -> None:
        try:
            self._engine.call(method, **kwargs)
        except EngineError as error:
            if "out of memory" in str(error).lower():
                raise EngineError(
                    f"{str(error).splitlines()[0]} Give a smaller --cache-gib, or end the command "
                    "with -- and a smaller --chunked-prefill-size or --mem-fraction-static"
                ) from error
            raise
