"""Forward passes by hand on a scheduler's own model runner: from any layer, under any pattern.

A layer that turns Shared changes nothing below it, so a pass may begin there with what a pass under
another pattern handed to that layer. Everything around the layers stays SGLang's: the batch, the
pools, the attention backend's plan, the model's contexts, the language-model head. Only the loop
over the layers is ours (stack.py).

One sequence at a time, and the pools are emptied before each: a token then has the same cache slot
in every pass, which keeps carried indices valid in all domains that SGLang's kernels use (see
runtime/state.py). A sequence longer than a chunk runs as several passes, each after the one before.

# T = tokens of a chunk, D = hidden size, K = index_topk
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sglang_ic.pattern import LayerPattern
from sglang_ic.search.stack import Entry, Stack


@dataclass(frozen=True)
class Outcome:
    """What one sequence gave."""

    nll: float  # sum over its predictions, nats
    entries: dict[int, list[Entry]]  # by layer, one per chunk: what that layer started from
    topk: torch.Tensor | None  # [layers, R, K] int32 of the watched rows; None if none were


class LayerPasses:
    """The passes of one model runner; no request may run at the same time."""

    def __init__(self, runner: Any, chunk_tokens: int) -> None:
        """Take over a model runner.

        Args:
            runner: a ModelRunner.
            chunk_tokens: longest pass; a multiple of the page size.
        """
        self.runner = runner
        self.inner = runner.model.model  # DeepseekV2Model
        self.num_layers = runner.model_config.num_hidden_layers
        self.chunk_tokens = chunk_tokens
        assert (self.inner.start_layer, self.inner.end_layer) == (0, self.num_layers)

    @torch.no_grad()
    def run(
        self,
        input_ids: Sequence[int],
        pattern: LayerPattern,
        start: int = 0,
        entries: Sequence[Entry] | None = None,
        keep: Collection[int] = (),
        place: Callable[[Entry], Entry] = lambda entry: entry,
        watch: Sequence[int] = (),
    ) -> Outcome:
        """Run layers `start` and above on one sequence.

        Args:
            input_ids: token ids; every one but the first is predicted.
            start, entries: the first layer to run and what it starts from, one entry per chunk;
                0 and None begin at the embedding.
            keep: layers above `start` whose entries are wanted.
            place: takes each of them as soon as it is there, and says what to keep of it.
            watch: positions whose selections are wanted, ascending.
        """
        self.clear()
        request = _request(input_ids)
        chunks = self.chunks(len(input_ids))
        assert entries is None or len(entries) == len(chunks)
        nll, kept, seen = 0.0, {layer: [] for layer in keep}, []
        for number, (begin, end) in enumerate(chunks):
            forward_batch = self._extend(request, begin, end)
            rows = [at - begin for at in watch if begin <= at < end]
            stack = Stack(self, pattern, start, entries and entries[number], kept, place, rows)
            stack.targets = torch.tensor(input_ids[begin + 1 : end + 1], dtype=torch.int64)
            with stack.in_place():
                self.runner.forward(forward_batch)
            nll += stack.nll
            if rows:
                seen.append(torch.stack(stack.selected))
        self.clear()
        return Outcome(nll, kept, torch.cat(seen, dim=1) if seen else None)

    def chunks(self, num_tokens: int) -> list[tuple[int, int]]:
        """[begin, end) of each pass."""
        step = self.chunk_tokens
        return [(begin, min(begin + step, num_tokens)) for begin in range(0, num_tokens, step)]

    def clear(self) -> None:
        """Forget every token in the pools, so that the next one gets the first slot."""
        self.runner.req_to_token_pool.clear()
        self.runner.token_to_kv_pool_allocator.clear()

    def _extend(self, request: Any, begin: int, end: int) -> Any:
        """The prepared ForwardBatch of tokens [begin, end)."""
        from sglang.benchmark.one_batch import TreeCacheNamespace
        from sglang.srt.managers.schedule_batch import ScheduleBatch
        from sglang.srt.model_executor.forward_batch_info import CaptureHiddenMode, ForwardBatch
        from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

        runner = self.runner
        request.prefix_len, request.extend_end = begin, end
        allocator = runner.token_to_kv_pool_allocator
        batch = ScheduleBatch.init_new(
            reqs=[request],
            req_to_token_pool=runner.req_to_token_pool,
            token_to_kv_pool_allocator=allocator,
            tree_cache=TreeCacheNamespace(
                page_size=runner.page_size,
                device=runner.device,
                token_to_kv_pool_allocator=allocator,
            ),
            model_config=runner.model_config,
            enable_overlap=False,
            spec_algorithm=SpeculativeAlgorithm.NONE,
        )
        batch.prepare_for_extend()
        if batch.input_ids is None:
            batch.input_ids = batch.prefill_input_ids_cpu.to(runner.device)
            batch.prefill_input_ids_cpu = None
        return ForwardBatch.init_new(
            batch,
            runner,
            capture_hidden_mode=CaptureHiddenMode.NULL,
            return_hidden_states_before_norm=False,
        )


def _request(input_ids: Sequence[int]) -> Any:
    from sglang.srt.managers.schedule_batch import Req
    from sglang.srt.sampling.sampling_params import SamplingParams

    request = Req(
        rid="index-cache-search",
        origin_input_text="",
        origin_input_ids=array("q", input_ids),
        sampling_params=SamplingParams(temperature=0, max_new_tokens=1),
    )
    request.full_untruncated_fill_ids = request.origin_input_ids
    request.logprob_start_len = -1
    return request
