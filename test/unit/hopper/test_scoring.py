"""Our scores against float64, in Triton's interpreter."""

import pytest
import torch


def inputs(num_rows, num_heads, num_keys, seed=0):
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(num_rows, num_heads, 128, generator=generator).to(torch.float8_e4m3fn)
    k = torch.randn(num_keys, 128, generator=generator).to(torch.float8_e4m3fn)
    k_scale = torch.rand(num_keys, generator=generator)
    weights = torch.randn(num_rows, num_heads, generator=generator)
    return q, k, k_scale, weights


def in_float64(q, k, k_scale, weights):
    products = torch.einsum("rhd,nd->rhn", q.double(), k.double()).clamp(min=0)
    return (products * weights.double()[:, :, None]).sum(1) * k_scale.double()


@pytest.mark.parametrize("num_heads, block_q, block_k", [(32, 2, 32), (8, 4, 64), (64, 1, 16)])
def test_windows_of_two_requests(interpreted, num_heads, block_q, block_k):
    """Blocks of rows that lie in one request, straddle two, and end in the middle."""
    starts = torch.tensor([0, 0, 0, 41, 41, 41, 41], dtype=torch.int32)
    ends = torch.tensor([39, 40, 41, 98, 99, 100, 101], dtype=torch.int32)
    q, k, k_scale, weights = inputs(7, num_heads, 101)
    sizes = {"block_q": block_q, "block_k": block_k}
    scores = interpreted("score", q, k, k_scale, weights, starts, ends, **sizes)
    assert scores.shape == (7, 101) and scores.stride(0) == 256
    expected = in_float64(q, k, k_scale, weights)
    for row in range(7):
        window = slice(starts[row], ends[row])
        error = (scores[row, window] - expected[row, window]).norm()
        assert error / expected[row, window].norm() < 1e-5


def test_every_product_counts_as_with_a_maximum(interpreted):
    """Exactly, for zeros of both signs, and weights near the ends of float32."""
    values = torch.tensor([0.0, -0.0, 1.0, -1.0, 448.0, -448.0, 2.0**-9, -(2.0**-9), 0.4375, -1.75])
    weights = torch.tensor([1.0, -1.0, 1 / 3, 3e38 / 448**2, 2.0**-125, 1.1e-38, -0.7, 5.0])
    q = torch.zeros(len(weights) * len(values), 8, 128)
    q[:, 0, 7] = values.repeat(len(weights))
    k = torch.zeros(len(values), 128)
    k[:, 7] = values
    weights = torch.nn.functional.pad(weights.repeat_interleave(len(values))[:, None], (0, 7))
    starts = torch.zeros(len(q), dtype=torch.int32)
    fp8 = [x.to(torch.float8_e4m3fn) for x in (q, k)]
    scores = interpreted(
        "score",
        *fp8,
        torch.ones(len(k)),
        weights,
        starts,
        starts + len(k),
        block_q=4,
        block_k=16,
    )
    expected = (q[:, 0, 7, None] * k[:, 7]).clamp(min=0) * weights[:, :1]
    assert torch.equal(scores, expected)


def test_no_rows(interpreted):
    q, k, k_scale, weights = inputs(0, 32, 10)
    empty = torch.empty(0, dtype=torch.int32)
    assert interpreted("score", q, k, k_scale, weights, empty, empty).shape == (0, 10)
