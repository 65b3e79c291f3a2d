"""Drive SGLang's ModelRunner in this process, on CPU, without a server or a scheduler.

    runner = make_runner(model_path)              # one per process: SGLang keeps global state
    logits = runner.prefill(ids)                  # [len(ids), vocab] float32
    logits = runner.prefill(ids, prefix_len=300)  # rows 300.. only, computed on top of a prefix
    logits = runner.prefill(ids, chunk_size=128)  # same rows as one chunk, several passes
    logits = runner.decode(token)                 # [1, vocab], continues the prefill before it
    with runner.record_topk() as records: ...     # every layer's selection of every pass

Follows `sglang/benchmark/one_batch.py`. Needs `SGLANG_USE_CPU_ENGINE=1` before SGLang is imported
and, on the unpatched wheel, `test/standins` on the path.
"""

import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

CPU_ARGS = dict(
    device="cpu",
    attention_backend="torch_native",
    dtype="float32",
    max_total_tokens=16384,
    max_running_requests=8,
    disable_cuda_graph=True,
    grammar_backend="none",
    log_level="error",
)


@dataclass
class TopkRecorder:
    """Stands in for SGLang's indexer capturer: Full layers report, Shared layers mirror."""

    passes: list[dict[int, torch.Tensor]] = field(default_factory=list)

    def capture(self, layer_id: int, topk_indices: torch.Tensor) -> None:
        if not self.passes or layer_id in self.passes[-1]:
            self.passes.append({})
        self.passes[-1][layer_id] = topk_indices.clone()

    def on_forward_end(self, *args, **kwargs) -> None:
        return None

    def layer(self, layer_id: int) -> torch.Tensor:
        """[rows of all passes, index_topk] int32 selection of a layer."""
        return torch.cat([one[layer_id] for one in self.passes])


