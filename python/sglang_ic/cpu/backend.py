"""Attention backend for DSA on CPU: sparse absorbed-MLA over the paged latent pool.

The batch is looked at once per forward pass: `init_forward_metadata` turns it into a `RowPlan`,
and the indexer and every layer's attention then walk the same requests.
"""

from dataclasses import dataclass

import torch
from sglang.srt.layers.attention.base_attn_backend import AttentionBackend
from sglang.srt.mem_cache.memory_pool import KVWriteLoc

from sglang_ic.cpu.kernels import sparse_mla


@dataclass(frozen=True)
class Segment:
    """The query rows of one request in the batch."""

    first_row: int
    num_rows: int
    first_position: int  # of the first row, in the request
    slots: torch.Tensor  # [first_position + num_rows] int64, cache slot of each position


@dataclass(frozen=True)
class RowPlan:
    """Which rows of the batch belong to which request. Rows past the last segment are padding."""

    segments: tuple[Segment, ...]

    @property
    def num_rows(self) -> int:
        """Rows that belong to a request."""
        return sum(segment.num_rows for segment in self.segments)


def plan_rows(forward_batch, req_to_token: torch.Tensor) -> RowPlan:
    """The row plan of a batch: extend, mixed, decode or idle.

    Raises:
        NotImplementedError: for speculative modes, which have no CPU path.
    """
    mode = forward_batch.forward_mode
    if mode.is_idle() or forward_batch.batch_size == 0:
        return RowPlan(())
    seq_lens = forward_batch.seq_lens.tolist()
    if mode.is_decode():
        num_rows = [1] * len(seq_lens)
    elif mode.is_extend_without_speculative():
        num_rows = forward_batch.extend_seq_lens.tolist()
    else:
        raise NotImplementedError(f"DSA on CPU has no path for forward mode {mode.name}")
    segments, row = [], 0
    for request, length, rows in zip(
        forward_batch.req_pool_indices.tolist(), seq_lens, num_rows, strict=True
    ):
        slots = req_to_token[request, :length].long()
        segments.append(Segment(row, rows, length - rows, slots))
        row += rows
    return RowPlan(tuple(segments))


class CpuDsaBackend(AttentionBackend):
    """Attends to `topk_indices` only; refuses layers that come without."""

    def __init__(self, model_runner):
        super().__init__()
        self.req_to_token_pool = model_runner.req_to_token_pool
        self.token_to_kv_pool = model_runner.token_to_kv_pool
        self.plan = RowPlan(())

    def init_forward_metadata(self, forward_batch) -> None:
        self.plan = plan_rows(forward_batch, self.req_to_token_pool.req_to_token)

    def forward_extend(
        self, q, k, v, layer, forward_batch, save_kv_cache=True, topk_indices=None, **kwargs
    ):
        """Sparse attention of one layer.

        Args:
            q: [num_tokens, H * D]; k: [num_tokens, 1, D]; D = kv_lora_rank + rope width.
            topk_indices: [num_tokens, index_topk] int32, request-local; -1 where unused.
        Returns:
            [num_tokens, H * kv_lora_rank].
        """
        if topk_indices is None:
            raise RuntimeError(
                f"layer {layer.layer_id} reached sparse attention without top-k indices: "
                "neither it nor a layer before it ran an indexer"
            )
        if save_kv_cache:
            self.token_to_kv_pool.set_kv_buffer(
                layer, KVWriteLoc(forward_batch.out_cache_loc, None), k, v
            )
        dim, value_dim = layer.qk_head_dim, layer.v_head_dim
        q = q.view(-1, layer.tp_q_head_num, dim)
        latent = self.token_to_kv_pool.get_key_buffer(layer.layer_id).view(-1, dim)
        out = q.new_empty(q.shape[0], layer.tp_q_head_num, value_dim)
        for segment in self.plan.segments:
            span = slice(segment.first_row, segment.first_row + segment.num_rows)
            sparse_mla(q[span], latent, segment.slots, topk_indices[span], layer.scaling, out[span])
        out[self.plan.num_rows :] = 0
        return out.view(q.shape[0], -1)

    forward_decode = forward_extend

    def get_cpu_graph_seq_len_fill_value(self) -> int:
        """Length of the requests that upstream pads a batch with (data-parallel attention)."""
        return 1

    def support_triton(self) -> bool:
        return False
