"""Prefill, from scores to slots: upstream's two kernels, and whether ours select what they do."""

import torch

from hopper_kernels.attention import attention_by_order
from hopper_kernels.chunk import Chunk
from hopper_kernels.shapes import TOPK
from hopper_kernels.timing import Bench


def topk_steps(
    bench: Bench, chunk: Chunk, scores: torch.Tensor, fused: torch.Tensor | None
) -> None:
    """Args: scores: [R, N] float32; fused: [R, 2048] slots that the fused kernel selected."""
    from sglang_ic.hopper import hooks
    from sglang_ic.hopper.slots import to_slots_

    slot_of = chunk.page_table[0].long()
    position_of = torch.empty_like(slot_of).scatter_(
        0, slot_of, torch.arange(len(slot_of)).to(slot_of)
    )

    def unlike(slots, others):
        """Rows that differ in what they select, and in the scores of what they select."""
        chosen = [
            scores.gather(1, position_of[one.long()]).sort().values for one in (slots, others)
        ]
        return {
            "rows_unlike_upstream": int((slots.sort().values != others.sort().values).any(1).sum()),
            "rows_of_other_scores": int((chosen[0] != chosen[1]).any(1).sum()),
        }

    case, score_gb, device = chunk.name, chunk.pairs * 4 / 1e9, chunk.q.device
    num_rows, num_keys = len(chunk.q), len(chunk.keys[0])

    def older(table, bounds, rows):
        from sgl_kernel import fast_topk_transform_fused

        return fast_topk_transform_fused(
            score=scores[rows],
            lengths=chunk.lengths[rows],
            page_table_size_1=table,
            cu_seqlens_q=bounds,
            topk=TOPK,
            row_starts=chunk.starts[rows],
        )

    whole = slice(0, num_rows)
    one_request = torch.tensor([0, num_rows], dtype=torch.int32, device=device)
    each_row = torch.arange(num_rows + 1, dtype=torch.int32, device=device)
    expected = bench.time(
        case,
        "top-k: upstream, whole chunk",
        lambda: older(chunk.page_table, one_request, whole),
        score_gb,
    )

    def in_two_pieces():
        cut = num_rows * 7 // 8
        return [
            older(
                chunk.page_table[chunk.requests[rows]], each_row[: rows.stop - rows.start + 1], rows
            )
            for rows in (slice(0, cut), slice(cut, num_rows))
        ]

    bench.time(case, "top-k: upstream, in two pieces", in_two_pieces, score_gb)
    bench.time(
        case, "  of it: page-table rows copied", lambda: chunk.page_table[chunk.requests], score_gb
    )

    rows = hooks.Rows(chunk.starts, chunk.lengths, chunk.requests)
    found = {}
    found["ragged"] = bench.time(
        case,
        "top-k: ragged",
        lambda: hooks._ragged_slots(scores, TOPK, rows, chunk.page_table),
        score_gb,
    )
    positions = torch.randint(0, num_keys, (num_rows, TOPK), dtype=torch.int32, device=device)
    bench.time(
        case,
        "  of it: slots looked up",
        lambda: to_slots_(positions.clone(), chunk.page_table, chunk.requests),
        positions.nbytes * 4 / 1e9,
    )
    found["fused"] = fused
    if found["ragged"] is not None:
        orders = {**found, "ragged, then sorted,": found["ragged"].sort().values}
        attention_by_order(bench, case, orders, num_keys)
    if expected is not None:
        for name, slots in found.items():
            if slots is not None:
                bench.rows.append({"case": case, "name": name, **unlike(slots, expected)})
    result = torch.empty((num_rows, TOPK), dtype=torch.int32, device=device)
    bench.time(
        case,
        "result filled, then copied",
        lambda: result.fill_(-1).copy_(positions),
        result.nbytes * 3 / 1e9,
    )
