"""A bound for each row before it is scored, from the scores of a few keys.

One key of every STEP is scored, wherever it lies in its STEP, so each part of a window is drawn in
proportion. Of the sampled scores the rank that stands for `aim` keys is the bound, or one up to a
sixteenth below, which spares a third of the counts: too low a bound costs little, one too high a
rescue. With 112 samples above it, what it lets through is `aim` within 10% (one standard
deviation), and 3% more, at any length.

# R = query rows, H = heads, D = head dim, N = keys of all requests, S = samples
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from sglang_ic.hopper.ordering import near_kth_largest, number
from sglang_ic.hopper.scoring import score


@triton.jit
def _sampled(sample, STEP: tl.constexpr):
    """Which key of its STEP a sample is: always the same, without a period that keys could have."""
    return sample * STEP + ((sample.to(tl.uint32) * 0x9E3779B1) >> 16).to(tl.int32) % STEP


@triton.jit
def gather_kernel(
    k,  # [N, D] uint8
    k_scale,  # [N] float32
    sampled_k,  # [S, D] uint8 out
    sampled_scale,  # [S] float32 out
    num_keys,
    num_samples,
    D: tl.constexpr,
    STEP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Bring the sampled keys together."""
    sample = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    key = _sampled(sample, STEP)
    exists = (key < num_keys) & (sample < num_samples)
    dim = tl.arange(0, D)[None, :]
    at = key.to(tl.int64)[:, None] * D + dim
    value = tl.load(k + at, mask=exists[:, None], other=0)
    to = sample.to(tl.int64)[:, None] * D + dim
    tl.store(sampled_k + to, value, mask=(sample < num_samples)[:, None])
    scale = tl.load(k_scale + key, mask=exists, other=0.0)
    tl.store(sampled_scale + sample, scale, mask=sample < num_samples)


@triton.jit
def bound_kernel(
    samples,  # [R, S] float32, scores of the sampled keys
    sample_stride,
    starts,  # [R] int32
    ends,  # [R] int32
    bounds,  # [R] float32 out; -inf for windows that are kept whole
    AIM: tl.constexpr,
    CAPACITY: tl.constexpr,
    STEP: tl.constexpr,
    SAMPLES: tl.constexpr,
):
    """The score that about AIM keys of the row reach, by the samples in its window."""
    row = tl.program_id(0).to(tl.int64)
    start = tl.load(starts + row)
    end = tl.load(ends + row)
    # Samples ascend as their keys do, so those in the window are neighbours.
    first = start // STEP
    first += (_sampled(first, STEP) < start).to(tl.int32)
    last = (end - 1) // STEP
    num_drawn = last + (_sampled(last, STEP) < end).to(tl.int32) - first
    draw = tl.arange(0, SAMPLES)
    samples += row * sample_stride + first
    drawn = tl.load(samples + draw, mask=draw < num_drawn, other=-float("inf"))
    rank = tl.maximum(AIM * num_drawn // tl.maximum(end - start, 1), 1)
    bound, _ = near_kth_largest(number(drawn), -float("inf"), rank, rank // 16)
    tl.store(bounds + row, tl.where(end - start <= CAPACITY, -float("inf"), bound))


def _bound_warps(num_samples: int) -> int:
    return 1 if num_samples <= 4096 else min(num_samples // 2048, 16)


def gather_samples(
    k: torch.Tensor, k_scale: torch.Tensor, step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """One key of every `step`, and its scale.

    Args:
        k: [N, D] float8_e4m3fn; k_scale: [N] float32.
        step: a power of two.
    Returns:
        [S, D] float8_e4m3fn and [S] float32, S = ceil(N / step); a last key beyond N is zeros.
    """
    num_samples = triton.cdiv(len(k), step)
    sampled_k = torch.empty((num_samples, k.shape[1]), dtype=torch.uint8, device=k.device)
    sampled_scale = k_scale.new_empty(num_samples)
    if num_samples:
        gather_kernel[(triton.cdiv(num_samples, 64),)](
            k.view(torch.uint8),
            k_scale,
            sampled_k,
            sampled_scale,
            len(k),
            num_samples,
            D=k.shape[1],
            STEP=step,
            BLOCK=64,
        )
    return sampled_k.view(k.dtype), sampled_scale


def sample_bounds(
    q: torch.Tensor,
    samples: tuple[torch.Tensor, torch.Tensor],
    weights: torch.Tensor,
    starts: torch.Tensor,
    ends: torch.Tensor,
    *,
    step: int,
    aim: int,
    capacity: int,
) -> torch.Tensor:
    """A score for each row that about `aim` keys of its window reach.

    Args:
        q: [R, H, D] float8_e4m3fn; weights: [R, H] float32.
        samples: what `gather_samples` returns.
        starts, ends: [R] int32, the row's window of keys.
        capacity: windows of up to so many keys have no bound; not less than `aim`.
    Returns:
        [R] float32; -inf for no bound.
    """
    bounds = q.new_empty(len(q), dtype=torch.float32)
    scores = score(q, *samples, weights, starts // step, (ends + step - 1) // step)
    if len(q):
        num_samples = triton.next_power_of_2(max(len(samples[1]), 1))
        bound_kernel[(len(q),)](
            scores,
            scores.stride(0),
            starts,
            ends,
            bounds,
            AIM=aim,
            CAPACITY=capacity,
            STEP=step,
            SAMPLES=num_samples,
            # Few, because warps wait for one another at each count; registers hold the samples.
            num_warps=_bound_warps(num_samples),
        )
    return bounds
