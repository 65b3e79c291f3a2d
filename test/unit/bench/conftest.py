"""Requests and blocks made by hand, for tests of what their numbers mean."""

import pytest

from sglang_ic.bench.record import Measured, Request


def make_request(index=0, *, ttft=0.1, itl=(0.02, 0.02), start=0.0, error=None, **fields):
    """A request that took `ttft`, then `itl` between tokens; seconds."""
    span = ttft + sum(itl)
    values = dict(
        index=index,
        turn=0,
        start_sec=start,
        end_sec=start + span,
        wanted_tokens=len(itl) + 1,
        prompt_tokens=100,
        output_tokens=0 if error else len(itl) + 1,
        cached_tokens=0,
        ttft_sec=None if error else ttft,
        e2e_sec=None if error else span,
        itl_sec=() if error else tuple(itl),
        error=error,
    )
    return Request(**{**values, **fields})


def make_block(requests, *, arm="full", round=0, **fields):
    values = dict(
        arm=arm,
        point="p: 1",
        round=round,
        seed=1,
        started_at="2026-01-01T00:00:00+00:00",
        requests=tuple(requests),
        num_planned=len(requests),
        indexer=None,
        others_cpu_share=None,
    )
    return Measured(**{**values, **fields})


@pytest.fixture
def request_of():
    return make_request


@pytest.fixture
def block_of():
    return make_block
