"""What runs at each seam. `plugin.py` says where each of these is attached and why.

An around hook gets the original as its first argument.
"""

from contextlib import contextmanager
from functools import partial

import torch

from sglang_ic.cpu.backend import CpuDsaBackend
from sglang_ic.cpu.index_k import RowIndexKeyCache
from sglang_ic.cpu.indexer import indexer_forward

__all__ = ["CpuDsaBackend", "RowIndexKeyCache", "indexer_forward"]


@contextmanager
def _no_cuda_capability():
    """Answer `torch.cuda.get_device_capability` with (0, 0) where CPU torch would raise."""
    real = torch.cuda.get_device_capability
    torch.cuda.get_device_capability = lambda device=None: (0, 0)
    try:
        yield
    finally:
        torch.cuda.get_device_capability = real


def model_adjustments(original, server_args):
    """Resolve model-specific arguments without a CUDA device to ask."""
    with _no_cuda_capability():
        return original(server_args)


def kv_cache_dtype_default(original, view) -> dict:
    """Keep the KV dtype that was asked for; upstream's default for DSA is bf16 or fp8, per GPU."""
    if view.kv_cache_dtype not in ("auto", "bf16", "bfloat16"):
        raise ValueError(
            f"--kv-cache-dtype {view.kv_cache_dtype} is not supported for DSA on CPU; "
            "use auto or bfloat16"
        )
    return {}


def split_backend_default(original, view) -> dict:
    """Declare no prefill and decode backend: all of upstream's are GPU kernels."""
    return {}


def rope_on_cpu(
    original,
    head_size,
    rotary_dim,
    max_position,
    base,
    is_neox_style=True,
    rope_scaling=None,
    dtype=None,
    partial_rotary_factor=1.0,
    device=None,
):
    """Build any rotary embedding: upstream's CPU factory knows one, its general one knows all."""
    if rope_scaling is not None and rope_scaling.get("rope_type") == "deepseek_yarn":
        return original(
            head_size,
            rotary_dim,
            max_position,
            base,
            is_neox_style,
            rope_scaling,
            dtype,
            partial_rotary_factor,
            device,
        )
    from sglang.srt.layers.rotary_embedding.factory import get_rope

    return get_rope(
        head_size,
        rotary_dim,
        max_position,
        base,
        is_neox_style,
        rope_scaling,
        dtype,
        partial_rotary_factor,
    )


def index_k_bytes_per_token(original, self, *, kvc, num_layers, allocate_all_layers=False) -> int:
    """Size the pool for index-K rows in the KV dtype rather than for fp8 bytes and scales."""
    from sglang.srt.configs.model_config import get_dsa_index_head_dim
    from sglang.srt.mem_cache.memory_pool import DSATokenToKVPool

    quantised_bytes = original(
        self, kvc=kvc, num_layers=num_layers, allocate_all_layers=allocate_all_layers
    )
    head_dim = get_dsa_index_head_dim(kvc.model_config.hf_config)
    row_bytes = head_dim * kvc.kv_cache_dtype.itemsize
    quantised_row_bytes = head_dim + head_dim // DSATokenToKVPool.quant_block_size * 4
    return quantised_bytes // quantised_row_bytes * row_bytes


def attention_backend(original, runner):
    """Create the sparse backend for a DSA model and upstream's dense one for any other."""
    from sglang.srt.configs.model_config import is_deepseek_dsa

    if is_deepseek_dsa(runner.model_config.hf_config):
        return CpuDsaBackend(runner)
    return original(runner)


def attention_handler(original, cls, backend_name: str):
    """Take absorbed MLA for DSA layers: the dense multi-head path would ignore the selection."""
    handler = original(cls, backend_name)
    return partial(_dsa_takes_mla, handler) if backend_name == "torch_native" else handler


def _dsa_takes_mla(handler, attn, forward_batch):
    from sglang.srt.models.deepseek_common.attention_forward_methods.forward_methods import (
        AttnForwardMethod,
    )

    if getattr(attn, "use_dsa", False):
        return AttnForwardMethod.MLA
    return handler(attn, forward_batch)
