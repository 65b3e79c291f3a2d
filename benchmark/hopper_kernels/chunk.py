"""The inputs of one layer and one chunk of prefill, one request, made up."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hopper_kernels.shapes import HEAD_DIM


@dataclass(frozen=True)
class Chunk:
    """R queries at the end of N keys.

    Attributes:
        q: [R, H, 128] float8_e4m3fn; keys: [N, 128] float8_e4m3fn and [N] float32 scales.
        weights: [R, H] float32.
        starts, lengths, requests: [R] int32; page_table: [1, N] int32.
    """

    q: torch.Tensor
    keys: tuple[torch.Tensor, torch.Tensor]
    weights: torch.Tensor
    starts: torch.Tensor
    lengths: torch.Tensor
    requests: torch.Tensor
    page_table: torch.Tensor

    @classmethod
    def make(cls, num_rows: int, num_keys: int, num_heads: int, device: torch.device) -> Chunk:
        first = num_keys - num_rows + 1
        lengths = torch.arange(first, num_keys + 1, dtype=torch.int32, device=device)
        zeros = torch.zeros_like(lengths)
        q = torch.randn(num_rows, num_heads, HEAD_DIM, device=device).to(torch.float8_e4m3fn)
        k = torch.randn(num_keys, HEAD_DIM, device=device).to(torch.float8_e4m3fn)
        k_scale = torch.rand(num_keys, device=device) + 0.5
        weights = torch.randn(num_rows, num_heads, device=device)
        page_table = torch.randperm(num_keys, device=device).to(torch.int32)[None]
        return cls(q, (k, k_scale), weights, zeros, lengths, zeros, page_table)

    @property
    def name(self) -> str:
        return f"prefill {len(self.q)}x{self.page_table.shape[1]}"

    @property
    def scored(self) -> tuple:
        """Arguments of a function that scores."""
        return self.q, self.keys, self.weights, self.starts, self.lengths

    @property
    def pairs(self) -> int:
        """Query-key pairs that are scored."""
        return int(self.lengths.sum())
