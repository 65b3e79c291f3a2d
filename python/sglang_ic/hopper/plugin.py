"""SGLang plugin (entry-point group `sglang.srt.plugins`): attach what was asked for, or stop.

On a Hopper GPU the replacements run that were measured to be faster, unless an environment variable
turns them off (see ``switches``); elsewhere none does, and one that is asked for stops the server.
Candidate layers need permission of their own (see ``sglang_ic.candidates.switch``). All but the
streams, which go by role, work on the patched SGLang and on upstream's own.
"""

from __future__ import annotations

import os

import torch

from sglang_ic.candidates import switch
from sglang_ic.hopper.switches import (
    DECODE_ATTENTION,
    DECODE_STREAMS,
    PREFILL_ATTENTION,
    PREFILL_SCORES,
    Switches,
    asked_for,
)
from sglang_ic.seams import Seam, attach, refuse

_DSA = "sglang.srt.layers.attention.dsa."
_FUSED = "sglang_ic.hopper.fused_hooks."


CANDIDATES = Seam(
    _DSA + "dsa_indexer.Indexer._get_topk_ragged",
    "around",
    "sglang_ic.hopper.candidates.topk_of_candidates",
    "candidate layers would score all keys",
)

_WRITES = f"{PREFILL_SCORES}=fused would run DeepGEMM's kernel"
_CUTS = f"{PREFILL_SCORES}=fused would run in pieces"
FUSED = (
    Seam(
        _DSA + "utils.resolve_fp8_mqa_logits_fn",
        "around",
        _FUSED + "scores_with_fused_kernel",
        _WRITES,
        seen_at=(_DSA + "dsa_indexer.resolve_fp8_mqa_logits_fn",),
    ),
    Seam(
        _DSA + "dsa_indexer.Indexer._get_topk_ragged",
        "around",
        _FUSED + "prefill_without_scores",
        _CUTS,
    ),
    Seam(
        "sglang.srt.layers.attention.mqa_logits_utils.mqa_logits_should_chunk",
        "around",
        _FUSED + "whole_chunks",
        _CUTS,
        seen_at=(_DSA + "dsa_indexer.mqa_logits_should_chunk",),
    ),
)
_CONCAT = "sglang.kernels.ops.attention.utils.concat_mla_absorb_q_general"
_CONCAT_SEEN_AT = ("sglang.srt.layers.attention.dsa_backend.concat_mla_absorb_q_general",)
_BACKEND = "sglang.srt.layers.attention.dsa_backend.DeepseekSparseAttnBackend."
_PADS = f"{PREFILL_ATTENTION}=heads would run FlashMLA on padded queries"
_PARTS = "sglang_ic.hopper.attention_hooks."
ATTENTION = (
    Seam(_BACKEND + "forward_extend", "around", _PARTS + "extend_with_parts", _PADS),
    Seam(_CONCAT, "around", _PARTS + "keep_parts", _PADS, seen_at=_CONCAT_SEEN_AT),
    Seam(_BACKEND + "_forward_flashmla_sparse", "around", _PARTS + "attend_to_parts", _PADS),
)
_STAYS = f"{DECODE_ATTENTION}=split would run FlashAttention 3"
_SPLITS = "sglang_ic.hopper.decode_attention."
DECODE = (
    Seam(_BACKEND + "forward_decode", "around", _SPLITS + "mark_decode", _STAYS),
    Seam(_BACKEND + "_forward_fa3", "around", _SPLITS + "decode_in_splits", _STAYS),
)


def seams(switches: Switches) -> tuple[Seam, ...]:
    """Where the replacements run that were asked for."""
    found = []
    if switches.prefill_topk or switches.prefill_scores:
        found.append(_topk(switches))
    if switches.prefill_scores is not None:
        found += FUSED
    if switches.prefill_attention is not None:
        found += ATTENTION
    if switches.decode_attention is not None:
        found += DECODE
    if switches.decode_streams is not None:
        found += _streams(switches.decode_streams)
    return tuple(found)


def _topk(switches: Switches) -> Seam:
    """One hook for both, since two around one function would make upstream warn of them."""
    hook = _FUSED + "topk_with_both_kernels"
    if switches.prefill_scores is None:
        hook = "sglang_ic.hopper.hooks.topk_with_ragged_kernel"
    elif switches.prefill_topk is None:
        hook = _FUSED + "topk_with_fused_kernel"
    return Seam(
        _DSA + "dsa_indexer_metadata.DSAIndexerMetadata.topk_transform",
        "around",
        hook,
        "prefill would run upstream's own top-k",
    )


def _streams(choice: str) -> tuple[Seam, ...]:
    prepare = {"indexer": "prepare_beside_the_indexer", "roles": "prepare_by_role"}[choice]
    why = f"{DECODE_STREAMS}={choice} would leave decode as it is"
    hooks = "sglang_ic.hopper.streams."
    method = "forward_mla.DeepseekMLAForwardMixin.forward_absorb_prepare"
    path = f"sglang.srt.models.deepseek_common.attention_forward_methods.{method}"
    return (
        Seam(path, "around", hooks + prepare, why),
        Seam(_DSA + "dsa_indexer.Indexer.forward_cuda", "around", hooks + "indexer_beside", why),
    )


def _is_patched() -> bool:
    from sglang.srt.model_executor.forward_batch_info import ForwardBatch

    return "index_cache" in ForwardBatch.__dataclass_fields__


def _is_cuda() -> bool:
    from sglang.srt.utils import is_cuda

    return is_cuda()


def _is_hopper() -> bool:
    return _is_cuda() and torch.cuda.get_device_capability()[0] == 9


def register() -> None:
    """Attach the replacements that run here, if any.

    Raises:
        SystemExit: with one line: a value that is not one of ours, a replacement that is asked for
            where there is no Hopper GPU, or a seam that is not ours afterwards.
    """
    try:
        switches = Switches.read(os.environ)
    except ValueError as error:
        refuse(str(error))
    wanted = ()
    if _is_hopper():
        wanted = seams(switches)
    elif asked := asked_for(os.environ):
        refuse(f"{', '.join(asked)}: there is no Hopper GPU here; unset it")
    if switches.decode_streams is not None and not _is_patched():
        refuse(f"{DECODE_STREAMS} needs the patched SGLang: run python -m sglang_ic.fork")
    if switch.setting() and _is_cuda():  # the CPU path has its own
        wanted += (CANDIDATES,)
    if wanted:
        attach(wanted, "the replacements of " + ", ".join(seam.target for seam in wanted))
