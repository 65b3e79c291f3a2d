"""SGLang plugin (entry-point group `sglang.srt.plugins`): attach the CPU path, or stop the server.

Importing this module imports nothing of SGLang or torch, and `register` does nothing unless
SGLang runs on its CPU engine: on a GPU this plugin does not exist.
"""

import os

from sglang_ic.seams import Seam, attach

_SRT = "sglang.srt."
_HOOKS = "sglang_ic.cpu.hooks."

SEAMS = (
    Seam(
        _SRT + "arg_groups.model_hook.handle_model_specific_adjustments",
        "around",
        _HOOKS + "model_adjustments",
        "argument resolution asks CUDA for its compute capability",
    ),
    Seam(
        _SRT + "arg_groups.overrides._dsa_kv_cache_dtype_default",
        "around",
        _HOOKS + "kv_cache_dtype_default",
        "the KV cache becomes bf16 or fp8 by GPU generation",
        seen_at=(_SRT + "arg_groups.model_hook._dsa_kv_cache_dtype_default",),
    ),
    Seam(
        _SRT + "arg_groups.overrides._dsa_split_backend_resolution",
        "around",
        _HOOKS + "split_backend_default",
        "a GPU attention kernel is chosen",
        seen_at=(_SRT + "arg_groups.model_hook._dsa_split_backend_resolution",),
    ),
    Seam(
        _SRT + "layers.rotary_embedding.factory.get_rope_cpu",
        "around",
        _HOOKS + "rope_on_cpu",
        "only deepseek_yarn rotary embeddings can be built",
    ),
    Seam(
        _SRT + "mem_cache.index_key_cache.IndexKeyCache",
        "replace",
        _HOOKS + "RowIndexKeyCache",
        "index-K is kept as fp8 bytes that only GPU kernels read",
        seen_at=(_SRT + "mem_cache.memory_pool.IndexKeyCache",),
    ),
    Seam(
        _SRT
        + "model_executor.pool_configurator.DefaultPoolConfigurator._compute_dsa_indexer_cell_size",
        "around",
        _HOOKS + "index_k_bytes_per_token",
        "the pool is sized for fp8 index-K and outgrows its memory budget",
    ),
    Seam(
        _SRT + "layers.attention.dsa.dsa_indexer.Indexer.forward_native",
        "replace",
        _HOOKS + "indexer_forward",
        "the indexer raises NotImplementedError",
    ),
    Seam(
        _SRT + "layers.attention.attention_registry.ATTENTION_BACKENDS[torch_native]",
        "entry",
        _HOOKS + "attention_backend",
        "dense attention runs over a cache layout it does not know",
    ),
    Seam(
        _SRT + "models.deepseek_common.attention_backend_handler"
        ".AttentionBackendRegistry.get_handler",
        "around",
        _HOOKS + "attention_handler",
        "prefill takes the dense path and ignores the selection",
    ),
)


def register() -> None:
    """Attach every seam and check it. Does nothing unless SGLang runs on its CPU engine.

    Raises:
        SystemExit: with one line, if a seam is not ours afterwards. (SGLang would only log an
            Exception and serve on.)
    """
    from sglang.srt.utils import is_cpu

    if not is_cpu():
        return
    # Upstream compiles its expert routing with torch.compile, which on CPU needs a C++ compiler at
    # run time. The scheduler process inherits this before it imports the routing.
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    attach(SEAMS, "DSA on CPU")
