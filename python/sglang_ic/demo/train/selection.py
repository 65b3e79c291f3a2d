"""What the indexer chooses.

`I[t, s] = sum_j w[t, j] relu(q[t, j] . k[s])` (DeepSeek-V3.2 report, eq. 1); `scores` here.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# Query rows scored at a time: bounds memory at H * ROWS * L scores per sequence.
_CHUNK_ROWS = 1024


def scores(q: Tensor, k: Tensor, w: Tensor) -> Tensor:
    """q [B, H, R, D], k [B, L, D], w [B, H, R] -> [B, R, L] float32, no causality."""
    dots = q @ k[:, None].transpose(-1, -2)
    # Not a matmul: autocast would round the sum to bf16, and many keys would tie.
    return (F.relu(dots).float() * w[..., None]).sum(1)


@torch.no_grad()
def selection_mask(q: Tensor, k: Tensor, w: Tensor, *, topk: int) -> Tensor:
    """True at the `topk` best keys of each query, among those not after it: [B, L, L] bool."""
    batch, length = k.shape[:2]
    mask = torch.zeros(batch, length, length, dtype=torch.bool, device=k.device)
    positions = torch.arange(length, device=k.device)
    for start in range(0, length, _CHUNK_ROWS):
        rows = slice(start, min(start + _CHUNK_ROWS, length))
        seen = positions[: rows.stop] <= positions[rows, None]
        if rows.stop <= topk:
            mask[:, rows, : rows.stop] = seen
            continue
        part = scores(q[:, :, rows], k[:, : rows.stop], w[:, :, rows])
        part = part.masked_fill(~seen, -torch.inf)
        best = part.topk(topk, dim=-1).indices
        mask[:, rows, : rows.stop].scatter_(-1, best, True)
        mask[:, rows, : rows.stop] &= seen
    return mask


def random_mask(batch: int, length: int, *, topk: int, device: torch.device) -> Tensor:
    """`topk` keys drawn at random for every query, the same for all sequences: [B, L, L] bool."""
    noise = torch.rand(length, length, device=device)
    seen = torch.ones_like(noise, dtype=torch.bool).tril_()
    best = noise.masked_fill(~seen, -1).topk(min(topk, length), dim=-1).indices
    mask = torch.zeros_like(seen).scatter_(-1, best, True) & seen
    return mask.expand(batch, -1, -1)
