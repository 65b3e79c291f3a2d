"""Attention of sglang_ic.hopper on an NVIDIA GPU: right, and the same every time. Needs one.

Comparisons with upstream's functions need the CUDA environment; the rest needs torch and triton.
"""

import pytest
import torch
from _on_gpu import int32, random, without_waiting

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here"),
]
pytest.importorskip("triton")

from sglang_ic.hopper import decode_attention  # noqa: E402
from sglang_ic.hopper.attention import attend  # noqa: E402

TOPK, WIDTH, RUNS = 2048, 30_000, 20
# How many keys of a row count: none, some tiles and a bit, all, and more than there are.
LENGTHS = (0, 1, 64, 65, 128, 129, 2047, 2048, 5000)


def inputs_of(num_heads, width=TOPK):
    """Parts strided as in a forward pass; keys at random, some left out, two rows without any."""
    num_tokens = 3 * len(LENGTHS)
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


def reference(nope, rope, kv, selected, scale, lengths):
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


def check_rows(found, expected):
    """Up to the rounding of probabilities and outputs to bf16; zeros exactly."""
    for row in range(len(found)):
        if expected[row].any():
            assert relative(found[row], expected[row]) <= 4e-3, row
        else:
            assert not found[row].any(), row


@pytest.mark.parametrize("width", [TOPK, 300])
@pytest.mark.parametrize("num_heads", [32, 16, 8])
def test_heads_as_they_are_give_the_reference_every_time(num_heads, width):
    nope, rope, kv, selected = inputs_of(num_heads, width=width)
    lengths = int32(3 * LENGTHS)
    for given in (lengths, None):
        counted = torch.full_like(lengths, width) if given is None else lengths
        expected = reference(nope, rope, kv, selected, 0.04, counted)
        found = attend(nope, rope, kv, selected, 0.04, given)
        check_rows(found, expected)
        for _ in range(RUNS):
            assert torch.equal(attend(nope, rope, kv, selected, 0.04, given), found)


def test_heads_as_they_are_read_no_key_that_is_not_selected():
    """NaN in the cache would otherwise pass through a probability of 0."""
    nope, rope, kv, selected = inputs_of(32)
    selected[selected == 0] = -1
    expected = attend(nope, rope, kv, selected, 0.04)
    kv[0] = float("nan")
    assert torch.equal(attend(nope, rope, kv, selected, 0.04), expected)
    beyond = selected.where(selected >= 0, WIDTH)  # no row of the cache either
    assert torch.equal(attend(nope, rope, kv, beyond, 0.04), expected)


@pytest.mark.parametrize("num_heads", [32, 16])
def test_heads_as_they_are_give_flash_mlas_up_to_rounding(num_heads):
    interface = pytest.importorskip("sglang.kernels.ops.attention.flash_mla_interface")
    nope, rope, kv, selected = inputs_of(num_heads)
    lengths = int32(3 * LENGTHS).clamp(max=TOPK)
    padded = nope.new_zeros(len(nope), 64, 576)
    padded[:, :num_heads] = torch.cat([nope, rope], dim=-1)
    expected, _, _ = interface.flash_mla_sparse_fwd(
        padded, kv, selected[:, None], 0.04, d_v=512, topk_length=lengths
    )
    found = attend(nope, rope, kv, selected, 0.04, lengths)
    counted = torch.arange(TOPK, device="cuda") < lengths[:, None]
    some = ((selected >= 0) & counted).any(1)
    assert relative(found[some], expected[some, :num_heads]) <= 8e-3


def test_heads_as_they_are_do_not_wait_for_the_gpu():
    inputs = inputs_of(32)
    attend(*inputs, 0.04)  # compiles
    with without_waiting():
        attend(*inputs, 0.04)


def in_steps(inputs, lengths, num_tokens):
    """The same rows in decode steps of `num_tokens`."""
    nope, rope, kv, selected = inputs
    parts = [
        decode_attention.attend(nope[at], rope[at], kv, selected[at], 0.04, lengths[at])
        for begin in range(0, len(nope), num_tokens)
        for at in [slice(begin, begin + num_tokens)]
    ]
    return torch.cat(parts)


@pytest.mark.parametrize("num_tokens", [1, 5, 27])
@pytest.mark.parametrize("num_heads", [32, 16, 8])
def test_splits_give_the_reference_every_time(num_heads, num_tokens):
    nope, rope, kv, selected = inputs = inputs_of(num_heads)
    lengths = int32(3 * LENGTHS)
    expected = reference(nope, rope, kv, selected, 0.04, lengths)
    found = in_steps(inputs, lengths, num_tokens)
    check_rows(found, expected)
    for _ in range(RUNS):
        assert torch.equal(in_steps(inputs, lengths, num_tokens), found)


def test_splits_read_no_key_that_is_not_selected():
    nope, rope, kv, selected = inputs_of(32)
    lengths = torch.full((len(nope),), TOPK, dtype=torch.int32, device="cuda")
    selected[selected == 0] = -1
    expected = in_steps((nope, rope, kv, selected), lengths, 1)
    kv[0] = float("nan")
    assert torch.equal(in_steps((nope, rope, kv, selected), lengths, 1), expected)


def test_splits_give_flash_attentions_up_to_rounding():
    interface = pytest.importorskip("sglang.kernels.ops.attention.flash_attention")

    nope, rope, kv, selected = inputs_of(32)
    num_tokens = len(nope)
    lengths = int32(3 * LENGTHS).clamp(1, TOPK)
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


def test_splits_do_not_wait_for_the_gpu():
    inputs, lengths = inputs_of(32), int32(3 * LENGTHS)
    in_steps(inputs, lengths, 1)  # compiles
    with without_waiting():
        in_steps(inputs, lengths, 1)
