"""The exact choice: a row's top-k among the scores that were kept of it, or in the row itself.

Equal scores at the last place: lowest position. What is written keeps the order of what is read.

# R = rows, C = columns
"""

import triton
import triton.language as tl

from sglang_ic.hopper.ordering import kth_largest, ordered


@triton.jit
def choose_among_kept(out, table, key, position, valid, wanted, HAS_TABLE: tl.constexpr):
    """Write the top-k of what was kept: the whole top-k is in it."""
    last = kth_largest(key, valid, wanted)
    above = valid & (key > last)
    equal = valid & (key == last)
    room = wanted - tl.sum(above.to(tl.int32), 0)
    if tl.sum(equal.to(tl.int32), 0) > room:
        # The lowest positions have the largest complements.
        turned = (0x7FFFFFFF - position).to(tl.uint32)
        equal = equal & (turned >= kth_largest(turned, equal, room))
    taken = above | equal
    place = tl.cumsum(taken.to(tl.int32), 0) - 1
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
        key = ordered(tl.load(kept + lists + at, mask=valid, other=0.0))
        position = tl.load(positions + lists + at, mask=valid, other=0)
        choose_among_kept(out, table, key, position, valid, wanted, HAS_TABLE)
    else:
        first = scores + row * score_stride + tl.load(starts + row)
        choose_in_row(out, table, first, length, wanted, BLOCK, HAS_TABLE)
