"""From the selection of the layer before to the pages of keys that a candidate layer scores.

The query rows of a request fall into groups of neighbours, at fixed positions of the request, so
that the way a prompt is cut into chunks moves no group. A group's candidates are the pages that its
rows selected most often in the layer before, with the first page and the last pages, to which the
group's own belong. They are listed in ascending order: the keys of the list, one after the other,
are in order of position, and a row sees those before it and itself, a prefix of the list.

A row never scores a key behind it. Which earlier pages it scores depends on the other rows of its
group, later ones too, as far as they are in the same pass.

# T = rows of one request in this pass, K = index_topk, G = groups, P = pages of a list
"""

from __future__ import annotations

import torch

from sglang_ic.candidates.switch import GROUP_ROWS, LAST_PAGES, PAGE_TOKENS


def row_groups(first_position: int, num_rows: int) -> list[tuple[int, int]]:
    """[G] half-open ranges of rows, cut where the position is a multiple of GROUP_ROWS."""
    end_position = first_position + num_rows
    cuts = range(first_position // GROUP_ROWS * GROUP_ROWS + GROUP_ROWS, end_position, GROUP_ROWS)
    bounds = [0, *(cut - first_position for cut in cuts), num_rows]
    return list(zip(bounds, bounds[1:], strict=False))


def num_covered(first_position: int, num_rows: int, num_pages: int) -> int:
    """Leading rows whose groups see at most `num_pages` pages: all their keys are candidates."""
    groups = row_groups(first_position, num_rows)
    return max((e for _, e in groups if first_position + e <= num_pages * PAGE_TOKENS), default=0)


def group_of_rows(first_position: int, num_rows: int, device: torch.device) -> torch.Tensor:
    """[T] int64, index of each row's group."""
    positions = torch.arange(first_position, first_position + num_rows, device=device)
    return positions // GROUP_ROWS - first_position // GROUP_ROWS


def count_selected(selected: torch.Tensor, first_position: int) -> torch.Tensor:
    """How often the rows of each group selected a token of each page.

    Args:
        selected: [T, K] integer, positions that the layer before selected; negative where unused.
        first_position: position of row 0 in its request.
    Returns:
        [G, pages of the request up to the last row] int32.
    """
    num_rows, device = len(selected), selected.device
    num_pages = -(-(first_position + num_rows) // PAGE_TOKENS)
    num_groups = len(row_groups(first_position, num_rows))
    group = group_of_rows(first_position, num_rows, device).unsqueeze(1)
    # The column behind the last page takes what is unused.
    page = torch.where(selected < 0, num_pages, selected // PAGE_TOKENS)
    page = (page + group * (num_pages + 1)).flatten()
    counts = torch.zeros(num_groups * (num_pages + 1), dtype=torch.int32, device=device)
    one = torch.ones((), dtype=torch.int32, device=device)
    counts.scatter_add_(0, page, one.expand(page.numel()))
    return counts.view(num_groups, num_pages + 1)[:, :num_pages]


def choose_pages(
    counts: torch.Tensor, first_position: int, num_rows: int, num_pages: int
) -> torch.Tensor:
    """The candidate pages of each group; of pages with equal counts the lower one is taken first.

    Args:
        counts: [G, N] integer, from `count_selected`.
        first_position, num_rows: of the rows that were counted.
        num_pages: length of a list, at least 1 + LAST_PAGES.
    Returns:
        [G, P] int64, ascending; P is `num_pages`, or N if that is less. A group that sees fewer
        than P pages has some behind it at the end, which the window of no row reaches.
    """
    num_groups, num_known = counts.shape
    first_group = first_position // GROUP_ROWS
    groups = torch.arange(first_group, first_group + num_groups, device=counts.device)
    ends = ((groups + 1) * GROUP_ROWS).clamp(max=first_position + num_rows)
    visible = (ends + PAGE_TOKENS - 1).unsqueeze(1) // PAGE_TOKENS
    number = torch.arange(num_known, device=counts.device)
    always = (number == 0) | (number >= visible - LAST_PAGES)
    votes = torch.where(always, 1 << 32, counts.long())
    votes = torch.where(number >= visible, -1, votes)
    # No two keys are equal, so the order does not depend on how they are sorted.
    keys = votes * num_known + (num_known - 1 - number)
    best = keys.topk(min(num_pages, num_known), dim=1).indices
    return best.sort(dim=1).values


def windows(pages: torch.Tensor, first_position: int, num_rows: int) -> torch.Tensor:
    """How many keys of its group's list each row sees, itself the last of them.

    Args:
        pages: [G, P] int64, from `choose_pages`.
    Returns:
        [T] int32.
    """
    device = pages.device
    positions = torch.arange(first_position, first_position + num_rows, device=device)
    group = group_of_rows(first_position, num_rows, device)
    # A group's own pages are in its list one after the other.
    first_group = first_position // GROUP_ROWS
    begins = torch.arange(first_group, first_group + len(pages), device=device) * GROUP_ROWS
    own = begins.clamp(min=first_position) // PAGE_TOKENS
    skipped = own - (pages < own.unsqueeze(1)).sum(dim=1)
    return (positions + 1 - skipped[group] * PAGE_TOKENS).int()


def look_up(places: torch.Tensor, pages: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Tokens at places of a list: place p is token p % PAGE_TOKENS of page p // PAGE_TOKENS.

    Args:
        places: [T, K] int32, keys counted along the list of the row's group; -1 pads.
        pages: [G, P] integer, numbers of the pages in whatever the tokens are counted in.
        groups: [T] int64.
    Returns:
        [T, K] int32, -1 where places are.
    """
    at = places.clamp(min=0).long()
    page = pages.flatten()[at // PAGE_TOKENS + (groups * pages.shape[1]).unsqueeze(1)]
    return torch.where(places < 0, -1, page * PAGE_TOKENS + at % PAGE_TOKENS).int()
