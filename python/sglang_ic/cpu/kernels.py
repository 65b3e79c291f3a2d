"""The two hot loops of DSA on CPU, as tensor functions that know nothing of SGLang.

    T = query tokens of one request    S = keys that the request has cached    k = index_topk
    H = heads (of the indexer, or of the attention)    D = head width    V = value width

Both loops walk the queries in row blocks small enough that what a block touches stays in cache.
All arithmetic is float32.
"""

import torch

from sglang_ic.cpu.parallel import for_each_block

SCORE_BLOCK_BYTES = 2 << 20  # per-head scores of one row block
GROUP_SIZE = 4  # scores that are compared by their maximum first
GATHER_BLOCK_BYTES = 2 << 20  # gathered latent rows of one row block


def select_topk(
    q: torch.Tensor,
    weights: torch.Tensor,
    keys: torch.Tensor,
    first_position: int,
    out: torch.Tensor,
) -> None:
    """Write each query's best keys under `sum_h weights[h] * relu(q[h] . key)`.

    A query sees the keys at its own position and before. Ties at the last place go to the lowest
    positions, so the selected set is a function of the scores alone; it is written in ascending
    order of position, so equal sets are equal rows.

    Args:
        q: [T, H, D] float32, contiguous.
        weights: [T, H] float32, every constant factor included.
        keys: [S, D] float32, in order of position; S >= first_position + T.
        first_position: position of row 0 in its request.
        out: [T, k] int32, overwritten: request-local positions; -1 pads rows that see fewer keys.
    """
    num_rows, num_heads, head_dim = q.shape
    k = out.shape[1]
    # Rows that see at most k keys select all of them: no score needed.
    num_whole = min(max(k - first_position, 0), num_rows)
    if num_whole:
        column = torch.arange(k, dtype=torch.int32)
        last = torch.arange(first_position, first_position + num_whole, dtype=torch.int32)
        out[:num_whole] = torch.where(column <= last.unsqueeze(1), column, -1)
    if num_whole == num_rows:
        return

    row_bytes = num_heads * (first_position + num_rows) * 4
    block = max(1, min(SCORE_BLOCK_BYTES // row_bytes, num_rows - num_whole))
    # future[i, j]: is the j-th key after the block's first row still unseen by the block's row i?
    future = torch.ones(block, block, dtype=torch.bool).triu_(1)

    def select(begin: int, end: int) -> None:
        rows, seen = end - begin, first_position + end
        per_head = torch.mm(q[begin:end].view(-1, head_dim), keys[:seen].t()).relu_()
        per_head = per_head.view(rows, num_heads, seen)
        scores = torch.bmm(weights[begin:end].unsqueeze(1), per_head).squeeze(1)
        if rows > 1:
            scores[:, seen - rows :].masked_fill_(future[:rows, :rows], float("-inf"))
        out[begin:end] = _best_positions(scores, k)

    # The last rows see the most keys: longest first.
    for_each_block(select, reversed(_blocks(num_whole, num_rows, block)))


def _blocks(begin: int, end: int, size: int) -> list[tuple[int, int]]:
    return [(start, min(start + size, end)) for start in range(begin, end, size)]


def _best_positions(scores: torch.Tensor, k: int) -> torch.Tensor:
    """[T, k] positions of each row's k best of `scores` [T, S > k], ascending; see select_topk."""
    bound = _kth_largest(scores, k)
    chosen = scores >= bound
    positions = chosen.nonzero()[:, 1]
    if positions.numel() != scores.shape[0] * k:
        # Some row has more scores equal to its bound than places left: lowest positions first.
        better, equal = scores > bound, scores == bound
        room = k - better.sum(dim=1, keepdim=True, dtype=torch.int32)
        chosen = better | (equal & (equal.cumsum(dim=1, dtype=torch.int32) <= room))
        positions = chosen.nonzero()[:, 1]
    return positions.view(-1, k)


def _kth_largest(scores: torch.Tensor, k: int) -> torch.Tensor:
    """[T, 1] k-th largest value of each row of `scores` [T, S].

    A row's k best lie in the k groups with the largest maxima, up to equal values, which do not
    change the k-th value. Finding those groups, then the value in them, looks at far fewer
    numbers than `torch.topk` over the row would.
    """
    num_rows, num_scores = scores.shape
    num_groups = num_scores // GROUP_SIZE
    if num_groups > k:
        groups = scores[:, : num_groups * GROUP_SIZE].view(num_rows, GROUP_SIZE, num_groups)
        best = torch.topk(groups.amax(dim=1), k, dim=1, sorted=False).indices
        inside = groups.gather(2, best.unsqueeze(1).expand(-1, GROUP_SIZE, -1))
        rest = scores[:, num_groups * GROUP_SIZE :]
        scores = torch.cat([inside.flatten(1), rest], dim=1)
    return torch.topk(scores, k, dim=1, sorted=False).values.amin(dim=1, keepdim=True)


def sparse_mla(
    q: torch.Tensor,
    latent: torch.Tensor,
    slots: torch.Tensor,
    positions: torch.Tensor,
    scaling: float,
    out: torch.Tensor,
) -> None:
    """Attend to selected tokens in the latent cache (absorbed MLA: one shared key/value head).

    Args:
        q: [T, H, D] queries, D = kv_lora_rank + rope width.
        latent: [num_slots, D] the layer's cache; the first V columns are the value.
        slots: [S] int64, cache row of each of the request's positions.
        positions: [T, k] int32 request-local positions; -1 where unused. A row without any
            position comes out as zeros.
        scaling: factor on q . key before the softmax.
        out: [T, H, V], overwritten; V = kv_lora_rank.
    """
    num_rows, num_heads, dim = q.shape
    k, value_dim = positions.shape[1], out.shape[2]
    block = max(1, min(GATHER_BLOCK_BYTES // (k * dim * 4), num_rows))

    def attend(begin: int, end: int) -> None:
        rows = end - begin
        chosen = positions[begin:end]
        has_unused = bool(chosen.min() < 0)
        used = chosen.clamp_min(0) if has_unused else chosen
        keys = latent.index_select(0, slots.index_select(0, used.view(-1)))
        keys = keys.view(rows, k, dim).float()
        scores = torch.bmm(q[begin:end].float(), keys.transpose(1, 2)).mul_(scaling)
        if has_unused:
            scores.masked_fill_((chosen < 0).unsqueeze(1), float("-inf"))
        shares = torch.softmax(scores, dim=2)
        if has_unused:
            shares.nan_to_num_(0.0)  # a row that selected nothing has no softmax
        values = keys[..., :value_dim]
        if out.dtype == torch.float32:
            torch.bmm(shares, values, out=out[begin:end])
        else:
            out[begin:end] = torch.bmm(shares, values)

    for_each_block(attend, _blocks(0, num_rows, block))
