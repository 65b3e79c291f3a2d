"""Prefill of a candidate layer on NVIDIA GPUs, in place of upstream's `Indexer._get_topk_ragged`.

The same rule as on CPU (`sglang_ic.candidates.pages`). Index-K is gathered by upstream's own
kernel, with each group's list in place of the request's pages; the scoring function and top-k are
those that upstream would call, with windows that begin at 0 of the list. What attention is handed
is in the domain that Full layers use in this pass, so Shared layers read it as ever. Nothing waits
for the GPU. Calls of Full layers, of other modes, and those whose candidates would be all keys go
to upstream's method, unchanged.

# R = rows (query tokens) of the pass, T = rows of one request, K = index_topk
# G = groups of a request's rows, P = pages of a list, B = requests
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from sglang_ic.candidates import pages as rule
from sglang_ic.candidates.switch import PAGE_TOKENS
from sglang_ic.hopper.fused_hooks import upstreams_scores


@dataclass(frozen=True)
class Request:
    """One request of the pass; its number is the row of the page table."""

    number: int
    first_row: int
    num_rows: int
    first_position: int  # of the first row, in the request
    base: int  # keys of the requests before it


def topk_of_candidates(
    original,
    indexer,
    enable_dual_stream,
    forward_batch,
    layer_id,
    q_fp8,
    weights,
    metadata,
    topk_result=None,
):
    """AROUND hook on `Indexer._get_topk_ragged`.

    Args:
        q_fp8: [R, H, D]; weights: [R, H, 1] float32; metadata: upstream's DSAIndexerMetadata.
        topk_result: [R, K] int32 to fill, given inside a captured graph only.
    Returns:
        [R, K] int32, -1 pads.
    """
    found = _candidates(forward_batch, layer_id, metadata)
    if found is not None:
        previous, num_pages = found
        requests = _requests(metadata, forward_batch)
        if any(_covered(request, num_pages) < request.num_rows for request in requests):
            if indexer.num_init_tokens or indexer.num_local_tokens:
                raise NotImplementedError(
                    "index_init_tokens and index_local_tokens are not supported in candidate "
                    "layers; make them F"
                )
            assert topk_result is None, "candidate layers are refused with prefill CUDA graphs"
            selection = _Selection(indexer, layer_id, metadata, num_pages)
            return selection.run(q_fp8, weights.squeeze(-1), previous, requests)
    return original(
        indexer,
        enable_dual_stream,
        forward_batch,
        layer_id,
        q_fp8,
        weights,
        metadata,
        topk_result,
    )


def _candidates(forward_batch, layer_id, metadata) -> tuple[torch.Tensor, int] | None:
    """The selection before and the number of pages, if this is a candidate layer's prefill."""
    from sglang.srt.model_executor.forward_batch_info import ForwardMode

    from sglang_ic.runtime.state import candidates_of

    if (
        forward_batch.forward_mode != ForwardMode.EXTEND
        or forward_batch.attn_cp_metadata is not None
        or metadata.attn_metadata.indexer_logical_page_table is not None
        or metadata.attn_metadata.pooled_index_kpool != 1
    ):
        return None
    return candidates_of(forward_batch, layer_id)


def _requests(metadata, forward_batch) -> list[Request]:
    requests, row, base = [], 0, 0
    lengths = metadata.get_indexer_seq_len_cpu().tolist()
    for number, (length, rows) in enumerate(
        zip(lengths, forward_batch.extend_seq_lens_cpu, strict=True)
    ):
        requests.append(Request(number, row, int(rows), length - int(rows), base))
        row, base = row + int(rows), base + length
    return requests


def _covered(request: Request, num_pages: int) -> int:
    return rule.num_covered(request.first_position, request.num_rows, num_pages)


def domain_of(metadata: Any) -> Literal["positions", "slots", "offsets"]:
    """What the indices of this pass count: positions in a request, slots, or keys of all requests.

    Args:
        metadata: upstream's DSAIndexerMetadata.
    """
    from sglang.srt.environ import envs
    from sglang.srt.layers.attention.dsa.dsa_topk_backend import TopkTransformMethod

    if not envs.SGLANG_DSA_FUSE_TOPK.get() or metadata.force_unfused_topk:
        return "positions"
    if metadata.topk_transform_method == TopkTransformMethod.PAGED:
        return "slots"
    return "offsets"


