"""What the kernels of this package share: an order of scores, and the k-th of some, in Triton.

Keys are uint32 that sort as the float32 scores do, 0 for NaN (``reference.ordered_keys`` in torch).
"""

import triton
import triton.language as tl


@triton.jit
def ordered(score):
    """Keys that sort as scores: -0 equals +0, NaN is 0, below -inf."""
    score = tl.where(score == 0.0, 0.0, score)
    bits = score.to(tl.uint32, bitcast=True)
    key = tl.where((bits >> 31) == 1, bits ^ 0xFFFFFFFF, bits | 0x80000000)
    return tl.where(score != score, 0, key).to(tl.uint32)


@triton.jit
def score_of(key):
    """The score with this key; NaN for 0."""
    bits = tl.where((key >> 31) == 1, key ^ 0x80000000, key ^ 0xFFFFFFFF)
    return bits.to(tl.uint32).to(tl.float32, bitcast=True)


@triton.jit
def kth_largest(key, valid, rank, BITS: tl.constexpr):
    """The largest key that at least `rank` of the valid keys reach, in its upper BITS bits."""
    key = tl.where(valid, key, 0)  # reaches no trial
    found = tl.full((), 0, tl.uint32)
    bit = tl.full((), 0x80000000, tl.uint32)
    for _ in range(BITS):
        trial = found | bit
        reached = tl.sum((key >= trial).to(tl.int32), 0)
        found = tl.where(reached >= rank, trial, found)
        bit = bit >> 1
    return found
