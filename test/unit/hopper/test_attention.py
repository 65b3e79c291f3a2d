"""Queries in two parts: which calls keep them, who attends to them, what goes upstream's way.

The kernel itself runs on a GPU only: test/gpu/test_attention.py.
"""

from types import SimpleNamespace

import pytest
import torch

from sglang_ic.hopper import attention, attention_hooks

TOKENS, HEADS, KEYS, WIDTH = 5, 16, 40, 32
BF16 = torch.bfloat16


class Mode:
    """Upstream's forward mode, as far as the hook asks it."""

    def __init__(self, name="extend"):
        self.name = name

    def is_target_verify(self):
        return self.name == "target_verify"

    def is_draft_extend_v2(self):
        return self.name == "draft_extend_v2"


class Backend:
    """Upstream's backend with the hooks around it; `ran` says what ran, with what."""

    device_sm_major = 9
    dsa_prefill_impl = "flashmla_sparse"
    use_mha = False
    dsa_index_kpool = 1
    use_fused_topk = True
    num_splits = 0
    dsa_topk_backend = SimpleNamespace(is_sgl_kernel=lambda: True)

    def __init__(self):
        self.ran = []
        self.kv = torch.zeros(KEYS, 1, 576, dtype=BF16)
        self.selected = torch.zeros(TOKENS, WIDTH, dtype=torch.int32)
        self.lengths = torch.full((TOKENS,), WIDTH, dtype=torch.int32)
        self.v_head_dim = 512

    def concat(self, nope, rope):
        def original(nope, rope):
            self.ran.append("concat")
            return torch.cat([nope, rope], dim=-1)

        return attention_hooks.keep_parts(original, nope, rope)

    def attend(self, q_all, attn_sink=None):
        def original(backend, **given):
            self.ran.append(("flashmla", given))
            return "upstream's"

        return attention_hooks.attend_to_parts(
            original,
            self,
            q_all=q_all,
            kv_cache=self.kv,
            page_table_1=self.selected,
            sm_scale=0.1,
            v_head_dim=self.v_head_dim,
            topk_length=self.lengths,
            attn_sink=attn_sink,
        )

    def extend(self, mode="extend", q_rope=None, attn_sink=None, heads=HEADS, body=None):
        """Upstream's forward_extend: concatenates and attends."""
        nope, rope = parts(heads)
        q_rope = rope if q_rope is None else q_rope

        def original(backend, q, k, v, layer, forward_batch, save_kv_cache=True, **given):
            assert backend is self and save_kv_cache is False and given["q_rope"] is q_rope
            q_all = self.concat(q, given["q_rope"])
            return (body or self.attend)(q_all, attn_sink=given.get("attn_sink"))

        return attention_hooks.extend_with_parts(
            original,
            self,
            nope,
            None,
            None,
            SimpleNamespace(tp_q_head_num=heads),
            SimpleNamespace(forward_mode=Mode(mode)),
            save_kv_cache=False,
            q_rope=q_rope,
            attn_sink=attn_sink,
        )


def parts(heads=HEADS):
    """Strided as in a forward pass: one part head by head, the other within whole queries."""
    generator = torch.Generator().manual_seed(0)
    nope = torch.randn(heads, TOKENS, 512, generator=generator).to(BF16).transpose(0, 1)
    return nope, torch.randn(TOKENS, heads, 192, generator=generator).to(BF16)[:, :, 128:]


@pytest.fixture
def attended(monkeypatch):
    """What `attend` was given, instead of running on a GPU that is not here."""
    found = []
    monkeypatch.setattr(attention, "attend", lambda *given: found.append(given) or "ours")
    return found


def test_marked_queries_stay_in_parts_and_attend_as_they_are(attended):
    backend = Backend()
    assert backend.extend() == "ours" and backend.ran == []
    nope, rope, kv, selected, scale, lengths = attended[0]
    assert (nope.stride(), rope.stride()) == tuple(part.stride() for part in parts())
    assert torch.equal(nope, parts()[0]) and torch.equal(rope, parts()[1])
    assert kv is backend.kv and selected is backend.selected and lengths is backend.lengths
    assert scale == 0.1


def test_lengths_of_other_rows_are_left_out_as_upstream_does(attended):
    backend = Backend()
    backend.lengths = backend.lengths[1:]
    assert backend.extend() == "ours" and attended[0][-1] is None
    backend.lengths = None
    assert backend.extend() == "ours" and attended[1][-1] is None


