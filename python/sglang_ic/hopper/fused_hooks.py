"""Scores and top-k of prefill in one pass (``fused``), where upstream has two steps.

Upstream asks `resolve_fp8_mqa_logits_fn` which function scores a chunk, and gives the scores to
`topk_transform`. Both steps become one where that function returns its question (``deferred``) and
the top-k hook answers it. Upstream cuts a chunk whose scores would not fit in a buffer; where none
are written it does not. Which passes: see `_pays`. All others are scored by upstream's function;
scores are the same bit for bit, so the sets do not depend on it.
"""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial

from sglang_ic.hopper.deferred import DeferredScores
from sglang_ic.hopper.hooks import Rows, in_prefill, selects_slots, topk_with_ragged_kernel
from sglang_ic.hopper.marks import marked

_unwritten: ContextVar[bool] = ContextVar("scores will not be written", default=False)

# With shorter contexts two steps are as fast: timed at 32,768 to 200,000 keys.
FEWEST_KEYS = 49_152
# A program sees all keys of its rows: with 2,048 rows every multiprocessor has its two programs.
FEWEST_ROWS = 2048
# Keys of all requests of a pass: with more, the registers that hold a row's samples spill.
MOST_KEYS = 1 << 20


def topk_with_fused_kernel(original, metadata, logits, *args, **kwargs):
    """Score and select in one pass; `original` for scores that are written."""
    if not isinstance(logits, DeferredScores):
        return original(metadata, logits, *args, **kwargs)

    def with_written(metadata, logits, *args, **kwargs):
        return original(metadata, logits.written, *args, **kwargs)

    return in_prefill(_fused_slots, with_written, metadata, logits, *args, **kwargs)


def topk_with_both_kernels(original, *args, **kwargs):
    """As `topk_with_fused_kernel`; `topk_with_ragged_kernel` for scores that are written."""
    return topk_with_fused_kernel(partial(topk_with_ragged_kernel, original), *args, **kwargs)


def prefill_without_scores(original, indexer, *args):
    """Around upstream's `_get_topk_ragged`: mark passes whose scores will not be written."""
    _, forward_batch, _, q_fp8, _, metadata, *_ = args
    unwritten = (
        selects_slots(metadata, indexer.index_topk)
        and forward_batch.attn_cp_metadata is None
        and not (indexer.num_init_tokens or indexer.num_local_tokens)
        and _pays(len(q_fp8), metadata.get_indexer_seq_len_cpu())
        and not _wants_torch()
    )
    with marked(_unwritten, unwritten):
        return original(indexer, *args)


def _pays(num_rows: int, lengths) -> bool:
    """Is one pass at least as fast as two, in memory that is there?

    Args:
        num_rows: of the pass; lengths: [B] on the CPU, keys of each request.
    """
    return (
        num_rows >= FEWEST_ROWS
        and int(lengths.max()) >= FEWEST_KEYS
        and int(lengths.sum()) <= MOST_KEYS
    )


def _wants_torch() -> bool:
    from sglang.srt.environ import envs

    return envs.SGLANG_FP8_PAGED_MQA_LOGITS_TORCH.get()  # upstream scores in torch then


def whole_chunks(original, **sizes):
    """In place of upstream's `mqa_logits_should_chunk`: no pieces of what needs no room."""
    return (False, 0) if _unwritten.get() else original(**sizes)


def scores_with_fused_kernel(original):
    """The question for scores, to be answered by `topk_with_fused_kernel`; else upstream's."""
    return _deferred_mqa_logits if _unwritten.get() else original()


def upstreams_scores():
    """Upstream's function for scores, for a caller that reads them."""
    from sglang.srt.layers.attention.dsa import dsa_indexer

    with marked(_unwritten, False):
        return dsa_indexer.resolve_fp8_mqa_logits_fn()


def _deferred_mqa_logits(q, kv, weights, ks, ke, clean_logits=False, max_seqlen_k=0):
    assert not clean_logits and not max_seqlen_k
    k, k_scale = kv
    return DeferredScores(q, k, k_scale, weights, ks, ke)


def _fused_slots(logits: DeferredScores, topk, rows: Rows, page_table):
    from sglang_ic.hopper.fused import score_and_select

    return score_and_select(
        *(logits.q, logits.k, logits.k_scale, logits.weights, rows.starts, rows.lengths),
        *(topk, page_table, rows.requests),
    )
