"""The lightning indexer's forward on CPU (upstream has one per accelerator and no native one).

Same arithmetic as upstream's with two GPU-only steps left out: the fp8 quantisation of queries and
keys, and the Hadamard rotation before it, which does not change q . k.
"""

import torch
import torch.nn.functional as F
from sglang.srt.model_executor.forward_batch_info import ForwardMode
from sglang.srt.model_executor.forward_context import get_attn_backend
from sglang.srt.state_capturer.indexer_topk import maybe_capture_indexer_topk

from sglang_ic.cpu.candidates import select_among_candidates
from sglang_ic.cpu.kernels import select_topk
from sglang_ic.runtime.state import candidates_of


def indexer_forward(
    indexer,
    x: torch.Tensor,
    q_lora: torch.Tensor,
    positions: torch.Tensor,
    forward_batch,
    layer_id: int,
    return_indices: bool = True,
) -> torch.Tensor | None:
    """Store this layer's index-K and select each token's keys; stands in for `forward_native`.

    Args:
        x: [num_tokens, hidden_size] layer input.
        q_lora: [num_tokens, q_lora_rank] normalised query latent.
        positions: [num_tokens] int64.
        return_indices: False stores index-K only (a prefill that attends densely).
    Returns:
        [num_tokens, index_topk] int32 request-local positions, ascending; -1 pads short rows and
        fills rows of no request. None without `return_indices`.
    """
    if indexer.num_init_tokens or indexer.num_local_tokens:
        raise NotImplementedError(
            "index_init_tokens and index_local_tokens are not supported for DSA on CPU"
        )
    backend = get_attn_backend()
    plan = backend.plan
    num_tokens = x.shape[0]
    if not plan.segments:
        if not return_indices:
            return None
        padding = torch.full((num_tokens, indexer.index_topk), -1, dtype=torch.int32)
        return maybe_capture_indexer_topk(layer_id, padding)

    # Upstream holds weights_proj in bf16; the product is taken in float32.
    gate = indexer.weights_proj.weight.float()
    heads = _gated_heads(gate)
    q = _project_queries(indexer, q_lora, heads)
    k = indexer.k_norm(indexer.wk(x)[0]).float()
    rope = indexer.rope_head_dim
    q_rope, k_rope = indexer.rotary_emb(
        positions, q[..., :rope].contiguous(), k[:, None, :rope].contiguous()
    )
    q[..., :rope] = q_rope
    k[:, :rope] = k_rope.squeeze(1)

    store = backend.token_to_kv_pool.index_key_cache
    store.store(layer_id, forward_batch.out_cache_loc, k)
    if not return_indices:
        return None

    weights = F.linear(x.float(), gate[heads])
    weights *= indexer.n_heads**-0.5 * indexer.softmax_scale
    rows = store.rows(layer_id)
    topk = torch.empty(num_tokens, indexer.index_topk, dtype=torch.int32)
    found = None
    if forward_batch.forward_mode == ForwardMode.EXTEND:
        found = candidates_of(forward_batch, layer_id)
    for segment in plan.segments:
        span = slice(segment.first_row, segment.first_row + segment.num_rows)
        keys = rows.index_select(0, segment.slots).float()
        call = (q[span], weights[span], keys, segment.first_position)
        if found is None:
            select_topk(*call, topk[span])
        else:
            previous, num_pages = found
            select_among_candidates(*call, previous[span], num_pages, topk[span])
    topk[plan.num_rows :] = -1
    return maybe_capture_indexer_topk(layer_id, topk)


def _gated_heads(gate: torch.Tensor) -> torch.Tensor:
    """Indices of the heads that can change a score, given the gate weights [H, hidden_size].

    A head whose gate is zero adds 0 * relu(...) to every score: padding, in checkpoints that bring
    their head count up to what GPU kernels take. If all are zero, all stay.
    """
    heads = gate.any(dim=1).nonzero().squeeze(1)
    return heads if heads.numel() else torch.arange(gate.shape[0])


def _project_queries(indexer, q_lora: torch.Tensor, heads: torch.Tensor) -> torch.Tensor:
    """[num_tokens, len(heads), head_dim] float32 queries of `heads`, before rotation."""
    shape = (q_lora.shape[0], heads.numel(), indexer.head_dim)
    if heads.numel() == indexer.n_heads:
        return indexer.wq_b(q_lora)[0].view(shape).float()
    weight = indexer.wq_b.weight.view(indexer.n_heads, indexer.head_dim, -1)[heads]
    return F.linear(q_lora, weight.flatten(0, 1)).view(shape).float()