@pytest.mark.parametrize(
    "changed",
    [
        {"device_sm_major": 10},
        {"dsa_prefill_impl": "flashmla_kv"},
        {"use_mha": True},
        {"dsa_index_kpool": 4},
        {"use_fused_topk": False},  # where upstream repeats itself, its kernel stays
        {"dsa_topk_backend": SimpleNamespace(is_sgl_kernel=lambda: False)},
        {"num_splits": 1},
        {"mode": "target_verify"},
        {"mode": "draft_extend_v2"},
        {"heads": 64},
        {"heads": 12},
        {"attn_sink": torch.zeros(HEADS)},
        {"q_rope": parts()[1].half()},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_other_calls_are_upstreams(attended, changed):
    backend = Backend()
    for name in set(changed) & set(vars(Backend)):
        setattr(backend, name, changed[name])
    call = {name: value for name, value in changed.items() if not hasattr(Backend, name)}
    assert backend.extend(**call) == "upstream's" and attended == []
    assert backend.ran[0] == "concat"
    given = backend.ran[1][1]
    assert given["q_all"].shape[2] == 576 and given["topk_length"] is backend.lengths
    assert given["attn_sink"] is changed.get("attn_sink")


@pytest.mark.parametrize(
    "changed",
    [
        {"kv": torch.zeros(KEYS, 1, 656, dtype=torch.uint8)},
        {"kv": torch.zeros(KEYS, 1, 576)},
        {"kv": torch.zeros(KEYS, 1, 640, dtype=BF16)[:, :, :576]},
        {"kv": torch.zeros(KEYS, 2, 576, dtype=BF16)},
        {"kv": torch.zeros(KEYS * 576 + 1, dtype=BF16)[1:].view(KEYS, 576)},
        {"selected": torch.zeros(TOKENS, WIDTH, dtype=torch.int64)},
        {"selected": torch.zeros(TOKENS, 2 * WIDTH, dtype=torch.int32)[:, ::2]},
        {"selected": torch.zeros(TOKENS - 1, WIDTH, dtype=torch.int32)},
        {"lengths": torch.zeros(TOKENS, dtype=torch.int64)},
        {"v_head_dim": 256},
    ],
)
def test_what_the_kernel_does_not_know_is_put_together_for_upstream(attended, changed):
    backend = Backend()
    for name, value in changed.items():
        setattr(backend, name, value)
    assert backend.extend() == "upstream's" and attended == []
    assert backend.ran[0] == "concat"
    given = backend.ran[1][1]
    assert torch.equal(given["q_all"], torch.cat(parts(), dim=-1))
    assert given["kv_cache"] is backend.kv and given["page_table_1"] is backend.selected
    assert given["topk_length"] is backend.lengths and given["sm_scale"] == 0.1


def test_a_sink_that_comes_with_parts_goes_upstreams_way(attended):
    backend, sink = Backend(), torch.zeros(HEADS)
    body = lambda q_all, attn_sink: backend.attend(q_all, attn_sink=sink)  # noqa: E731
    assert backend.extend(body=body) == "upstream's" and attended == []
    assert backend.ran[0] == "concat" and backend.ran[1][1]["attn_sink"] is sink


def test_whole_queries_are_handed_on_untouched(attended):
    backend, queries = Backend(), torch.zeros(TOKENS, HEADS, 576, dtype=BF16)
    assert backend.attend(queries) == "upstream's" and attended == []
    assert backend.ran[0][1]["q_all"] is queries


def test_nothing_is_kept_in_parts_outside_of_a_marked_call(attended):
    """Decode concatenates by the same function, after prefill and after one that failed."""
    backend = Backend()

    def fail(q_all, attn_sink):
        assert isinstance(q_all, attention_hooks.QueryParts)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        backend.extend(body=fail)
    assert isinstance(backend.concat(*parts()), torch.Tensor)
    assert backend.extend() == "ours"
    assert isinstance(backend.concat(*parts()), torch.Tensor)


def given():
    return (*parts(), torch.zeros(KEYS, 576, dtype=BF16), Backend().selected)


@pytest.mark.parametrize("heads", [8, 16, 32])
def test_queries_of_a_forward_pass_are_taken(heads):
    assert attention.takes(*parts(heads), *given()[2:])
    assert attention.takes(*parts(heads), *given()[2:], Backend().lengths)


@pytest.mark.parametrize("at, heads", [(0, 12), (0, 64), (1, 8)])
def test_other_numbers_of_heads_are_not(at, heads):
    found = list(given())
    found[at] = parts(heads)[at]
    assert not attention.takes(*found)


@pytest.mark.parametrize("at, width", [(0, 512), (1, 64)])
@pytest.mark.parametrize("first, padded", [(0, 4), (4, 8), (1, 1)])
def test_copies_of_16_bytes_need_their_strides_and_addresses(at, width, first, padded):
    found = list(given())
    found[at] = torch.zeros(TOKENS, HEADS, width + padded, dtype=BF16)[:, :, first : first + width]
    assert not attention.takes(*found)
    found[at] = torch.zeros(TOKENS, HEADS, width + 8, dtype=BF16)[:, :, 8:]
    assert attention.takes(*found)


def test_a_last_stride_is_one():
    found = list(given())
    found[1] = torch.zeros(TOKENS, HEADS, 128, dtype=BF16)[:, :, ::2]
    assert not attention.takes(*found)


def test_no_keys_are_not_taken_and_no_tokens_give_none():
    nope, rope, kv, selected = given()
    assert not attention.takes(nope, rope, kv[:0], selected)
    assert attention.attend(nope[:0], rope[:0], kv, selected[:0], 0.1).shape == (0, HEADS, 512)
