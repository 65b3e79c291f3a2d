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
def kth_largest(key, valid, rank):
    """A key that exactly `rank` of the valid keys reach; if equal keys leave none, the largest that
    more of them reach.

    Bisects the keys' range bit by bit, each time counting all of them. Among thousands of different
    scores about half of the bits are enough to tell two neighbours apart.
    """
    key = tl.where(valid, key, 0)
    lowest = tl.min(tl.where(valid, key, 0xFFFFFFFF), 0)
    # From the range's highest bit; no valid key has none.
    highest = tl.max(key, 0)
    span = highest - tl.minimum(lowest, highest)
    bit = tl.full((), 0x80000000, tl.uint32)
    while bit > span:
        bit = bit >> 1
    found = lowest
    reached = tl.sum(valid.to(tl.int32), 0)
    while (bit > 0) & (reached != rank):
        trial = found + bit
        count = tl.sum((key >= trial).to(tl.int32), 0)
        # A sum that wraps is beyond the range.
        enough = (count >= rank) & (trial > found)
        found = tl.where(enough, trial, found)
        reached = tl.where(enough, count, reached)
        bit = bit >> 1
    return found