class _Selection:
    """The selection of one candidate layer in one pass."""

    def __init__(self, indexer, layer_id: int, metadata, num_pages: int) -> None:
        from sglang.srt.layers.attention.dsa import dsa_indexer

        self.indexer, self.layer_id, self.metadata = indexer, layer_id, metadata
        self.num_pages = num_pages
        self.pool = dsa_indexer.get_token_to_kv_pool()
        self.score = upstreams_scores()
        assert self.pool.index_page_size == PAGE_TOKENS
        self.page_table = metadata.get_logical_page_table()  # [B, pages] int32, pages of the pool
        self.domain = domain_of(metadata)

    def run(self, q_fp8, weights, previous, requests: list[Request]) -> torch.Tensor:
        """[R, K] int32; rows of no request stay -1.

        Args:
            q_fp8: [R, H, D]; weights: [R, H] float32.
            previous: [R, K] int32, the selection before, in this pass's domain.
        """
        result = previous.new_full((len(q_fp8), self.indexer.index_topk), -1)
        page_of = self._page_of(requests) if self.domain == "slots" else None
        for request in requests:
            rows = slice(request.first_row, request.first_row + request.num_rows)
            if request.num_rows:
                self._run_request(
                    request, q_fp8[rows], weights[rows], previous[rows], page_of, result[rows]
                )
        return result

    def _page_of(self, requests: list[Request]) -> torch.Tensor:
        """[pages of the pool] int32, page in its request; -1 for pages of none of these.

        Requests that share pages share a prefix, in which a page has the same number for all.
        """
        buffer = self.indexer._get_index_k_read_buffer(self.pool, self.layer_id)
        page_of = self.page_table.new_full((len(buffer),), -1)
        for request in requests:
            num_pages = -(-(request.first_position + request.num_rows) // PAGE_TOKENS)
            own = self.page_table[request.number, :num_pages].long()
            page_of[own] = torch.arange(num_pages, dtype=torch.int32, device=page_of.device)
        return page_of

    def _run_request(self, request: Request, q_fp8, weights, previous, page_of, out) -> None:
        from sglang_ic.hopper.pages import count_selected, look_up_

        first, num_rows = request.first_position, request.num_rows
        spans = rule.row_groups(first, num_rows)
        groups = rule.group_of_rows(first, num_rows, q_fp8.device).int()
        counts = count_selected(
            previous,
            groups,
            len(spans),
            -(-(first + num_rows) // PAGE_TOKENS),
            page_of=page_of,
            base=request.base if self.domain == "offsets" else 0,
        )
        lists = rule.choose_pages(counts, first, num_rows, self.num_pages)
        in_pool = self.page_table[request.number][lists].int()
        keys, scales = self._keys(in_pool)
        windows = rule.windows(lists, first, num_rows)
        starts = torch.zeros_like(windows)
        length = lists.shape[1] * PAGE_TOKENS
        q, w, _ = self.indexer._pad_heads_for_deep_gemm(q_fp8, weights)
        for group, (begin, end) in enumerate(spans):
            rows, listed = slice(begin, end), slice(group * length, (group + 1) * length)
            with self.indexer._with_real_sm_count():
                scores = self.score(
                    q[rows],
                    (keys[listed], scales[listed]),
                    w[rows],
                    starts[rows],
                    windows[rows],
                    clean_logits=False,
                )
            out[rows] = self.metadata.topk_backend.topk_func(scores, windows[rows], out.shape[1])
        look_up_(
            out,
            in_pool if self.domain == "slots" else lists.int(),
            groups,
            base=request.base if self.domain == "offsets" else 0,
        )

    def _keys(self, in_pool: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Index-K of pages [G, P] of the pool, one after the other, and its scales.

        The last page of a request may be partly filled: what is behind its end is in no window.
        """
        num_groups, width = in_pool.shape
        length = width * PAGE_TOKENS
        lengths = in_pool.new_full((num_groups,), length)
        keys, scales = self.pool.get_index_k_scale_buffer(
            self.layer_id, lengths, in_pool, num_groups * length, length
        )
        return keys.view(torch.float8_e4m3fn), scales.view(torch.float32).squeeze(-1)
