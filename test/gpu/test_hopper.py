"""The replacements of sglang_ic.hopper on an NVIDIA GPU: the same sets, every time. Needs a GPU.

Comparisons with upstream's functions need the CUDA environment; the rest needs torch and triton.
"""

import pytest
import torch

from sglang_ic.hopper import hooks, reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here"),
]

TOPK, WIDTH, RUNS = 2048, 30_000, 20
INF, NAN = float("inf"), float("nan")


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator("cuda").manual_seed(0), device="cuda")


def int32(values):
    return torch.tensor(values, dtype=torch.int32, device="cuda")


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
    """Inputs for which every row scores key s with scores[s], exactly, whatever it is."""
    q, k, _, weights = (torch.zeros_like(t) for t in indexer_inputs(64, WIDTH))
    one = torch.ones((), device="cuda")
    q[:, 3, 5], k[:, 5], weights[:, 3] = one.to(q.dtype), one.to(k.dtype), one
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
        deferred = hooks._deferred_mqa_logits(q, (k, k_scale), weights, rows.starts, ends)
        hooks._fused_slots(deferred, TOPK, rows, page_table)

    run()  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    finally:
        torch.cuda.set_sync_debug_mode("default")


# How many keys of a row count: none, some tiles and a bit, all, and more than there are.
ATTENTION_LENGTHS = (0, 1, 64, 65, 128, 129, 2047, 2048, 5000)


def attention_inputs(num_heads, width=TOPK):
    """Parts strided as in a forward pass; keys at random, some left out, two rows without any."""
    num_tokens = 3 * len(ATTENTION_LENGTHS)
    nope = random(num_heads, num_tokens, 512).bfloat16().transpose(0, 1)
    rope = random(num_tokens, num_heads, 192).bfloat16()[:, :, 128:]
    kv = random(WIDTH, 1, 576).bfloat16()
    generator = torch.Generator("cuda").manual_seed(1)
    place = torch.rand(num_tokens, WIDTH, generator=generator, device="cuda")
    selected = place.argsort(1)[:, :width].to(torch.int32)
    selected[::2, ::3] = -1
    selected[4, :100] = -1  # a first tile without keys
    selected[5, 100:] = -1
    selected[6:8] = -1
    return nope, rope, kv, selected


def attention_reference(nope, rope, kv, selected, scale, lengths):
    """[T, H, 512] float32, row by row."""
    rows = []
    for row, (keys, length) in enumerate(zip(selected, lengths.tolist(), strict=True)):
        keys = keys[:length]
        found = kv[keys[keys >= 0].long(), 0].float()
        query = torch.cat([nope[row], rope[row]], dim=-1).float()
        rows.append((query @ found.T * scale).softmax(-1) @ found[:, :512])
    return torch.stack(rows)


def relative(found, expected):
    return ((found.float() - expected.float()).norm() / expected.float().norm()).item()


@pytest.mark.parametrize("width", [TOPK, 300])
@pytest.mark.parametrize("num_heads", [32, 16, 8])
def test_attention_of_few_heads_is_the_reference_every_time(num_heads, width):
    """Up to the rounding of probabilities and outputs to bf16."""
    from sglang_ic.hopper.attention import attend

    nope, rope, kv, selected = attention_inputs(num_heads, width=width)
    lengths = int32(3 * ATTENTION_LENGTHS)
    for given in (lengths, None):
        counted = torch.full_like(lengths, width) if given is None else lengths
        expected = attention_reference(nope, rope, kv, selected, 0.04, counted)
        found = attend(nope, rope, kv, selected, 0.04, given)
        for row in range(len(found)):
            if expected[row].any():
                assert relative(found[row], expected[row]) <= 4e-3, (row, counted[row].item())
            else:
                assert not found[row].any(), row
        for _ in range(RUNS):
            assert torch.equal(attend(nope, rope, kv, selected, 0.04, given), found)


def test_attention_reads_no_key_that_is_not_selected():
    """NaN in the cache would otherwise pass through a probability of 0."""
    from sglang_ic.hopper.attention import attend

    nope, rope, kv, selected = attention_inputs(32)
    selected[selected == 0] = -1
    expected = attend(nope, rope, kv, selected, 0.04)
    kv[0] = NAN
    assert torch.equal(attend(nope, rope, kv, selected, 0.04), expected)
    beyond = selected.where(selected >= 0, WIDTH)  # no row of the cache either
    assert torch.equal(attend(nope, rope, kv, beyond, 0.04), expected)


