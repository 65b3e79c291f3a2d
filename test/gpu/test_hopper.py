"""Scores and selections of sglang_ic.hopper on an NVIDIA GPU: the same sets, every time. Needs one.

Comparisons with upstream's functions need the CUDA environment; the rest needs torch and triton.
"""

import pytest
import torch
from _on_gpu import int32, random, without_waiting

from sglang_ic.hopper import fused_hooks, hooks, reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here"),
]

TOPK, WIDTH, RUNS = 2048, 30_000, 20
INF, NAN = float("inf"), float("nan")


def scores_of(kind):
    scores = random(64, WIDTH)
    if kind == "ties":
        scores = (scores * 4).round() / 4
    elif kind == "one value":
        scores.zero_()
    elif kind == "sorted":
        scores = torch.arange(WIDTH, device="cuda").float().expand(64, -1).contiguous()
        scores[::2] *= -1
    elif kind == "peaks":
        scores = scores.abs().neg_()
        scores[:, 5000:5100] = 1
    elif kind == "equal but for the end":
        scores = torch.ones(64, WIDTH, device="cuda")
        scores[:, -3000:-2900] = 2
    elif kind == "infinite and NaN":
        scores[random(64, WIDTH) > 1] = NAN
        scores[random(64, WIDTH) < -1] = -INF
        scores[:, ::5000] = INF
    elif kind == "close":  # one bin of fp16, many of fp32
        scores = 1 + scores * 1e-6
    return scores


KINDS = ["random", "ties", "one value", "sorted", "peaks", "close"]
KINDS += ["equal but for the end", "infinite and NaN"]
# Without equal scores at the last place, sets are unique.
DISTINCT = ["random", "sorted"]


def windows():
    """Unaligned, empty, shorter than topk, and just past what needs no bound."""
    starts = [row % 7 for row in range(64)]
    lengths = [WIDTH - 7] * 50 + [0, 1, TOPK - 1, TOPK, TOPK + 1, 8191, 8192, 8193, 9000, 100]
    lengths += [20_000, 20_001, 20_002, 20_003]
    return int32(starts), int32(lengths)


def request_table():
    table = torch.randperm(2 * WIDTH, device="cuda").view(2, WIDTH).to(torch.int32)
    return table, int32([row % 2 for row in range(64)])


@pytest.mark.parametrize("kind", DISTINCT)
def test_ragged_selects_the_same_sets_every_time(kind):
    pytest.importorskip("sglang.kernels.ops.attention.dsv4.topk")
    scores, (starts, lengths) = scores_of(kind), windows()
    page_table, requests = request_table()
    positions = reference.select_positions(scores, starts, lengths, TOPK).cuda()
    expected = reference.to_slots(positions, page_table, requests).sort().values
    rows = hooks.Rows(starts, lengths, requests)
    for _ in range(RUNS):
        # It writes to up to three columns before a window.
        got = hooks._ragged_slots(scores.clone(), TOPK, rows, page_table)
        assert torch.equal(got.sort().values, expected)


@pytest.mark.parametrize("kind", ["ties", "one value", "peaks", "close"])
def test_ragged_selects_the_same_scores_where_some_are_equal(kind):
    pytest.importorskip("sglang.kernels.ops.attention.dsv4.topk")
    scores = scores_of(kind)
    starts, lengths = int32([0] * 64), int32([WIDTH] * 64)
    identity = torch.arange(WIDTH, dtype=torch.int32, device="cuda")[None]
    rows = hooks.Rows(starts, lengths, starts)
    got = hooks._ragged_slots(scores.clone(), TOPK, rows, identity).long()
    assert (got.sort().values.diff() > 0).all()  # no position twice
    expected = scores.topk(TOPK).values
    assert torch.equal(scores.gather(1, got).sort(descending=True).values, expected)


@pytest.mark.parametrize("kind", DISTINCT)
def test_upstreams_older_kernel_selects_the_same_sets(kind):
    sgl_kernel = pytest.importorskip("sgl_kernel")
    scores, (starts, lengths) = scores_of(kind), windows()
    page_table, requests = request_table()
    upstream = sgl_kernel.fast_topk_transform_fused(
        score=scores,
        lengths=lengths,
        page_table_size_1=page_table[requests],
        cu_seqlens_q=int32(range(65)),
        topk=TOPK,
        row_starts=starts,
    )
    positions = reference.select_positions(scores, starts, lengths, TOPK).cuda()
    expected = reference.to_slots(positions, page_table, requests)
    assert torch.equal(upstream.sort().values, expected.sort().values)


