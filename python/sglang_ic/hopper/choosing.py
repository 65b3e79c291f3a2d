"""The exact choice: a row's top-k among the scores that were kept of it, or in the row itself.

Equal scores at the last place: lowest position. The order of what is written follows from that of
what is read.

# R = rows (query tokens), LANES x LEVELS = lists of what is kept of a row, and places in a list
"""

import triton
import triton.language as tl

from sglang_ic.hopper.ordering import kth_largest, near_kth_largest, number, ordered


@triton.jit
def choose_kept_kernel(
    scores,  # [R, LEVELS, LANES] float32, from keep_kernel
    positions,  # [R, LEVELS, LANES] int32, in the window
    counts,  # [R, LANES] int32
    bounds,  # [R] float32
    starts,  # [R] int32
    ends,  # [R] int32
    page_table,  # [B, L] int32: slot of each position; not read without HAS_TABLE
    table_stride,
    requests,  # [R] int32, row of the page table
    selected,  # [R, TOPK] int32 out: slots (or positions); -1 pads on the right
    selected_stride,
    failed,  # [R] int32 out: 1 where the count proves nothing, and nothing is selected
    TOPK: tl.constexpr,
    TOPK_POWER: tl.constexpr,
    LANES: tl.constexpr,
    LEVELS: tl.constexpr,
    BLOCK: tl.constexpr,
    HAS_TABLE: tl.constexpr,
):
    """Find the exact top-k of each row among what was kept, if that is sure to hold it.

    Loads are of whole levels, up to the last in use, so they can be of four numbers at once. Only
    the scores stay in registers, and only until the last of the top-k is known: four rows share a
    multiprocessor.
    """
    row = tl.program_id(0).to(tl.int64)
    wanted = tl.minimum(tl.load(ends + row) - tl.load(starts + row), TOPK)
    counts += row * LANES
    count = tl.load(counts + tl.arange(0, LANES))
    out = selected + row * selected_stride
    lane = tl.arange(0, TOPK_POWER)
    tl.store(out + lane, -1, mask=(lane >= wanted) & (lane < TOPK))
    proven = (tl.sum(count, 0) >= wanted) & (tl.max(count, 0) <= LEVELS)
    tl.store(failed + row, (~proven).to(tl.int32))
    if proven & (wanted > 0):
        table = page_table
        if HAS_TABLE:
            table += tl.load(requests + row).to(tl.int64) * table_stride
        scores += row * (LEVELS * LANES)
        positions += row * (LEVELS * LANES)
        used = tl.max(count, 0) * LANES
        at = tl.arange(0, LEVELS * LANES)
        valid = at // LANES < tl.load(counts + at % LANES)
        score = tl.load(scores + at, mask=at < used, other=0.0)
        score = number(tl.where(valid, score, -float("inf")))
        last, reached = near_kth_largest(score, tl.load(bounds + row), wanted, 0)
        tied = reached != wanted
        last_key = tl.full((), 0, tl.uint32)
        last_turned = tl.full((), 0, tl.uint32)
        if tied:
            # Equal scores, or no numbers. All is read again: kept in registers for this, it would
            # cost every row.
            score = tl.load(scores + at, mask=at < used, other=0.0)
            key = ordered(tl.where(valid, score, float("nan")))
            last_key = kth_largest(key, wanted)
            # The lowest positions have the largest complements; what is above is above those.
            position = tl.load(positions + at, mask=at < used, other=0)
            key = tl.where(
                key > last_key, 0xFFFFFFFF, tl.where(key == last_key, _turned(position), 0)
            )
            last_turned = kth_largest(tl.where(valid, key, 0).to(tl.uint32), wanted)
        _write_chosen(
            out,
            table,
            scores,
            positions,
            counts,
            used,
            last,
            tied,
            last_key,
            last_turned,
            LANES,
            BLOCK,
            HAS_TABLE,
        )


@triton.jit
def _turned(position):
    return (0x7FFFFFFF - position).to(tl.uint32)


@triton.jit
def _write_chosen(
    out,
    table,
    scores,
    positions,
    counts,
    used,
    last,  # the lowest score that is taken
    tied,  # scores are equal at the last place: then it is the lowest of `last_key`, `last_turned`
    last_key,
    last_turned,
    LANES: tl.constexpr,
    BLOCK: tl.constexpr,
    HAS_TABLE: tl.constexpr,
):
    """Write what is taken of a row's lists, in the order in which they lie in memory."""
    lane = tl.arange(0, BLOCK)
    count = tl.load(counts + lane % LANES)
    done = tl.full((), 0, tl.int32)
    for begin in range(0, used, BLOCK):
        at = begin + lane
        score = tl.load(scores + at, mask=at < used, other=0.0)
        position = tl.load(positions + at, mask=at < used, other=0)
        taken = number(score) >= last
        if tied:
            key = ordered(score)
            equal = (key == last_key) & (_turned(position) >= last_turned)
            taken = (key > last_key) | equal
        taken &= at // LANES < count
        place = done + tl.cumsum(taken.to(tl.int32), 0) - 1
        done += tl.sum(taken.to(tl.int32), 0)
        if HAS_TABLE:
            position = tl.load(table + position, mask=taken, other=0)
        tl.store(out + place, position, mask=taken)


@triton.jit
def choose_in_row(out, table, first, length, wanted, BLOCK: tl.constexpr, HAS_TABLE: tl.constexpr):
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
            key = ordered(tl.load(first + offset + lane, mask=inside, other=0.0))
            hits = inside[:, None] & (key[:, None] >= trials[None, :])
            reached += tl.sum(hits.to(tl.int32), 0)
        # Fewer keys reach a higher digit, and all that are left reach digit 0.
        largest = tl.sum((reached >= wanted).to(tl.int32), 0) - 1
        last = last | (largest.to(tl.uint32) * weight)
        weight = weight >> 4

    room = wanted
    for offset in range(0, length, BLOCK):
        inside = offset + lane < length
        key = ordered(tl.load(first + offset + lane, mask=inside, other=0.0))
        room -= tl.sum((inside & (key > last)).to(tl.int32), 0)
    done = tl.full((), 0, tl.int32)
    for offset in range(0, length, BLOCK):
        inside = offset + lane < length
        key = ordered(tl.load(first + offset + lane, mask=inside, other=0.0))
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