@pytest.mark.parametrize("num_heads", [32, 16])
def test_attention_of_few_heads_is_flash_mlas_up_to_rounding(num_heads):
    interface = pytest.importorskip("sglang.kernels.ops.attention.flash_mla_interface")
    from sglang_ic.hopper.attention import attend

    nope, rope, kv, selected = attention_inputs(num_heads)
    lengths = int32(3 * ATTENTION_LENGTHS).clamp(max=TOPK)
    padded = nope.new_zeros(len(nope), 64, 576)
    padded[:, :num_heads] = torch.cat([nope, rope], dim=-1)
    expected, _, _ = interface.flash_mla_sparse_fwd(
        padded, kv, selected[:, None], 0.04, d_v=512, topk_length=lengths
    )
    found = attend(nope, rope, kv, selected, 0.04, lengths)
    counted = torch.arange(TOPK, device="cuda") < lengths[:, None]
    some = ((selected >= 0) & counted).any(1)
    assert relative(found[some], expected[some, :num_heads]) <= 8e-3


def in_steps(inputs, lengths, num_tokens):
    """The same rows in decode steps of `num_tokens`."""
    from sglang_ic.hopper.decode_attention import attend

    nope, rope, kv, selected = inputs
    parts = [
        attend(nope[at], rope[at], kv, selected[at], 0.04, lengths[at])
        for begin in range(0, len(nope), num_tokens)
        for at in [slice(begin, begin + num_tokens)]
    ]
    return torch.cat(parts)


@pytest.mark.parametrize("num_tokens", [1, 5, 27])
@pytest.mark.parametrize("num_heads", [32, 16, 8])
def test_attention_in_splits_is_the_reference_every_time(num_heads, num_tokens):
    """Up to the rounding of probabilities and outputs to bf16."""
    nope, rope, kv, selected = inputs = attention_inputs(num_heads)
    lengths = int32(3 * ATTENTION_LENGTHS)
    expected = attention_reference(nope, rope, kv, selected, 0.04, lengths)
    found = in_steps(inputs, lengths, num_tokens)
    for row in range(len(found)):
        if expected[row].any():
            assert relative(found[row], expected[row]) <= 4e-3, (row, lengths[row].item())
        else:
            assert not found[row].any(), row
    for _ in range(RUNS):
        assert torch.equal(in_steps(inputs, lengths, num_tokens), found)


def test_attention_in_splits_reads_no_key_that_is_not_selected():
    nope, rope, kv, selected = attention_inputs(32)
    lengths = torch.full((len(nope),), TOPK, dtype=torch.int32, device="cuda")
    selected[selected == 0] = -1
    expected = in_steps((nope, rope, kv, selected), lengths, 1)
    kv[0] = NAN
    assert torch.equal(in_steps((nope, rope, kv, selected), lengths, 1), expected)


def test_attention_in_splits_is_flash_attentions_up_to_rounding():
    interface = pytest.importorskip("sglang.kernels.ops.attention.flash_attention")

    nope, rope, kv, selected = attention_inputs(32)
    num_tokens = len(nope)
    lengths = int32(3 * ATTENTION_LENGTHS).clamp(1, TOPK)
    selected = torch.where(selected < 0, selected.max(1, keepdim=True).values, selected)
    some = (selected >= 0).all(1)
    each = torch.arange(num_tokens + 1, dtype=torch.int32, device="cuda")
    expected = interface.flash_attn_with_kvcache(
        q=rope.contiguous(),
        k_cache=kv[:, :, 512:].unsqueeze(1),
        v_cache=kv[:, :, :512].unsqueeze(1),
        qv=nope.contiguous(),
        page_table=selected.clamp(min=0),
        cache_seqlens=lengths,
        cu_seqlens_q=each,
        cu_seqlens_k_new=each,
        max_seqlen_q=1,
        softmax_scale=0.04,
        causal=True,
    )
    found = in_steps((nope, rope, kv, selected), lengths, num_tokens)
    assert some.sum() > num_tokens // 2
    assert relative(found[some], expected[some]) <= 8e-3


def test_attention_in_splits_does_not_wait_for_the_gpu():
    inputs, lengths = attention_inputs(32), int32(3 * ATTENTION_LENGTHS)
    in_steps(inputs, lengths, 1)  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        in_steps(inputs, lengths, 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_attention_of_few_heads_does_not_wait_for_the_gpu():
    from sglang_ic.hopper.attention import attend

    inputs = attention_inputs(32)
    attend(*inputs, 0.04)  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        attend(*inputs, 0.04)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_replaced_call_does_not_wait_for_the_gpu():
    pytest.importorskip("sglang.kernels.ops.attention.dsv4.topk")
    scores, rows = scores_of("random"), hooks.Rows(*windows(), request_table()[1])
    page_table, _ = request_table()
    hooks._ragged_slots(scores, TOPK, rows, page_table)  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        hooks._ragged_slots(scores, TOPK, rows, page_table)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("num_heads", [32, 64])
def test_scores_are_deep_gemms_up_to_rounding_every_time(num_heads):
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
    difference = (first - upstream)[inside].norm() / upstream[inside].norm()
    assert difference < 1e-5
    for _ in range(RUNS):
        again = score(q, *keys, weights, starts, ends)
        assert torch.equal(again[inside], first[inside])