def indexer_inputs(num_rows, num_keys, num_heads=32):
    q = random(num_rows, num_heads, 128).to(torch.float8_e4m3fn)
    k = random(num_keys, 128).to(torch.float8_e4m3fn)
    return q, k, random(num_keys).abs() + 0.1, random(num_rows, num_heads)


def inputs_that_score(scores):
    """Inputs for which every row scores key s with scores[s], exactly, whatever it is.

    Every fourth of a sum is scaled by itself (`summing`), so none may be 0 times
    infinity.
    """
    q, k, _, weights = (torch.zeros_like(t) for t in indexer_inputs(64, WIDTH))
    one = torch.ones((), device="cuda")
    q[:, 1:8:2, 5], k[:, 5], weights[:, 1:8:2] = one.to(q.dtype), one.to(k.dtype), one / 4
    return q, k, scores.contiguous(), weights


def in_two_steps(inputs, starts, lengths, page_table, requests):
    from sglang_ic.hopper.scoring import score

    scores = score(*inputs, starts, starts + lengths)
    positions = reference.select_positions(scores, starts, lengths, TOPK).cuda()
    return reference.to_slots(positions, page_table, requests)


@pytest.mark.parametrize("num_heads", [16, 32, 64])
def test_fused_is_scores_and_then_topk_every_time(num_heads):
    """Scores computed alike: the same sets, also where rounding decides."""
    from sglang_ic.hopper.fused import score_and_select

    inputs = indexer_inputs(64, WIDTH, num_heads)
    windows, table = windows_of_two_requests(), request_table()
    expected = in_two_steps(inputs, *windows, *table).sort().values
    first = score_and_select(*inputs, *windows, TOPK, *table)
    assert torch.equal(first.sort().values, expected)
    for _ in range(RUNS):  # the order too
        assert torch.equal(score_and_select(*inputs, *windows, TOPK, *table), first)


@pytest.mark.parametrize("num_heads", [32, 64])
def test_fused_selects_the_top_k_of_deep_gemms_scores(num_heads):
    deep_gemm = pytest.importorskip("deep_gemm")
    from sglang_ic.hopper.fused import score_and_select

    q, k, k_scale, weights = indexer_inputs(64, WIDTH, num_heads)
    starts, lengths = windows_of_two_requests()
    ends = starts + lengths
    scores = deep_gemm.fp8_mqa_logits(q, (k, k_scale), weights, starts, ends, clean_logits=False)[
        :, :WIDTH
    ]
    expected = reference.select_positions(scores, starts, lengths, TOPK)
    found = score_and_select(q, k, k_scale, weights, starts, lengths, TOPK)
    assert torch.equal(found.cpu().sort().values, expected.sort().values)


def windows_of_two_requests():
    """Causal windows of two requests, in one block of rows too; some that need no bound."""
    starts = [0] * 29 + [20_000] * 35
    lengths = [*range(19_972, 20_001), *range(9_966, 10_001)]
    lengths[30:36] = [0, 1, TOPK, 8191, 8192, 8193]
    return int32(starts), int32(lengths)


def test_fused_needs_no_rescue_for_ordinary_scores():
    from sglang_ic.hopper import fused, sampling

    q, k, k_scale, weights = indexer_inputs(64, WIDTH)
    sizes = fused.Sizes.of(TOPK, 32)
    starts, lengths = windows_of_two_requests()
    ends = starts + lengths
    numbers = {"step": sizes.step, "aim": sizes.aim, "capacity": sizes.lanes * sizes.levels}
    samples = sampling.gather_samples(k, k_scale, sizes.step)
    bounds = sampling.sample_bounds(q, samples, weights, starts, ends, **numbers)
    kept = fused.keep(q, k, k_scale, weights, starts, ends, bounds, sizes)
    selected = starts.new_empty((64, TOPK))
    assert not fused.choose(*kept, bounds, starts, ends, None, None, selected).any()


