"""A `sglang.Engine` in which patterns are switched without a reload, and probed.

Its processes write to a log file, so that the terminal shows results; a failure names the file.
"""

import atexit
import contextlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sglang_ic.config import BUILD_KEY
from sglang_ic.evaluate.arms import Arm
from sglang_ic.evaluate.children import (
    child_failed,
    failures_raised,
    interrupts_held,
    output_to,
    survive_children,
)
from sglang_ic.evaluate.model_facts import ModelFacts
from sglang_ic.evaluate.overlap import Probed
from sglang_ic.evaluate.scores import TokenScores
from sglang_ic.evaluate.wire import EngineError, request, token_scores
from sglang_ic.server import arguments

# Passes of one request each, whose roles may change from one to the next.
FLAGS: dict[str, str | None] = {
    "--log-level": "error",
    "--skip-tokenizer-init": None,
    "--disable-radix-cache": None,
}
CUDA_FLAGS: dict[str, str | None] = {
    "--disable-decode-cuda-graph": None,
    "--disable-prefill-cuda-graph": None,
}
# The probe reads positions; the fused kernel hands out cache slots.
CUDA_ENVIRONMENT = {"SGLANG_DSA_FUSE_TOPK": "false"}
FUSED_TOPK = 2048  # the only index_topk of upstream's fused top-k kernels


class InProcess:
    """One engine; `score` switches it to the arm's pattern first."""

    def __init__(self, facts: ModelFacts, server_argv: Sequence[str], log: Path) -> None:
        """Load the model; about half a minute for a small one on CPU.

        Raises:
            ValueError: SGLang's arguments do not fit.
            EngineError: the engine did not start.
        """
        argv = arguments.with_defaults(["--model-path", facts.path, *server_argv], FLAGS)
        if arguments.wants_cpu(argv):
            os.environ.setdefault("SGLANG_USE_CPU_ENGINE", "1")
            argv = arguments.with_defaults(argv, arguments.CPU_FLAGS)
        else:
            environment = CUDA_ENVIRONMENT
            if arguments.is_bundled_model(argv):
                environment = {**environment, **arguments.BUNDLED_CUDA_ENVIRONMENT}
            for name, value in environment.items():
                os.environ.setdefault(name, value)
            argv = arguments.with_defaults(argv, CUDA_FLAGS)
            if facts.index_topk != FUSED_TOPK:
                argv = arguments.with_defaults(argv, arguments.BUNDLED_CUDA_FLAGS)
        self.log = log
        self._pattern: str | None = None
        self._switches = facts.own_pattern is None
        with output_to(log):
            import sglang
            from sglang.srt.plugins import load_plugins
            from sglang.srt.server_args import prepare_server_args

            load_plugins()
        server_args = _parsed(prepare_server_args, argv)
        pattern = "full" if self._switches else facts.own_pattern.text
        override = json.loads(
            arguments.override_args(
                pattern, server_args.json_model_override_args, bundled_model=False
            )
        )
        override[BUILD_KEY] = "all" if self._switches else "pattern"
        server_args.json_model_override_args = json.dumps(override)
        server_args.custom_sigquit_handler = child_failed
        with output_to(log), interrupts_held():
            server_args.resolve_once()
            try:
                self._engine = sglang.Engine(server_args=server_args)
            except RuntimeError as error:
                raise EngineError(f"the engine did not start; see {log}") from error
        survive_children(self._engine)

    def score(self, arm: Arm, input_ids: Sequence[int]) -> TokenScores:
        """Teacher-forced scores of one sample under the arm's pattern.

        Raises:
            EngineError: the engine failed.
        """
        self._use(arm.pattern.text)
        with self._failures():
            return token_scores(self._engine.generate(**request(input_ids)), input_ids)

    def score_and_probe(
        self, arm: Arm, input_ids: Sequence[int], positions: Sequence[int]
    ) -> tuple[TokenScores, Probed]:
        """`score`, with a look at the selections of the query rows at `positions`.

        Raises:
            NotProbed: this engine's selections cannot be read.
        """
        self._use(arm.pattern.text)
        with tempfile.TemporaryDirectory(prefix="sglang-ic-probe-") as folder:
            try:
                self.call("start_index_cache_probe", positions=json.dumps(list(positions)))
            except EngineError as error:
                raise NotProbed(str(error)) from error
            scores = self.score(arm, input_ids)
            self.call("stop_index_cache_probe", folder=folder)
            # One file per tensor-parallel rank, each with its own share of the heads.
            ranks = [np.load(path) for path in sorted(Path(folder).glob("rank*.npz"))]
            mass = np.mean([rank["mass"] for rank in ranks], axis=0, dtype=np.float64)
            return scores, Probed(np.asarray(positions), ranks[0]["topk"], mass)

    def check_room(self, num_tokens: int) -> None:
        """Refuse a sample that the KV cache cannot hold: SGLang would let it wait for ever.

        Raises:
            ValueError: `num_tokens`, of the longest sample, is too many.
        """
        told = self._engine.get_server_info()
        room, page = told["max_total_num_tokens"], told["page_size"]
        if num_tokens + page >= room:  # the scheduler's own condition (PrefillAdder)
            raise ValueError(
                f"the longest document has {num_tokens} tokens, the KV cache room for "
                f"{room - page - 1}: use shorter data, or end the command with -- "
                f"--max-total-tokens {num_tokens + 2 * page} (on a GPU: a higher "
                "--mem-fraction-static)"
            )

    def close(self) -> None:
        from multiprocessing import resource_tracker

        with output_to(self.log):
            self._engine.shutdown()
            # It ends every child, Python's tracker of semaphores among them, and would do so again
            # at exit; the tracker that then takes over complains, here into the log.
            atexit.unregister(self._engine.shutdown)
            resource_tracker.ensure_running()

    def _use(self, pattern: str) -> None:
        if self._switches and pattern != self._pattern:
            self.call("set_index_cache_pattern", pattern=pattern)
            self._pattern = pattern

    def call(self, method: str, **kwargs: Any) -> None:
        """Run one of our methods in every scheduler process.

        Raises:
            EngineError: it failed there.
        """
        with self._failures(), failures_raised():
            try:
                self._engine.collective_rpc(method, **kwargs)
            except AssertionError as error:  # what collective_rpc raises for every failure
                raise EngineError(str(error)) from error

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except EngineError:
            raise
        except RuntimeError as error:  # a process of it died
            raise EngineError(f"the engine failed; see {self.log}") from error
        except ValueError as error:  # a request that it refuses
            raise EngineError(str(error)) from error


def _parsed(prepare_server_args: Callable[[list[str]], Any], argv: list[str]) -> Any:
    """SGLang's arguments; its parser ends with hundreds of lines of usage, of which we keep one.

    Raises:
        ValueError: a flag or a value that SGLang does not know.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return prepare_server_args(argv)
    except SystemExit as ended:
        last = (said.getvalue().strip().splitlines() or ["it stopped"])[-1]
        raise ValueError(f"arguments after --: {last.rpartition('error: ')[2]}") from ended


class NotProbed(RuntimeError):
    """Selections cannot be read from this engine; the message says why in one line."""
