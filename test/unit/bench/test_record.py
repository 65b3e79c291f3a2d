"""When a request counts as failed, and under which name."""

import dataclasses

import pytest

from sglang_ic.bench.record import error_kind

GOOD = dict(
    success=True,
    error="",
    ttft_sec=0.1,
    output_tokens=8,
    wanted_tokens=8,
    is_counted=True,
    after_failure=False,
)
DISCONNECTED = (
    "Traceback (most recent call last):\n"
    '  File "x.py", line 1, in f\n'
    "aiohttp.client_exceptions.ClientConnectorError: Cannot connect to host"
)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, None),
        (dict(success=False, error=DISCONNECTED), "ClientConnectorError"),
        (dict(success=False, error="Bad Request: {'message': 'too long: 9'}"), "Bad Request"),
        (dict(success=False, error=""), "unknown"),
        (dict(ttft_sec=0.0), "no token"),
        (dict(output_tokens=7), "short answer"),
        (dict(is_counted=False), "stream cut off"),
        (dict(after_failure=True), "after a failed turn"),
    ],
)
def test_error_kind(changes, kind):
    assert error_kind(**{**GOOD, **changes}) == kind


def test_the_objective_is_met_at_its_limit_and_not_above(request_of):
    request = request_of(ttft=0.1, itl=(0.01, 0.03))
    assert request.meets(100.0, 20.0)
    assert not request.meets(99.9, None)
    assert not request.meets(None, 19.9)
    assert not request_of(error="short answer").meets(1e9, 1e9)


def test_the_mean_itl_is_over_tokens_whatever_the_pieces(request_of):
    request = request_of(itl=(0.02, 0.04))  # 3 tokens in 3 pieces
    assert request.mean_itl_sec == pytest.approx(0.03)
    chat = dataclasses.replace(request, output_tokens=7)  # 7 tokens in 3 pieces
    assert chat.mean_itl_sec == pytest.approx(0.01)
    late = dataclasses.replace(request, output_tokens=7, first_tokens=5)
    assert late.mean_itl_sec == pytest.approx(0.03)


def test_a_block_is_whole_when_every_planned_request_ended(request_of, block_of):
    requests = [request_of(0), request_of(1, start=1.0, error="no token", end_sec=5.0)]
    assert block_of(requests).is_whole
    assert not block_of(requests, num_planned=3).is_whole
    assert block_of(requests).window_sec == 5.0
