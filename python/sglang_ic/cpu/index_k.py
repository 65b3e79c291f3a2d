"""Index-K storage on CPU: one row per token slot in the KV dtype, no quantisation.

Upstream keeps a page as 64 fp8 keys followed by 64 fp32 scales, a layout for its GPU kernels.
Here a page is 64 rows, so slot `s` is row `s` and nothing needs repacking. `buffer` stays a list
with one tensor per layer and zero rows for layers that reuse indices, as upstream has it: its byte
counts, transfer tables and elision rules keep their meaning.
"""

import torch
from sglang.srt.mem_cache import index_key_cache


class RowIndexKeyCache(index_key_cache.IndexKeyCache):
    """Upstream's index-K store with plain rows.

    `buffer[i]`: [num_pages, page_size * index_head_dim] in the pool's dtype; zero pages on a layer
    that reuses another layer's indices.
    """

    def __init__(self, pool, index_buf_size: int):
        if pool.index_kpool != 1:
            raise ValueError(
                f"index_kpool={pool.index_kpool} is not supported on CPU, only 1; "
                "run this model on a GPU"
            )
        if not pool.dtype.is_floating_point or pool.dtype.itemsize < 2:
            raise ValueError(
                f"KV cache dtype {pool.dtype} is not supported for DSA on CPU; "
                "use --kv-cache-dtype auto or bfloat16"
            )
        # Read by the base class and by byte counters.
        pool.index_k_with_scale_buffer_dtype = pool.dtype
        super().__init__(pool, index_buf_size)

    def _buffer_shape(self, num_pages: int) -> tuple[int, int]:
        return (num_pages, self.pool.page_size * self.pool.index_head_dim)

    def rows(self, layer_id: int) -> torch.Tensor:
        """[num_slots, index_head_dim] view of a layer; zero slots where indices are reused."""
        return self.buffer[layer_id - self.pool.start_layer].view(-1, self.pool.index_head_dim)

    def store(self, layer_id: int, loc: torch.Tensor, index_k: torch.Tensor) -> None:
        """Write `index_k` [num_tokens, index_head_dim] at slots `loc` [num_tokens] int64."""
        rows = self.rows(layer_id)
        if rows.shape[0] == 0:
            raise RuntimeError(f"layer {layer_id} reuses indices and has no index-K to write to")
        rows[loc] = index_k.to(rows.dtype)

    def move(self, tgt_loc: torch.Tensor, src_loc: torch.Tensor) -> None:
        if tgt_loc.numel() == 0:
            return
        tgt, src = tgt_loc.view(-1).long(), src_loc.view(-1).long()
        for buffer in self.buffer:
            if buffer.shape[0]:
                rows = buffer.view(-1, self.pool.index_head_dim)
                rows[tgt] = rows[src]

    def cpu_copy(self, indices: torch.Tensor) -> list[torch.Tensor]:
        """Copy the pages under `indices` out, one tensor per layer (the base class syncs CUDA)."""
        pages = indices[:: self.pool.page_size] // self.pool.page_size
        return [buffer[pages] if buffer.shape[0] else buffer.clone() for buffer in self.buffer]

    def load_cpu_copy(self, index_k_cpu: list[torch.Tensor], indices: torch.Tensor) -> None:
        pages = indices[:: self.pool.page_size] // self.pool.page_size
        for buffer, saved in zip(self.buffer, index_k_cpu, strict=True):
            if buffer.shape[0]:
                buffer[pages] = saved

    def get_k_and_scale(self, *args, **kwargs):
        raise NotImplementedError("index-K on CPU has no scales; read rows() instead")

    def store_quantized(self, *args, **kwargs):
        raise NotImplementedError("index-K on CPU is not quantised; use store() instead")
