"""The two losses: next tokens for the model, and for the indexers what attention looks at."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sglang_ic.demo.train.data import PAD_ID
from sglang_ic.demo.train.selection import scores


def language_loss(logits: Tensor, ids: Tensor, answers: Tensor) -> dict[str, Tensor]:
    """Next-token losses: mean over all tokens, mean over answers, and top-1 accuracy on answers."""
    targets = ids[:, 1:]
    losses = F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), targets.flatten(), reduction="none"
    ).view_as(targets)
    real, asked = (targets != PAD_ID).float(), answers[:, 1:].float()
    right = (logits[:, :-1].argmax(-1) == targets).float()
    return {
        "loss": (losses * real).sum() / real.sum(),
        "answer_loss": (losses * asked).sum() / asked.sum().clamp(min=1),
        "answer_accuracy": (right * asked).sum() / asked.sum().clamp(min=1),
    }


def indexer_kl(
    q: Tensor,
    k: Tensor,
    index_q: Tensor,
    index_k: Tensor,
    w: Tensor,
    rows: Tensor,
    mask: Tensor | None,
) -> Tensor:
    """Mean over sampled rows of KL(p || softmax(I)).

    p is the attention of all heads, averaged: the head sum of the report, normalised to 1. Without
    `mask` both sides are over all earlier tokens (warm-up), else over the selected set.

    Args:
        q, k: attention queries and keys [B, H, L, D], no gradient.
        index_q, index_k, w: as in `scores`, for all rows.
        rows: [R] int64 query positions.
        mask: [B, L, L] bool or None.
    """
    length = k.shape[2]
    allowed = torch.arange(length, device=k.device) <= rows[:, None]
    allowed = allowed[None] if mask is None else mask[:, rows]
    with torch.no_grad():
        logits = (q[:, :, rows] @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
        p = logits.masked_fill(~allowed[:, None], -torch.inf).softmax(-1).mean(1)
    guess = scores(index_q[:, :, rows], index_k, w[:, :, rows])
    log_q = guess.masked_fill(~allowed, -torch.inf).log_softmax(-1)
    return F.kl_div(log_q.masked_fill(~allowed, 0.0), p, reduction="sum") / p.shape[:2].numel()
