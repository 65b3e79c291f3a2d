"""An exact top-k over long rows in Triton, for memory-bound rows: each score is read about once.

Radix selection reads a row at least twice: once for a histogram, once to pick. Here a small sample
of the row gives a bound that about 1.5 x `topk` scores should pass; one pass keeps those that do,
and counts them. The count proves the guess: if at least `topk` passed and all of them were kept,
the whole top-k is among them, and is then found there exactly. A bound that missed is corrected by
what was counted and the row is read again; a row that defeats that too (a mass of equal scores) is
selected digit by digit over the whole row. The guess decides only speed, never the result.

Column c of a window goes to lane c % LANES, which keeps what passes in a list of its own: no lane
waits for another while the row streams by. Everything is in the order of the row, so the same
scores give the same bits; ties go to the lowest position.

# R = rows, C = columns
"""

import triton
import triton.language as tl

from sglang_ic.hopper.ordering import near_kth_largest, number


@triton.jit
def _keep(
    score,
    position,
    inside,
    bound,
    everything,
    count,
    positions,
    kept,
    LANES: tl.constexpr,
    LEVELS: tl.constexpr,
):
    """Append what passes to the lists of the lanes; returns their new lengths."""
    passes = inside & ((score >= bound) | everything)
    at = count * LANES + tl.arange(0, LANES)
    tl.store(positions + at, position, mask=passes & (count < LEVELS))
    tl.store(kept + at, score, mask=passes & (count < LEVELS))
    return count + passes.to(tl.int32)


@triton.jit
def collect_kernel(
    scores,  # [R, C] float32
    score_stride,
    starts,  # [R] int32
    lengths,  # [R] int32
    positions,  # [R, LEVELS, LANES] int32 out
    kept,  # [R, LEVELS, LANES] float32 out
    counts,  # [R, LANES] int32 out: scores that passed, also those beyond LEVELS
    TOPK: tl.constexpr,
    LANES: tl.constexpr,
    LEVELS: tl.constexpr,
    SAMPLES: tl.constexpr,
    SEGMENT: tl.constexpr,
    TRIES: tl.constexpr,
):
    """Keep the scores of each row that can be in its top-k. As below, one program per row."""
    row = tl.program_id(0).to(tl.int64)
    length = tl.load(lengths + row)
    wanted = tl.minimum(length, TOPK)
    first = scores + row * score_stride + tl.load(starts + row)
    positions += row * (LEVELS * LANES)
    kept += row * (LEVELS * LANES)
    everything = length <= LEVELS * LANES

    # Short runs spread evenly over the window; one 32-byte sector each.
    draw = tl.arange(0, SAMPLES)
    run = (draw // SEGMENT).to(tl.int64) * length // (SAMPLES // SEGMENT)
    drawn = tl.load(
        first + run + draw % SEGMENT, mask=(draw < SAMPLES) & (not everything), other=0.0
    )
    sample = number(drawn)
    rank = tl.maximum(3 * TOPK * SAMPLES // (2 * tl.maximum(length, 1)), 1)

    lane = tl.arange(0, LANES)
    whole = lane >= 0
    tile: tl.constexpr = 8 * LANES
    count = tl.zeros((LANES,), tl.int32)
    passed = tl.full((), 0, tl.int32)
    tries = tl.full((), 0, tl.int32)
    while (tries < TRIES) & ((passed < wanted) | (tl.max(count, 0) > LEVELS)):
        bound, _ = near_kth_largest(sample, -float("inf"), rank, 0)
        count = tl.zeros((LANES,), tl.int32)
        # Eight loads in flight before the first is used.
        for offset in range(0, length // tile * tile, tile):
            column = offset + lane
            s0 = tl.load(first + column)
            s1 = tl.load(first + column + LANES)
            s2 = tl.load(first + column + 2 * LANES)
            s3 = tl.load(first + column + 3 * LANES)
            s4 = tl.load(first + column + 4 * LANES)
            s5 = tl.load(first + column + 5 * LANES)
            s6 = tl.load(first + column + 6 * LANES)
            s7 = tl.load(first + column + 7 * LANES)
            count = _keep(
                s0, column, whole, bound, everything, count, positions, kept, LANES, LEVELS
            )
            column += LANES
            count = _keep(
                s1, column, whole, bound, everything, count, positions, kept, LANES, LEVELS
            )
            column += LANES
            count = _keep(
                s2, column, whole, bound, everything, count, positions, kept, LANES, LEVELS
            )
            column += LANES
            count = _keep(
                s3, column, whole, bound, everything, count, positions, kept, LANES, LEVELS
            )
            column += LANES
            count = _keep(
                s4, column, whole, bound, everything, count, positions, kept, LANES, LEVELS
            )
            column += LANES
            count = _keep(
                s5, column, whole, bound, everything, count, positions, kept, LANES, LEVELS
            )
            column += LANES
            count = _keep(
                s6, column, whole, bound, everything, count, positions, kept, LANES, LEVELS
            )
            column += LANES
            count = _keep(
                s7, column, whole, bound, everything, count, positions, kept, LANES, LEVELS
            )
        for offset in range(length // tile * tile, length, LANES):
            column = offset + lane
            inside = column < length
            score = tl.load(first + column, mask=inside, other=0.0)
            count = _keep(
                score, column, inside, bound, everything, count, positions, kept, LANES, LEVELS
            )
        passed = tl.sum(count, 0)
        # The next guess, in proportion to what this one let through.
        next_rank = rank.to(tl.int64) * (3 * TOPK) // (2 * tl.maximum(passed, 1))
        rank = tl.minimum(tl.maximum(next_rank, 1), SAMPLES).to(tl.int32)
        tries += 1
    tl.store(counts + row * LANES + lane, count)
