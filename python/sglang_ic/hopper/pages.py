"""Kernels of candidate layers: one reading of the selection before, one writing of their own.

`count_selected` and `look_up` of `sglang_ic.candidates.pages` do the same in plain torch, with a
dozen passes over [rows, index_topk] in 64 bits. Here indices may also be slots of the KV pool.

# R = rows of one request, K = index_topk, G = groups, N = pages of the request, P = pages of a list
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from sglang_ic.candidates.switch import PAGE_TOKENS


@triton.jit
def count_kernel(
    selected,  # [R, K] int32; negative where unused
    selected_stride,
    groups,  # [R] int32
    page_of,  # [pages of the pool] int32, page in the request or -1; read with HAS_TABLE
    counts,  # [G, N] int32, zeros in, counts out
    num_pages,
    base,  # of the request, in what the indices are counted in; taken off without HAS_TABLE
    K: tl.constexpr,
    BLOCK: tl.constexpr,
    PAGE: tl.constexpr,
    HAS_TABLE: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    lane = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    index = tl.load(selected + row * selected_stride + lane, mask=lane < K, other=-1)
    used = index >= 0
    if HAS_TABLE:
        page = tl.load(page_of + index // PAGE, mask=used, other=-1)
    else:
        page = (index - base) // PAGE
    used = used & (page >= 0) & (page < num_pages)
    group = tl.load(groups + row)
    tl.atomic_add(counts + group * num_pages + page, 1, mask=used)


@triton.jit
def look_up_kernel(
    places,  # [R, K] int32, places in the group's list in, tokens out; -1 pads
    place_stride,
    pages,  # [G, P] int32
    groups,  # [R] int32
    num_pages,
    base,  # added to every token
    K: tl.constexpr,
    BLOCK: tl.constexpr,
    PAGE: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    lane = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    at = places + row * place_stride + lane
    place = tl.load(at, mask=lane < K, other=-1)
    used = place >= 0
    page = tl.load(pages + tl.load(groups + row) * num_pages + place // PAGE, mask=used, other=0)
    tl.store(at, page * PAGE + place % PAGE + base, mask=used)


def count_selected(
    selected: torch.Tensor,
    groups: torch.Tensor,
    num_groups: int,
    num_pages: int,
    *,
    page_of: torch.Tensor | None = None,
    base: int = 0,
) -> torch.Tensor:
    """How often the rows of each group selected a token of each page.

    Args:
        selected: [R, K] int32, negative where unused.
        groups: [R] int32, group of each row.
        page_of: [pages of the pool] int32, page in the request of each page of the pool, -1 if it
            has none; given when indices are slots.
        base: index of the request's position 0 when they are not.
    Returns:
        [G, N] int32; indices outside the N pages are not counted.
    """
    num_rows, topk = selected.shape
    assert len(groups) == num_rows and selected.stride(1) == 1
    counts = torch.zeros((num_groups, num_pages), dtype=torch.int32, device=selected.device)
    if num_rows:
        block = min(1024, triton.next_power_of_2(topk))
        count_kernel[(num_rows, triton.cdiv(topk, block))](
            selected,
            selected.stride(0),
            groups,
            groups if page_of is None else page_of,
            counts,
            num_pages,
            base,
            K=topk,
            BLOCK=block,
            PAGE=PAGE_TOKENS,
            HAS_TABLE=page_of is not None,
        )
    return counts


def look_up_(
    places: torch.Tensor, pages: torch.Tensor, groups: torch.Tensor, *, base: int = 0
) -> torch.Tensor:
    """Replace places in a list of pages by tokens, in place.

    Args:
        places: [R, K] int32, keys counted along the list of the row's group; -1 pads.
        pages: [G, P] int32, contiguous.
        groups: [R] int32.
        base: added to every token.
    Returns:
        `places`.
    """
    num_rows, topk = places.shape
    assert len(groups) == num_rows and places.stride(1) == 1 and pages.is_contiguous()
    if num_rows:
        block = min(1024, triton.next_power_of_2(topk))
        look_up_kernel[(num_rows, triton.cdiv(topk, block))](
            places,
            places.stride(0),
            pages,
            groups,
            pages.shape[1],
            base,
            K=topk,
            BLOCK=block,
            PAGE=PAGE_TOKENS,
        )
    return places
