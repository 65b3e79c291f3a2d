"""The exact choice: a row's top-k among the scores that were kept of it, or in the row itself.

Equal scores at the last place: lowest position. The order of what is written follows from that of
what is read.

# R = rows, C = columns; A x B = what is kept of a row, as it lies in memory
"""

import triton
import triton.language as tl

from sglang_ic.hopper.ordering import kth_largest, near_kth_largest, number, ordered


@triton.jit
def _places(taken, A: tl.constexpr, B: tl.constexpr):
    """[A, B] int32: how many are taken before each, in an order of runs of 32 columns.

    A warp holds a run, so neighbours write to neighbours. Four rows are summed in one number.
    """
    RUN: tl.constexpr = 32 if B > 32 else B
    shift = (tl.arange(0, 4) * 8)[:, None, None]
    taken = taken.to(tl.int32)
    several = tl.reshape(taken, (4, A // 4, B // RUN, RUN)) << shift[:, :, :, None]
    packed = tl.sum(several, 0)
    totals = (tl.sum(packed, 2)[None, :, :] >> shift) & 0xFF
    totals = tl.reshape(totals, (A * (B // RUN),))
    before = tl.reshape(tl.cumsum(totals, 0) - totals, (4, A // 4, B // RUN, 1))
    within = (tl.cumsum(packed, 2)[None, :, :, :] >> shift[:, :, :, None]) & 0xFF
    return tl.reshape(before + within, (A, B)) - taken


@triton.jit
def choose_among_kept(
    out,
    table,
    scores,  # [A, B] pointers to float32
    positions,  # [A, B] pointers to int32
    level,  # [A, B] int32: place in its list
    counts,  # [A, B] pointers to int32: how many its list holds
    lowest,  # float32: no score but -inf is below; -inf if that is not known
    wanted,
    A: tl.constexpr,
    B: tl.constexpr,
    HAS_TABLE: tl.constexpr,
):
    """Write the top-k of what was kept: the whole top-k is in it. It is one key at least."""
    score = tl.load(scores, mask=level < tl.load(counts), other=-float("inf"))
    score = number(score)
    last, reached = near_kth_largest(score, lowest, wanted, 0)
    if reached != wanted:
        # Equal scores, or no numbers. All is read again: kept in registers for this, it would
        # cost every row.
        valid = level < tl.load(counts)
        key = ordered(tl.load(scores, mask=valid, other=float("nan")))
        kth = kth_largest(key, wanted)
        # The lowest positions have the largest complements; what is above is above those.
        turned = 0x7FFFFFFF - tl.load(positions, mask=valid, other=0x7FFFFFFF)
        key = tl.where(key > kth, 0xFFFFFFFF, tl.where(key == kth, turned.to(tl.uint32), 0))
        score = (key >= kth_largest(key, wanted)).to(tl.float32)
        last = tl.full((), 1.0, tl.float32)
    taken = score >= last
    place = _places(taken, A, B)
    # From here on -1 stands for what is not taken: dozens of predicates would not last.
    position = tl.load(positions, mask=taken, other=-1)
    if HAS_TABLE:
        position = tl.load(table + position, mask=position >= 0, other=-1)
    tl.store(out + place, position, mask=position >= 0)


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
    proven = (tl.sum(count, 0) >= wanted) & (tl.max(count, 0) <= LEVELS)
    if proven & (wanted > 0):
        lists = tl.arange(0, LANES)[None, :]
        level = tl.arange(0, LEVELS)[:, None]
        at = level * LANES + lists
        kept += row * (LEVELS * LANES)
        positions += row * (LEVELS * LANES)
        choose_among_kept(
            out,
            table,
            kept + at,
            positions + at,
            level,
            counts + row * LANES + lists,
            -float("inf"),
            wanted,
            LEVELS,
            LANES,
            HAS_TABLE,
        )
    else:
        first = scores + row * score_stride + tl.load(starts + row)
        choose_in_row(out, table, first, length, wanted, BLOCK, HAS_TABLE)
