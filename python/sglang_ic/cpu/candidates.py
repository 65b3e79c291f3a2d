"""A candidate layer's selection on CPU: pages by `sglang_ic.candidates.pages`, then `select_topk`.

Every group of rows scores the keys of its own list of pages; places in the list become positions
again. Rows whose lists would hold every key are one call over all keys, as in a Full layer.

    T = query tokens of one request    S = keys that the request has cached    K = index_topk
"""

import torch

from sglang_ic.candidates import pages
from sglang_ic.candidates.switch import PAGE_TOKENS
from sglang_ic.cpu.kernels import select_topk


def select_among_candidates(
    q: torch.Tensor,
    weights: torch.Tensor,
    keys: torch.Tensor,
    first_position: int,
    previous: torch.Tensor,
    num_pages: int,
    out: torch.Tensor,
) -> None:
    """`select_topk` among the candidates that the selection of the layer before gives.

    Args:
        previous: [T, K] int32, request-local positions that the layer before selected; -1 pads.
        num_pages: pages of a group's list.
        q, weights, keys, first_position, out: as in `select_topk`, S = first_position + T.
    """
    num_rows = len(q)
    covered = pages.num_covered(first_position, num_rows, num_pages)
    if covered:
        rows = slice(0, covered)
        select_topk(q[rows], weights[rows], keys, first_position, out[rows])
    if covered == num_rows:
        return
    counts = pages.count_selected(previous, first_position)
    lists = pages.choose_pages(counts, first_position, num_rows, num_pages)
    windows = pages.windows(lists, first_position, num_rows)
    token = torch.arange(PAGE_TOKENS)
    for group, (begin, end) in enumerate(pages.row_groups(first_position, num_rows)):
        if end <= covered:
            continue
        rows, first, length = slice(begin, end), int(windows[begin]) - 1, int(windows[end - 1])
        listed = (lists[group].unsqueeze(1) * PAGE_TOKENS + token).flatten()[:length]
        places = torch.empty(end - begin, out.shape[1], dtype=torch.int32)
        select_topk(q[rows], weights[rows], keys[listed], first, places)
        groups = torch.full((end - begin,), group)
        out[rows] = pages.look_up(places, lists, groups)
