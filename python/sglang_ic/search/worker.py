"""The scheduler's methods that a search calls (`Engine.collective_rpc`); a server offers none.

Every rank runs them in step, so tensor parallelism is SGLang's own business. Answers go through a
file that rank 0 writes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sglang_ic.pattern import LayerPattern
from sglang_ic.search.passes import LayerPasses
from sglang_ic.search.states import Layout, StateStore
from sglang_ic.server.observe import roles_of

ATTRIBUTE = "index_cache_search"  # of the scheduler, once a search is set up
# Of the accelerator's free memory, what kept states may take; passes need the rest.
DEVICE_SHARE = 0.6


class Worker:
    """One rank's part in a search."""

    def __init__(
        self,
        runner: Any,
        sequences: list[list[int]],
        wanted: list[int],
        limit_bytes: int | None,
        host_bytes: int,
    ) -> None:
        """Set up on one rank.

        Args:
            sequences: token ids.
            wanted: layers that passes may begin with; none: no states are kept.
            limit_bytes: for kept states, on this rank; None: what the device has room for, and
                `host_bytes`.
            host_bytes: of host memory that they may take then.
        """
        longest = max(map(len, sequences))
        page = runner.page_size
        if longest + page > runner.max_total_num_tokens:
            raise ValueError(
                f"the longest sequence has {longest} tokens, the KV cache room for "
                f"{runner.max_total_num_tokens - page}: use shorter data, or end the command with "
                f"-- --max-total-tokens {longest + 2 * page} (on a GPU: a higher "
                "--mem-fraction-static)"
            )
        limit = runner.server_args.chunked_prefill_size or -1
        chunk = longest if limit < 0 else max(page, limit // page * page)
        self.passes = LayerPasses(runner, chunk)
        self.sequences = sequences
        hidden = runner.model_config.hidden_size * runner.dtype.itemsize
        index_topk = runner.model_config.hf_config.index_topk
        self.device_bytes = 0
        if wanted and runner.device != "cpu":
            # Let the largest pass take what it needs first.
            longest_one = max(sequences, key=len)
            self.passes.run(longest_one, roles_of(runner).pattern)
            self.device_bytes = int(DEVICE_SHARE * torch.cuda.mem_get_info()[0])
        if limit_bytes is None:
            limit_bytes = self.device_bytes + host_bytes
        self.layout = Layout.plan(
            2 * hidden + 4 * index_topk, sum(map(len, sequences)), wanted, limit_bytes
        )
        self.states = StateStore(self.layout.layers, len(sequences), self.device_bytes)

    def loss(self, pattern: LayerPattern, sequence: int, whole: bool = False) -> tuple[float, int]:
        """Sum of losses of one sequence, nats, and the layer-token-forwards that it took.

        Args:
            whole: run all layers, and leave the kept states alone.
        """
        ids = self.sequences[sequence]
        if whole:
            return self.passes.run(ids, pattern).nll, pattern.num_layers * len(ids)
        start, entries = self.states.resume(sequence, pattern.text)
        keep = self.states.make_room(sequence, pattern.text)
        outcome = self.passes.run(ids, pattern, start, entries, keep, self.states.place)
        self.states.record(sequence, pattern.text, outcome.entries)
        return outcome.nll, (pattern.num_layers - start) * len(ids)


def index_cache_search_begin(
    scheduler: Any,
    data: str,
    wanted: str,
    limit_bytes: int | None,
    host_bytes: int,
    answer: str,
) -> None:
    """Scheduler method: set a search up.

    Args:
        data: an npz file with one array of token ids per sequence, in order.
        wanted: JSON list of layers that passes may begin with.
        limit_bytes, host_bytes: see `Worker`.
        answer: file for `{"layers": [...], "bytes": n, "host_bytes": m}`: what can be kept, and
            how much of it the device has no room for.
    Raises:
        ValueError: this engine cannot run single passes by hand, or has too little room.
    """
    runner = scheduler.tp_worker.model_runner
    if (reason := refusal(runner)) is not None:
        raise ValueError(reason)
    if not scheduler.is_fully_idle() or not scheduler.flush_cache():
        raise ValueError("requests are running; wait for them before starting a search")
    with np.load(data) as arrays:
        sequences = [arrays[name].tolist() for name in arrays.files]
    setattr(scheduler, ATTRIBUTE, None)  # what an earlier one keeps would be in the way
    worker = Worker(runner, sequences, json.loads(wanted), limit_bytes, host_bytes)
    setattr(scheduler, ATTRIBUTE, worker)
    layout = worker.layout
    num_bytes = layout.bytes_per_token * len(layout.layers) * sum(map(len, sequences))
    on_host = max(0, num_bytes - worker.device_bytes)
    _answer(answer, {"layers": list(layout.layers), "bytes": num_bytes, "host_bytes": on_host})


def index_cache_search_loss(
    scheduler: Any, pattern: str, sequence: int, whole: bool, answer: str
) -> None:
    """Scheduler method: `{"loss": nats, "layer_tokens": n}` of one sequence into `answer`."""
    worker = getattr(scheduler, ATTRIBUTE)
    loss, layer_tokens = worker.loss(LayerPattern(pattern), sequence, whole)
    _answer(answer, {"loss": loss, "layer_tokens": layer_tokens})


def index_cache_search_rebase(scheduler: Any, pattern: str) -> None:
    """Scheduler method: the patterns to come are variations of this one."""
    getattr(scheduler, ATTRIBUTE).states.rebase(pattern)


def index_cache_search_forget(scheduler: Any) -> None:
    """Scheduler method: drop the kept states."""
    getattr(scheduler, ATTRIBUTE).states.forget()


def index_cache_search_selections(
    scheduler: Any, pattern: str, sequence: int, positions: str, answer: str
) -> None:
    """Scheduler method: what each layer uses at some positions, [layers, R, K] int32, as npy.

    Args:
        positions: JSON list, ascending.
    """
    worker = getattr(scheduler, ATTRIBUTE)
    ids = worker.sequences[sequence]
    outcome = worker.passes.run(ids, LayerPattern(pattern), watch=json.loads(positions))
    if _is_first_rank():
        np.save(answer, outcome.topk.numpy())


def refusal(runner: Any) -> str | None:
    """Why this engine cannot run single passes by hand, in one line; None when it can."""
    from sglang.srt.runtime_context import get_parallel

    if roles_of(runner) is None:
        return "this model has no DSA indexer that sglang_ic looks after"
    parallel = get_parallel()
    if parallel.pp_size > 1 or parallel.dp_size > 1 or parallel.attn_cp_size > 1:
        return (
            "a search runs with tensor parallelism only: pipeline, data and context parallelism "
            "spread a sequence's layers or rows over processes; leave --pp-size, --dp-size and "
            "--attn-cp-size out (--pipeline-blocks is about the pattern and stays)"
        )
    return None


def _is_first_rank() -> bool:
    from sglang.srt.runtime_context import get_parallel

    return get_parallel().tp_rank == 0


def _answer(path: str, content: dict) -> None:
    if _is_first_rank():
        scratch = Path(f"{path}.part")
        scratch.write_text(json.dumps(content))
        os.replace(scratch, path)


def install(scheduler_class: type) -> None:
    """Give the scheduler the methods, so that `collective_rpc` finds them by name."""
    for method in (
        index_cache_search_begin,
        index_cache_search_loss,
        index_cache_search_rebase,
        index_cache_search_forget,
        index_cache_search_selections,
    ):
        setattr(scheduler_class, method.__name__, method)
