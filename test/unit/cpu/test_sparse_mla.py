"""Sparse attention over the latent cache against a dense masked float64 reference."""

import pytest
import torch

from sglang_ic.cpu import kernels


def reference(q, latent, slots, positions, scaling, value_dim):
    keys = latent[slots].double()
    visible = torch.zeros(q.shape[0], len(slots), dtype=torch.bool)
    for row, chosen in enumerate(positions):
        visible[row, chosen[chosen >= 0].long()] = True
    scores = torch.einsum("thd,sd->ths", q.double(), keys) * scaling
    scores = scores.masked_fill(~visible.unsqueeze(1), float("-inf"))
    shares = torch.softmax(scores, -1).nan_to_num(0.0)
    return torch.einsum("ths,sv->thv", shares, keys[:, :value_dim])


def case(num_rows, num_keys, k, seed, heads=4, dim=48, dtype=torch.float32):
    """Queries, a cache with the request's slots scattered over it, and selections of any length."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(num_rows, heads, dim, generator=generator)
    latent = torch.randn(2 * num_keys + 3, dim, generator=generator).to(dtype)
    slots = torch.randperm(2 * num_keys + 3, generator=generator)[:num_keys]
    positions = torch.full((num_rows, k), -1, dtype=torch.int32)
    for row in range(num_rows):
        count = int(torch.randint(0, min(k, num_keys) + 1, (1,), generator=generator))
        chosen = torch.randperm(num_keys, generator=generator)[:count].sort().values
        positions[row, :count] = chosen.int()
    return q, latent, slots, positions


@pytest.mark.parametrize(
    ("num_rows", "num_keys", "k"), [(1, 1, 8), (1, 300, 32), (37, 37, 32), (50, 500, 16), (0, 5, 8)]
)
@pytest.mark.parametrize("block_bytes", [1, 1 << 14, 1 << 30])
def test_attends_to_the_selected_tokens_only(num_rows, num_keys, k, block_bytes, monkeypatch):
    monkeypatch.setattr(kernels, "GATHER_BLOCK_BYTES", block_bytes)
    q, latent, slots, positions = case(num_rows, num_keys, k, seed=num_rows + num_keys)
    out = torch.full((num_rows, 4, 32), float("nan"))
    kernels.sparse_mla(q, latent, slots, positions, 0.1, out)
    expected = reference(q, latent, slots, positions, 0.1, 32)
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-5)


def test_a_full_selection_needs_no_mask():
    q, latent, slots, _ = case(6, 40, 8, seed=3)
    positions = torch.stack([torch.randperm(40)[:8] for _ in range(6)]).int()
    out = torch.empty(6, 4, 32)
    kernels.sparse_mla(q, latent, slots, positions, 0.1, out)
    expected = reference(q, latent, slots, positions, 0.1, 32)
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-5)


def test_a_row_without_selection_is_zero():
    q, latent, slots, positions = case(3, 20, 8, seed=4)
    positions[1] = -1
    out = torch.full((3, 4, 32), float("nan"))
    kernels.sparse_mla(q, latent, slots, positions, 0.1, out)
    assert out[1].abs().max() == 0
    assert not out.isnan().any()


def test_bfloat16_cache_and_queries_are_read_as_they_are():
    q, latent, slots, positions = case(9, 60, 16, seed=5, dtype=torch.bfloat16)
    q = q.bfloat16()
    out = torch.empty(9, 4, 32, dtype=torch.bfloat16)
    kernels.sparse_mla(q, latent, slots, positions, 0.1, out)
    expected = reference(q, latent, slots, positions, 0.1, 32)
    torch.testing.assert_close(out.double(), expected, atol=1e-2, rtol=1e-2)
