"""Queries that overlap instead of being padded: the view, the room behind it, and who gets it."""

from types import SimpleNamespace

import pytest
import torch

from sglang_ic.hopper import padding

TOKENS, HEADS, WIDTH = 5, 16, padding.LATENT + padding.ROPE


def parts(num_heads=HEADS, num_tokens=TOKENS):
    """Strided as in a forward pass: one part head by head, the other within whole queries."""
    generator = torch.Generator().manual_seed(0)
    nope = torch.randn(num_heads, num_tokens, padding.LATENT, generator=generator)
    rope = torch.randn(num_tokens, num_heads, 192, generator=generator)
    return nope.bfloat16().transpose(0, 1), rope.bfloat16()[:, :, 128:]


@pytest.mark.parametrize("num_heads", [1, 8, 16, 32])
@pytest.mark.parametrize("num_tokens", [1, 5, 9])
def test_queries_are_put_together_with_zeros_behind_them(interpreted, num_heads, num_tokens):
    nope, rope = parts(num_heads, num_tokens)
    found = interpreted("with_room", nope, rope)
    assert torch.equal(found, torch.cat([nope, rope], dim=-1)) and found.is_contiguous()
    wide = padding.overlapping(found)
    assert wide.shape == (num_tokens, 64, WIDTH) and wide.data_ptr() == found.data_ptr()
    assert torch.equal(wide[:, :num_heads], found)
    assert not wide[-1, num_heads:].any()
    followers = wide[:-1, num_heads : 2 * num_heads]
    assert torch.equal(followers, found[1:])


def with_room(num_heads=HEADS):
    rows = torch.randn(TOKENS * num_heads + 64 - num_heads, WIDTH)
    return rows[: TOKENS * num_heads].view(TOKENS, num_heads, WIDTH)


@pytest.mark.parametrize(
    "queries",
    [
        torch.randn(TOKENS, HEADS, WIDTH),  # no room
        with_room()[1:, :, :].transpose(0, 1).contiguous().transpose(0, 1),  # not in one piece
        with_room(64),  # nothing to pad
        with_room(24),  # which upstream refuses, in its own words
        with_room()[:0],
    ],
)
def test_other_queries_are_left_to_upstream(queries):
    assert padding.overlapping(queries) is None


def attention(num_heads_wanted=64):
    """Stands for upstream's method: pads, attends head by head, cuts off; and what it was given."""
    seen = []

    def forward(backend, q_all, kv_cache, scale, attn_sink=None):
        seen.append((q_all, attn_sink))
        given = q_all
        if q_all.shape[1] != num_heads_wanted:
            given = q_all.new_zeros(len(q_all), num_heads_wanted, WIDTH)
            given[:, : q_all.shape[1]] = q_all
        scores = (given.float() @ kv_cache.float().T * scale).softmax(-1)
        return (scores @ kv_cache[:, : padding.LATENT].float())[:, : q_all.shape[1]]

    return forward, seen


def test_what_is_read_in_place_gives_the_same_heads():
    forward, seen = attention()
    queries, keys = with_room(), torch.randn(30, WIDTH)
    backend = SimpleNamespace(device_sm_major=9)
    expected = forward(backend, queries, keys, 0.1)
    given = {"q_all": queries, "kv_cache": keys, "scale": 0.1, "attn_sink": None}
    found = padding.attend_without_copies(forward, backend, **given)
    assert seen[1][0].shape == (TOKENS, 64, WIDTH)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("major, sink", [(10, None), (9, torch.zeros(HEADS))])
def test_a_blackwell_gpu_and_sinks_go_upstreams_way(major, sink):
    forward, seen = attention()
    queries, backend = with_room(), SimpleNamespace(device_sm_major=major)
    padding.attend_without_copies(
        forward, backend, queries, torch.randn(30, WIDTH), 0.1, attn_sink=sink
    )
    assert seen == [(queries, sink)]


def test_queries_off_the_gpu_are_put_together_by_upstream():
    nope, rope = parts()
    found = padding.concat_with_room(lambda a, b: (a, b), nope, rope)
    assert found[0] is nope and found[1] is rope
