"""What the kernels of this package share: an order of scores, and the k-th of some, in Triton.

Keys are uint32 that sort as the float32 scores do, 0 for NaN (``reference.ordered_keys`` in torch).
"""

import triton
import triton.language as tl

_LARGEST = tl.constexpr(3.4028234663852886e38)


@triton.jit
def ordered(score):
    """Keys that sort as scores: -0 equals +0, NaN is 0, below -inf."""
    bits = (score + 0.0).to(tl.uint32, bitcast=True)  # -0 + 0 is +0
    sign = (bits.to(tl.int32, bitcast=True) >> 31).to(tl.uint32, bitcast=True)
    return tl.where(score != score, 0, bits ^ (sign | 0x80000000)).to(tl.uint32)


@triton.jit
def score_of(key):
    """The score with this key; NaN for 0."""
    bits = tl.where((key >> 31) == 1, key ^ 0x80000000, key ^ 0xFFFFFFFF)
    return bits.to(tl.uint32).to(tl.float32, bitcast=True)


@triton.jit
def kth_largest(key, rank):
    """The largest key that at least `rank` keys reach.

    Args:
        key: uint32 of any shape, not fewer than `rank`.
    """
    low = tl.full((), 0, tl.uint32)
    high = tl.max(key)
    while low < high:
        trial = high - (high - low) // 2
        enough = tl.sum((key >= trial).to(tl.int32)) >= rank
        low = tl.where(enough, trial, low)
        high = tl.where(enough, high, trial - 1)
    return low


@triton.jit
def near_kth_largest(score, lowest, rank, slack):
    """A number that at least `rank` scores reach, and how many do: `rank + slack` at most, unless
    too many are equal or infinite.

    Bisects the range of the scores' keys, each time counting all scores. Among thousands of
    different ones about half of the bits are enough to tell two neighbours apart. What is counted
    are the sign bits of differences, which no rounding changes: a subtraction and a shifted
    addition, on two different pipes, where a comparison, a selection and an addition share one.

    Args:
        score: float32 of any shape, not fewer than `rank`; neither NaN nor -0.
        lowest: at most -inf are below.
    """
    # Differences of infinities are no numbers, so finite ones are tried only.
    low = ordered(tl.where(lowest > -_LARGEST, lowest, -_LARGEST))
    high = ordered(tl.minimum(tl.max(score), _LARGEST))
    found = tl.full((), -float("inf"), tl.float32)
    reached = tl.full((), score.numel, tl.int32)
    while (low <= high) & (reached > rank + slack):
        trial = low + (high - low) // 2
        bound = score_of(trial)
        less = (score - bound).to(tl.uint32, bitcast=True) >> 31
        count = score.numel - tl.sum(less.to(tl.int32))
        enough = count >= rank
        found = tl.where(enough, bound, found)
        reached = tl.where(enough, count, reached)
        low = tl.where(enough, trial + 1, low)
        high = tl.where(enough, high, trial - 1)
    return found, reached


@triton.jit
def number(score):
    """The score without NaN, for which -inf stands, and without -0."""
    return tl.where(score > -float("inf"), score, -float("inf")) + 0.0
