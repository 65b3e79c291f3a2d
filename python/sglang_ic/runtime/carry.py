"""The functions that patched model code calls, from the start of a forward pass to its end.

A model without DSA, or one of upstream's other DSA architectures, has no state in its
``ForwardBatch``; then every function answers as the unpatched line did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sglang_ic.pattern import LayerPattern
from sglang_ic.runtime.roles import LayerRoles
from sglang_ic.runtime.state import IndexCacheError, IndexCacheState

if TYPE_CHECKING:
    import torch


def model_roles(config: Any, start_layer: int, end_layer: int) -> LayerRoles | None:
    """Roles for a ``DeepseekV2Model``, from what the plugin resolved; None without DSA.

    Raises:
        RuntimeError: the plugin has not resolved this config, so no pattern can be trusted.
    """
    from sglang.srt.configs.model_config import is_deepseek_dsa

    if not is_deepseek_dsa(config):
        return None
    resolved = getattr(config, "index_cache", None)
    if resolved is None:
        raise RuntimeError(
            "sglang_ic's plugin did not resolve a pattern for this model: is `sglang_ic` missing "
            "from SGLANG_PLUGINS, or was load_plugins() not called before the model was built?"
        )
    pattern = LayerPattern.parse(resolved["pattern"], config.num_hidden_layers)
    return LayerRoles(
        pattern,
        start_layer,
        end_layer,
        build_all=resolved["build"] == "all",
        index_topk=config.index_topk,
    )


def begin_forward(model: Any, forward_batch: Any, topk_indices: torch.Tensor | None) -> Any:
    """Start a forward pass of ``DeepseekV2Model``.

    Args:
        topk_indices: [T, K] int32 from the previous pipeline stage, or None.
    Returns:
        The pass's state; upstream's own carrier for a model without DSA.
    """
    import torch
    from sglang.srt.layers.attention.index_topk_share import IndexTopKShareState

    roles: LayerRoles | None = model.index_cache_roles
    # Sharing is refused under torch.compile at start; all-Full needs no carrier there.
    if roles is None or torch.compiler.is_compiling():
        return IndexTopKShareState(forward_batch, topk_indices)
    if forward_batch.index_cache is not None:
        raise IndexCacheError(
            "this ForwardBatch still holds the indices of another forward pass: "
            "that pass failed midway, or two passes are nested"
        )
    forward_batch.index_cache = IndexCacheState(roles, topk_indices)
    return forward_batch.index_cache


def end_forward(model: Any, forward_batch: Any) -> None:
    """End the pass: the batch forgets the indices, the roles learn what was run."""
    state: IndexCacheState | None = forward_batch.index_cache
    if state is None:
        return
    # Layers behind the two-batch split run on child batches, which carry no state (all Full).
    state.close(all_layers=not forward_batch.can_run_tbo)
    forward_batch.index_cache = None
    model.index_cache_roles.last_pass = (state.num_run, state.num_skipped)


def runs_indexer(attn: Any, forward_batch: Any, prev_topk_indices: Any = None) -> bool:
    """Whether this attention layer runs its indexer now (``DeepseekV2AttentionMLA``)."""
    state = _state_of(attn, forward_batch)
    if state is None:
        return attn.should_run_indexer(prev_topk_indices)
    return state.runs_indexer(attn.layer_id)


def topk_for(attn: Any, forward_batch: Any, prev_topk_indices: Any) -> Any:
    """The indices that a layer reuses instead of running its indexer: [T, K] int32."""
    state = _state_of(attn, forward_batch)
    if state is None:
        return prev_topk_indices
    return state.topk_for(attn.layer_id)


def publish(attn: Any, forward_batch: Any, topk_indices: torch.Tensor | None) -> bool:
    """Offer the indices a layer attended with to the layers after it.

    Returns:
        True if the ``ForwardBatch`` carries them; False if upstream's tuple has to.
    """
    state = _state_of(attn, forward_batch)
    if state is None:
        return False
    state.publish(attn.layer_id, topk_indices)
    return True


def _state_of(attn: Any, forward_batch: Any) -> IndexCacheState | None:
    # A draft layer numbers itself from 0 and takes its seeds from spec_info, as upstream has it.
    return None if attn.is_nextn else forward_batch.index_cache
