"""Decode in splits: its numbers in Triton's interpreter, and which calls go upstream's way.

In bf16, and as fast as it should be, on a GPU only: test/gpu/test_attention.py.
"""

from types import SimpleNamespace

import pytest
import torch

from sglang_ic.hopper import decode_attention
from sglang_ic.hopper.decode_attention import BLOCK_K, MOST_TOKENS, keys_of_split

HEADS, KEYS = 16, 400
BF16 = torch.bfloat16


@pytest.mark.parametrize(
    "num_tokens, width, expected",
    [
        (1, 2048, 64),
        (4, 2048, 64),
        (5, 2048, 128),
        (16, 2048, 256),
        (1, 100, 64),
        (132, 2048, 2048),
    ],
)
def test_as_many_programs_as_the_gpu_has_room_for(num_tokens, width, expected):
    keys = keys_of_split(num_tokens, width, 132)
    assert keys == expected
    assert keys == BLOCK_K or num_tokens * -(-width // keys) <= 132


def reference(nope, rope, kv, selected, scale, lengths):
    """In float64, row by row."""
    found = torch.zeros(nope.shape, dtype=torch.float64)
    for row, length in enumerate(lengths):
        keys = selected[row, :length].long()
        keys = kv.view(-1, 576)[keys[(keys >= 0) & (keys < KEYS)]].double()
        if len(keys):
            query = torch.cat([nope[row], rope[row]], dim=-1).double()
            found[row] = (query @ keys.T * scale).softmax(-1) @ keys[:, :512]
    return found


@pytest.mark.parametrize("width, num_programs", [(256, 132), (256, 4), (200, 2), (64, 1)])
@pytest.mark.parametrize("num_heads", [8, 32])
def test_splits_add_up(interpreted, num_heads, width, num_programs):
    """Rows that end in a split, at its edge, before the first; keys that are none; NaN beside."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([width + 5, 0, 65, 128], dtype=torch.int32)
    num_tokens = len(lengths)
    nope = torch.randn(num_heads, num_tokens, 512, generator=generator).transpose(0, 1)
    rope = torch.randn(num_tokens, num_heads, 192, generator=generator)[:, :, 128:]
    kv = torch.randn(KEYS, 1, 576, generator=generator)
    kv[7] = float("nan")
    selected = torch.randint(8, KEYS, (num_tokens, width), generator=generator, dtype=torch.int32)
    selected[0, :3] = torch.tensor([-1, KEYS, 2**30], dtype=torch.int32)
    selected[3, :64] = -1
    given = (nope, rope, kv, selected, 0.04, lengths)
    found = interpreted("attend_in_splits", *given, num_programs)
    expected = reference(*given)
    assert not found[1].any() and not expected[1].any()
    assert (found.double() - expected).norm() / expected.norm() < 1e-6


def test_nan_that_is_selected_is_passed_on(interpreted):
    """And not hidden with the split that it lies in."""
    nope, rope, kv = torch.ones(1, 8, 512), torch.ones(1, 8, 64), torch.ones(KEYS, 1, 576)
    kv[300] = float("nan")
    selected = torch.arange(320, dtype=torch.int32)[None]
    lengths = torch.tensor([320], dtype=torch.int32)
    given = (nope, rope, kv, selected, 0.04)
    assert interpreted("attend_in_splits", *given, lengths, 132).isnan().all()
    assert not interpreted("attend_in_splits", *given, lengths - 20, 132).isnan().any()


class Backend:
    """What the hook asks upstream's backend."""

    dsa_index_kpool = 1
    use_fused_topk = True
    num_splits = 0
    dsa_topk_backend = SimpleNamespace(is_sgl_kernel=lambda: True)


def call(num_tokens=3, heads=HEADS, **changed):
    """Keywords that upstream's forward_decode gives to _forward_fa3, its lengths padded."""
    each = torch.arange(num_tokens + 3, dtype=torch.int32)
    return {
        "q_rope": torch.zeros(num_tokens, heads, 192, dtype=BF16)[:, :, 128:],
        "kv_cache": torch.zeros(KEYS, 1, 576, dtype=BF16),
        "v_head_dim": 512,
        "q_nope": torch.zeros(heads, num_tokens, 512, dtype=BF16).transpose(0, 1),
        "page_table": torch.zeros(num_tokens, 2048, dtype=torch.int32),
        "cache_seqlens": torch.full((num_tokens + 2,), 2048, dtype=torch.int32),
        "cu_seqlens_q": each,
        "cu_seqlens_k": each * 2048,
        "max_seqlen_q": 1,
        "sm_scale": 0.1,
        "logit_cap": 0.0,
        "page_size": 1,
    } | changed


def decode(original, backend, given):
    """Upstream's forward_decode, with both hooks."""

    def forward_decode(backend):
        return decode_attention.decode_in_splits(original, backend, **given)

    return decode_attention.mark_decode(forward_decode, backend)


@pytest.fixture
def attended(monkeypatch):
    """What `attend` was given, instead of running on a GPU that is not here."""
    found = []
    monkeypatch.setattr(decode_attention, "attend", lambda *given: found.append(given) or "ours")
    return found


@pytest.mark.parametrize("num_tokens", [1, MOST_TOKENS])
@pytest.mark.parametrize("heads", [8, 16, 32])
def test_a_decode_step_attends_in_splits(attended, num_tokens, heads):
    given = call(num_tokens, heads)
    assert decode(None, Backend(), given) == "ours"
    nope, rope, kv, selected, scale, lengths = attended[0]
    assert nope is given["q_nope"] and rope is given["q_rope"]
    assert kv is given["kv_cache"] and selected is given["page_table"] and scale == 0.1
    assert torch.equal(lengths, given["cache_seqlens"][:num_tokens])


@pytest.mark.parametrize(
    "changed",
    [
        {"num_tokens": MOST_TOKENS + 1},
        {"heads": 64},
        {"heads": 4},
        {"max_seqlen_q": 2},
        {"page_size": 64},
        {"v_head_dim": 256},
        {"logit_cap": 30.0},
        {"kv_cache": torch.zeros(KEYS, 1, 640, dtype=BF16)},
        {"kv_cache": torch.zeros(KEYS, 1, 656, dtype=torch.uint8)},
        {"page_table": torch.zeros(3, 4096, dtype=torch.int32)[:, ::2]},
        {"page_table": torch.zeros(2, 2048, dtype=torch.int32)},
        {"cache_seqlens": torch.zeros(2, dtype=torch.int32)},
        {"q_rope": torch.zeros(3, HEADS, 0, dtype=BF16)},
        {"dsa_index_kpool": 4},
        {"use_fused_topk": False},  # where upstream repeats itself, its kernel stays
        {"dsa_topk_backend": SimpleNamespace(is_sgl_kernel=lambda: False)},
        {"num_splits": 1},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_other_calls_are_upstreams(attended, changed):
    backend = Backend()
    for name in set(changed) & set(vars(Backend)):
        setattr(backend, name, changed[name])
    given = call(**{name: value for name, value in changed.items() if not hasattr(Backend, name)})
    ran = []
    assert decode(lambda *args, **kwargs: ran.append((args, kwargs)), backend, given) is None
    assert attended == [] and ran == [((backend,), given)]


def test_outside_of_decode_all_is_upstreams(attended):
    """Verify passes and prefill call the same method; after a step that failed, too."""
    ran = []

    def upstream(backend, **given):
        ran.append(given)

    def fail(backend):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        decode_attention.mark_decode(fail, Backend())
    decode_attention.decode_in_splits(upstream, Backend(), **call())
    assert attended == [] and len(ran) == 1