class CpuRunner:
    """A ModelRunner and the batch that it is on. Each `prefill` starts over with an empty cache."""

    def __init__(self, model_runner):
        self.model_runner = model_runner
        self._batch = None

    def prefill(
        self, ids: Sequence[int], prefix_len: int = 0, chunk_size: int | None = None
    ) -> torch.Tensor:
        """Logits of `ids[prefix_len:]`: [len(ids) - prefix_len, vocab] float32.

        The prefix is computed first, in a pass of its own; `chunk_size` splits what follows.
        """
        return self.prefill_batch([ids], [prefix_len], chunk_size)[0]

    def prefill_batch(
        self,
        prompts: Sequence[Sequence[int]],
        prefix_lens: Sequence[int] | None = None,
        chunk_size: int | None = None,
    ) -> list[torch.Tensor]:
        """Logits per request, as `prefill`; the requests share every pass after their prefixes."""
        prefix_lens = list(prefix_lens or [0] * len(prompts))
        self.clear()
        requests = [_make_request(i, ids) for i, ids in enumerate(prompts)]
        for request, prefix_len in zip(requests, prefix_lens, strict=True):
            if prefix_len:
                self._extend([request], [prefix_len])
        rows: list[list[torch.Tensor]] = [[] for _ in prompts]
        done = prefix_lens
        while any(end < len(ids) for end, ids in zip(done, prompts, strict=True)):
            active = [i for i, ids in enumerate(prompts) if done[i] < len(ids)]
            ends = [min(len(prompts[i]), done[i] + (chunk_size or len(prompts[i]))) for i in active]
            logits = self._extend([requests[i] for i in active], ends)
            for i, end, part in zip(active, ends, logits, strict=True):
                rows[i].append(part)
                done[i] = end
        self._batch = self._decode_batch(requests)
        return [torch.cat(parts) for parts in rows]

    def decode(self, tokens: int | Sequence[int]) -> torch.Tensor:
        """Append one token to each request of the last prefill: [num_requests, vocab] float32."""
        tokens = [tokens] if isinstance(tokens, int) else list(tokens)
        batch = self._batch
        if batch is None:
            raise ValueError("decode needs a prefill before it")
        for request, token in zip(batch.reqs, tokens, strict=True):
            request.output_ids.append(token)
        batch.input_ids = torch.tensor(tokens, dtype=torch.int64)
        batch.prepare_for_decode()
        return self._forward(batch)

    @contextmanager
    def record_topk(self) -> Iterator[TopkRecorder]:
        """Record each layer's indices: request-local positions, -1 where unused."""
        from sglang.srt.state_capturer.indexer_topk import set_global_indexer_capturer

        recorder = TopkRecorder()
        set_global_indexer_capturer(recorder)
        try:
            yield recorder
        finally:
            set_global_indexer_capturer(None)

    def clear(self) -> None:
        """Forget every cached token."""
        self.model_runner.req_to_token_pool.clear()
        self.model_runner.token_to_kv_pool_allocator.clear()
        self._batch = None

    def _extend(self, requests, ends: Sequence[int]) -> list[torch.Tensor]:
        for request, end in zip(requests, ends, strict=True):
            request.prefix_len = request.extend_end or 0
            request.extend_end = end
        batch = self._new_batch(requests)
        batch.prepare_for_extend()
        return list(self._forward(batch).split(list(batch.extend_lens)))

    def _decode_batch(self, requests):
        """A batch over all requests, as the scheduler would have merged it from their prefills."""
        from sglang.srt.sampling.sampling_batch_info import SamplingBatchInfo

        batch = self._new_batch(requests)
        batch.seq_lens_cpu = torch.tensor([request.extend_end for request in requests])
        batch.seq_lens = batch.seq_lens_cpu.clone()
        batch.orig_seq_lens = batch.seq_lens_cpu.int()
        batch.req_pool_indices_cpu = torch.tensor([one.kv.req_pool_idx for one in requests])
        batch.req_pool_indices = batch.req_pool_indices_cpu.clone()
        batch.sampling_info = SamplingBatchInfo.from_schedule_batch(
            batch, self.model_runner.model_config.vocab_size
        )
        return batch

    def _new_batch(self, requests):
        from sglang.benchmark.one_batch import TreeCacheNamespace
        from sglang.srt.managers.schedule_batch import ScheduleBatch
        from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

        runner = self.model_runner
        return ScheduleBatch.init_new(
            reqs=list(requests),
            req_to_token_pool=runner.req_to_token_pool,
            token_to_kv_pool_allocator=runner.token_to_kv_pool_allocator,
            tree_cache=TreeCacheNamespace(
                page_size=runner.page_size,
                device=runner.device,
                token_to_kv_pool_allocator=runner.token_to_kv_pool_allocator,
            ),
            model_config=runner.model_config,
            enable_overlap=False,
            spec_algorithm=SpeculativeAlgorithm.NONE,
        )

    @torch.no_grad()
    def _forward(self, batch) -> torch.Tensor:
        """One forward pass; logits of all of its rows, [rows, vocab] float32."""
        from sglang.srt.model_executor.forward_batch_info import CaptureHiddenMode, ForwardBatch

        pending = getattr(batch, "prefill_input_ids_cpu", None)
        if batch.input_ids is None and pending is not None:
            batch.input_ids, batch.prefill_input_ids_cpu = pending, None
        forward_batch = ForwardBatch.init_new(
            batch, self.model_runner, return_hidden_states_before_norm=False
        )
        # The engine only keeps the logits it samples from; take them all from the hidden states.
        forward_batch.capture_hidden_mode = CaptureHiddenMode.FULL
        output = self.model_runner.forward(forward_batch).logits_output
        model = self.model_runner.model
        logits = torch.nn.functional.linear(
            output.hidden_states.float(), model.lm_head.weight.float()
        )
        return logits[:, : self.model_runner.model_config.vocab_size]


def _make_request(rid: int, ids: Sequence[int]):
    from sglang.srt.managers.schedule_batch import Req
    from sglang.srt.sampling.sampling_params import SamplingParams

    request = Req(
        rid=str(rid),
        origin_input_text="",
        origin_input_ids=array("q", ids),
        sampling_params=SamplingParams(temperature=0, max_new_tokens=1 << 20),
    )
    request.full_untruncated_fill_ids = request.origin_input_ids
    request.logprob_start_len = -1
    return request


def make_runner(model_path: str | os.PathLike, **server_args) -> CpuRunner:
    """Load a model into this process. `server_args` are SGLang's, over `CPU_ARGS`."""
    if os.environ.get("SGLANG_USE_CPU_ENGINE") != "1":
        raise ValueError("set SGLANG_USE_CPU_ENGINE=1 before SGLang is imported")
    from sglang_ic.cpu.plugin import register

    register()
    from sglang.benchmark import one_batch
    from sglang.srt.runtime_context import SpawnRanks, publish, spawn_world_rank
    from sglang.srt.server_args import PortArgs, ServerArgs

    args = ServerArgs(**{**CPU_ARGS, "model_path": str(model_path), **server_args})
    args.resolve_once()
    world_rank = spawn_world_rank(args, tp_rank=0, pp_rank=0)
    publish(args, role="scheduler", ranks=SpawnRanks(world_rank=world_rank, gpu_id=0))
    one_batch._init_process_global_configs()
    bench, _ = one_batch.load_model(args, PortArgs.init_new(args), gpu_id=0, tp_rank=0)
    return CpuRunner(bench.torch_runner)
