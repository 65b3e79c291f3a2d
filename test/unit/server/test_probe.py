"""The probe's arithmetic against a dense float64 computation."""

import torch

from sglang_ic.server import probe


def test_mean_attention_is_the_softmax_over_all_tokens_before_a_query(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, 2, 5, generator=generator)
    latent = torch.randn(7, 5, generator=generator)
    seen = torch.tensor([1, 4, 7])
    monkeypatch.setattr(probe, "SCORE_BLOCK_BYTES", 2 * 7 * 4)  # one row at a time
    found = probe.mean_attention(query, latent, seen, 0.3)
    for row, count in enumerate(seen.tolist()):
        scores = query[row].double() @ latent[:count].double().T * 0.3
        expected = torch.zeros(7, dtype=torch.float64)
        expected[:count] = scores.softmax(1).mean(0)
        torch.testing.assert_close(found[row].double(), expected, atol=1e-6, rtol=0)


def test_mass_counts_selected_positions_only():
    shares = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    chosen = torch.tensor([[0, 2, -1], [-1, -1, -1]])
    torch.testing.assert_close(probe.mass_in(shares, chosen), torch.tensor([0.7, 0.0]))
