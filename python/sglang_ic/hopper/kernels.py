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

# R = rows, C = columns; keys are uint32 that sort as the float32 scores do, 0 for NaN
"""

import triton
import triton.language as tl


@triton.jit
def _ordered(score):
    """Keys that sort as scores: -0 equals +0, NaN is 0, below -inf."""
    score = tl.where(score == 0.0, 0.0, score)
    bits = score.to(tl.uint32, bitcast=True)
    key = tl.where((bits >> 31) == 1, bits ^ 0xFFFFFFFF, bits | 0x80000000)
    return tl.where(score != score, 0, key).to(tl.uint32)


@triton.jit
def _score_of(key):
    """The score with this key; NaN for 0."""
    bits = tl.where((key >> 31) == 1, key ^ 0x80000000, key ^ 0xFFFFFFFF)
    return bits.to(tl.uint32).to(tl.float32, bitcast=True)


@triton.jit
def _kth_largest(key, valid, rank, BITS: tl.constexpr):
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
    sample = _ordered(drawn)
    rank = tl.maximum(3 * TOPK * SAMPLES // (2 * tl.maximum(length, 1)), 1)

    lane = tl.arange(0, LANES)
    whole = lane >= 0
    tile: tl.constexpr = 8 * LANES
    count = tl.zeros((LANES,), tl.int32)
    passed = tl.full((), 0, tl.int32)
    tries = tl.full((), 0, tl.int32)
    while (tries < TRIES) & ((passed < wanted) | (tl.max(count, 0) > LEVELS)):
        bound = _score_of(_kth_largest(sample, sample == sample, rank, 16))
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


@triton.jit
def _choose_among_kept(out, table, key, position, valid, wanted, HAS_TABLE: tl.constexpr):
    """Write the top-k of what was kept: the whole top-k is in it."""
    last = _kth_largest(key, valid, wanted, 32)
    above = valid & (key > last)
    equal = valid & (key == last)
    room = wanted - tl.sum(above.to(tl.int32), 0)
    if tl.sum(equal.to(tl.int32), 0) > room:
        # The lowest positions have the largest complements.
        turned = (0x7FFFFFFF - position).to(tl.uint32)
        equal = equal & (turned >= _kth_largest(turned, equal, room, 32))
    taken = above | equal
    place = tl.cumsum(taken.to(tl.int32), 0) - 1
    if HAS_TABLE:
        position = tl.load(table + position, mask=taken, other=0)
    tl.store(out + place, position, mask=taken)


@triton.jit
def _choose_in_row(out, table, first, length, wanted, BLOCK: tl.constexpr, HAS_TABLE: tl.constexpr):
    """Write the top-k of a whole row: ten passes, for a mass of equal scores at the last place."""
    lane = tl.arange(0, BLOCK)
    digits = tl.arange(0, 16).to(tl.uint32)
    last = tl.full((), 0, tl.uint32)
    weight = tl.full((), 0x10000000, tl.uint32)
    for _ in range(8):
        trials = last | (digits * weight)
        reached = tl.zeros((16,), tl.int32)
        for offset in range(0, length, BLOCK):
            inside = offset + lane < length
            key = _ordered(tl.load(first + offset + lane, mask=inside, other=0.0))
            hits = inside[:, None] & (key[:, None] >= trials[None, :])
            reached += tl.sum(hits.to(tl.int32), 0)
        # Fewer keys reach a higher digit, and all that are left reach digit 0.
        largest = tl.sum((reached >= wanted).to(tl.int32), 0) - 1
        last = last | (largest.to(tl.uint32) * weight)
        weight = weight >> 4

    room = wanted
    for offset in range(0, length, BLOCK):
        inside = offset + lane < length
        key = _ordered(tl.load(first + offset + lane, mask=inside, other=0.0))
        room -= tl.sum((inside & (key > last)).to(tl.int32), 0)
    done = tl.full((), 0, tl.int32)
    for offset in range(0, length, BLOCK):
        inside = offset + lane < length
        key = _ordered(tl.load(first + offset + lane, mask=inside, other=0.0))
        equal = inside & (key == last)
        tied = equal & (tl.cumsum(equal.to(tl.int32), 0) <= room)
        taken = tied | (inside & (key > last))
        place = done + tl.cumsum(taken.to(tl.int32), 0) - 1
        index = offset + lane
        if HAS_TABLE:
            index = tl.load(table + index, mask=taken, other=0)
        tl.store(out + place, index, mask=taken)
        room -= tl.sum(tied.to(tl.int32), 0)
        done += tl.sum(taken.to(tl.int32), 0)


@triton.jit
def choose_kernel(
    scores,  # [R, C] float32
    score_stride,
    starts,  # [R] int32
    lengths,  # [R] int32
    positions,  # [R, LEVELS, LANES] int32, from collect_kernel
    kept,  # [R, LEVELS, LANES] float32
    counts,  # [R, LANES] int32
    page_table,  # [B, L] int32: slot of each position; not read without HAS_TABLE
    table_stride,
    requests,  # [R] int32, row of the page table
    selected,  # [R, TOPK] int32 out: slots (or positions); -1 pads on the right
    selected_stride,
    TOPK: tl.constexpr,
    TOPK_POWER: tl.constexpr,
    LANES: tl.constexpr,
    LEVELS: tl.constexpr,
    BLOCK: tl.constexpr,
    HAS_TABLE: tl.constexpr,
):
    """Find the exact top-k of each row among what was kept, or in the row itself."""
    row = tl.program_id(0).to(tl.int64)
    length = tl.load(lengths + row)
    wanted = tl.minimum(length, TOPK)
    count = tl.load(counts + row * LANES + tl.arange(0, LANES))
    out = selected + row * selected_stride
    table = page_table
    if HAS_TABLE:
        table += tl.load(requests + row).to(tl.int64) * table_stride
    lane = tl.arange(0, TOPK_POWER)
    tl.store(out + lane, -1, mask=(lane >= wanted) & (lane < TOPK))
    if (tl.sum(count, 0) >= wanted) & (tl.max(count, 0) <= LEVELS):
        at = tl.arange(0, LANES * LEVELS)
        valid = at // LANES < tl.load(counts + row * LANES + at % LANES)
        lists = row * (LEVELS * LANES)
        key = _ordered(tl.load(kept + lists + at, mask=valid, other=0.0))
        position = tl.load(positions + lists + at, mask=valid, other=0)
        _choose_among_kept(out, table, key, position, valid, wanted, HAS_TABLE)
    else:
        first = scores + row * score_stride + tl.load(starts + row)
        _choose_in_row(out, table, first, length, wanted, BLOCK, HAS_TABLE)
