"""What the kernels of this package compute, in plain torch and slowly: the truth for their tests.

The rule: the highest scores of a row's window; among equal scores the lowest positions; -0 equals
+0; NaN comes after every number. A window of at most `topk` keys is selected whole.

# R = rows (query tokens), C = columns (keys of all requests), B = requests
"""

from __future__ import annotations

import torch


def ordered_keys(scores: torch.Tensor) -> torch.Tensor:
    """Integers that sort as the scores do: int64 of the same shape, 0 for NaN.

    Args:
        scores: float32 of any shape.
    """
    scores = torch.where(scores == 0, torch.zeros_like(scores), scores)
    bits = scores.contiguous().view(torch.int32).to(torch.int64) & 0xFFFFFFFF
    keys = torch.where(bits >= 1 << 31, 0xFFFFFFFF - bits, bits + (1 << 31))
    return torch.where(scores.isnan(), torch.zeros_like(keys), keys)


def select_positions(
    scores: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor, topk: int
) -> torch.Tensor:
    """The `topk` best positions of each row's window.

    Args:
        scores: [R, C] float32.
        starts: [R] int32, first column of the row's window.
        lengths: [R] int32, columns in the window.
    Returns:
        [R, topk] int32, positions relative to the window's start, ascending (the kernels have an
        order of their own); -1 pads on the right.
    """
    selected = torch.full((len(scores), topk), -1, dtype=torch.int32)
    for row, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
        keys = ordered_keys(scores[row, start : start + length])
        order = torch.sort(keys, descending=True, stable=True).indices
        best = order[:topk].sort().values
        selected[row, : len(best)] = best.to(torch.int32)
    return selected


def to_slots(
    positions: torch.Tensor, page_table: torch.Tensor, requests: torch.Tensor
) -> torch.Tensor:
    """Slots of the KV pool for positions in a request.

    Args:
        positions: [R, K] int32, -1 pads.
        page_table: [B, L] int32, slot of each position of each request (page size 1).
        requests: [R] int32, row of the page table.
    Returns:
        [R, K] int32, -1 where positions are.
    """
    slots = page_table[requests.long()].gather(1, positions.clamp(min=0).long())
    return torch.where(positions < 0, positions, slots)


def count_selected(
    selected: torch.Tensor,
    groups: torch.Tensor,
    num_groups: int,
    num_pages: int,
    *,
    page_of: torch.Tensor | None = None,
    base: int = 0,
) -> torch.Tensor:
    """What `pages.count_selected` computes, one index at a time; same arguments and result."""
    counts = torch.zeros((num_groups, num_pages), dtype=torch.int32)
    for row, group in zip(selected.tolist(), groups.tolist(), strict=True):
        for index in row:
            if index < 0:
                continue
            page = (index - base) // 64 if page_of is None else int(page_of[index // 64])
            if 0 <= page < num_pages:
                counts[group, page] += 1
    return counts


def look_up_(
    places: torch.Tensor, pages: torch.Tensor, groups: torch.Tensor, *, base: int = 0
) -> torch.Tensor:
    """What `pages.look_up_` computes, in place too; same arguments and result."""
    at = places.clamp(min=0).long()
    tokens = pages[groups.long()].gather(1, at // 64) * 64 + at % 64 + base
    return places.copy_(torch.where(places < 0, places, tokens))


def keep(
    scores: torch.Tensor,
    starts: torch.Tensor,
    ends: torch.Tensor,
    bounds: torch.Tensor,
    *,
    block_q: int,
    lanes: int,
    levels: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What `fused.keep` keeps of written scores, on CPU.

    Args:
        scores: [R, N] float32; starts, ends: [R] int32; bounds: [R] float32.
    Returns:
        Scores and positions [R, levels, lanes], zeros beyond the count; counts [R, lanes].
    """
    kept = torch.zeros((len(scores), levels, lanes))
    positions = torch.zeros(kept.shape, dtype=torch.int32)
    counts = torch.zeros((len(scores), lanes), dtype=torch.int32)
    for row, (start, end, bound) in enumerate(
        zip(starts.tolist(), ends.tolist(), bounds.tolist(), strict=True)
    ):
        block = row // block_q * block_q
        first = int(starts[block : block + block_q].min())
        window = scores[row, start:end].cpu()
        passes = (window >= bound) | (bound == -float("inf"))
        for position in passes.nonzero()[:, 0].tolist():
            lane = (start + position - first) % lanes
            level = int(counts[row, lane])
            counts[row, lane] += 1
            if level < levels:
                kept[row, level, lane] = window[position]
                positions[row, level, lane] = position
    return kept, positions, counts