@pytest.mark.parametrize("num_heads", [16, 32, 64])
@pytest.mark.parametrize("num_rows", [1, 37, 64])
def test_what_is_kept_are_the_scores_that_reach_the_bound(num_heads, num_rows):
    """Bit for bit those that are written, in the same lists and order."""
    from sglang_ic.hopper import fused
    from sglang_ic.hopper.scoring import score

    q, k, k_scale, weights = indexer_inputs(num_rows, WIDTH, num_heads)
    starts, lengths = (each[-num_rows:].contiguous() for each in windows_of_two_requests())
    ends = starts + lengths
    scores = score(q, k, k_scale, weights, starts, ends)
    bounds = scores[:, :5000].sort().values[:, 4000].nan_to_num(0).contiguous()
    bounds[0], bounds[-1] = INF, -INF
    sizes = fused.Sizes.of(TOPK, num_heads)
    found = fused.keep(q, k, k_scale, weights, starts, ends, bounds, sizes)
    tile = {"block_q": sizes.block_q, "lanes": sizes.lanes, "levels": sizes.levels}
    expected = reference.keep(scores, starts, ends, bounds, **tile)
    counts = found[2].cpu()
    assert torch.equal(counts, expected[2])
    held = torch.arange(sizes.levels)[:, None] < counts[:, None, :]
    for got, want in zip(found[:2], expected[:2], strict=True):
        assert torch.equal(got.cpu()[held], want[held])


@pytest.mark.parametrize("kind", KINDS)
def test_fused_is_exact_for_scores_that_defeat_its_bound(kind):
    from sglang_ic.hopper.fused import score_and_select

    scores, (starts, lengths) = scores_of(kind)[0], windows()
    inputs = inputs_that_score(scores)
    positions = reference.select_positions(scores.expand(64, -1), starts, lengths, TOPK).cuda()
    expected = positions.sort().values
    for rescue_bytes in (128 << 20, 0):  # many programs, and one for all
        got = score_and_select(*inputs, starts, lengths, TOPK, rescue_bytes=rescue_bytes)
        assert torch.equal(got.sort().values, expected)


def test_fused_does_not_wait_for_the_gpu():
    inputs, rows = indexer_inputs(64, WIDTH), hooks.Rows(*windows(), request_table()[1])
    page_table, _ = request_table()
    q, k, k_scale, weights = inputs

    def run():
        ends = rows.starts + rows.lengths
        deferred = fused_hooks._deferred_mqa_logits(q, (k, k_scale), weights, rows.starts, ends)
        fused_hooks._fused_slots(deferred, TOPK, rows, page_table)

    run()  # compiles
    with without_waiting():
        run()


def test_a_replaced_call_does_not_wait_for_the_gpu():
    pytest.importorskip("sglang.kernels.ops.attention.dsv4.topk")
    scores, rows = scores_of("random"), hooks.Rows(*windows(), request_table()[1])
    page_table, _ = request_table()
    hooks._ragged_slots(scores, TOPK, rows, page_table)  # compiles
    with without_waiting():
        hooks._ragged_slots(scores, TOPK, rows, page_table)


@pytest.mark.parametrize("num_heads", [32, 64])
def test_scores_are_deep_gemms_to_the_last_bit_every_time(num_heads):
    deep_gemm = pytest.importorskip("deep_gemm")
    from sglang_ic.hopper.scoring import score

    num_rows, num_keys = 301, 5003
    q = random(num_rows, num_heads, 128).to(torch.float8_e4m3fn)
    k = random(num_keys, 128).to(torch.float8_e4m3fn)
    k_scale, weights = random(num_keys).abs() + 0.1, random(num_rows, num_heads)
    # Two requests, so that a block of rows straddles them.
    starts = int32([0] * 150 + [2000] * 151)
    ends = int32([*range(1851, 2001), *range(4853, 5004)])
    keys = (k, k_scale)
    upstream = deep_gemm.fp8_mqa_logits(q, keys, weights, starts, ends, clean_logits=False)
    first = score(q, *keys, weights, starts, ends)
    column = torch.arange(num_keys, device="cuda")
    inside = (column >= starts[:, None]) & (column < ends[:, None])
    unlike = (first != upstream)[inside]
    assert not unlike.any(), f"{int(unlike.sum())} of {unlike.numel()}"
    for _ in range(RUNS):
        again = score(q, *keys, weights, starts, ends)
        assert torch.equal(again[inside], first[inside])
