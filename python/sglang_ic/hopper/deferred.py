"""Scores that upstream asks for and hands on unread, so that they need not be written.

Upstream's prefill calls a function for scores, looks at their shape, and gives them to top-k. What
the function returns here is the question itself; the top-k hook answers it in one pass. For a call
that the hook does not know after all, the scores get written.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class DeferredScores:
    """The arguments of `scoring.score`, in place of its result.

    Attributes:
        q: [R, H, D] float8_e4m3fn.
        k: [N, D] float8_e4m3fn; k_scale: [N] float32.
        weights: [R, H] float32.
        starts, ends: [R] int32, the row's window of keys.
    """

    q: torch.Tensor
    k: torch.Tensor
    k_scale: torch.Tensor
    weights: torch.Tensor
    starts: torch.Tensor
    ends: torch.Tensor

    @property
    def shape(self) -> torch.Size:
        """[R, N], of the scores."""
        return torch.Size((len(self.q), len(self.k)))

    def __len__(self) -> int:
        return len(self.q)

    @property
    def written(self) -> torch.Tensor:
        """[R, N] float32, as from `scoring.score`."""
        from sglang_ic.hopper.scoring import score

        return score(self.q, self.k, self.k_scale, self.weights, self.starts, self.ends)
