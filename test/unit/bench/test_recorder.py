"""Requests as upstream's functions leave them, recorded; a fake module stands for upstream's."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from sglang_ic.bench.recorder import CHAT, NATIVE, recorded


@dataclass
class Sent:
    prompt: list
    prompt_len: int = 50
    output_len: int = 3
    timestamp: float = 0


@dataclass
class Output:
    prompt_len: int
    success: bool = True
    error: str = ""
    ttft: float = 0.1
    latency: float = 0.3
    output_len: int = 3
    itl: list = field(default_factory=lambda: [0.1, 0.1])
    cached_tokens: int = 0


def record(backend, usage, **fields):
    """What is recorded of one request, and what upstream gets back.

    Args:
        usage: the prompt's length that the server tells; None if it tells none.
    """

    async def send(request_func_input, pbar=None):
        length = usage or request_func_input.prompt_len  # as upstream's functions begin
        return Output(length, **fields)

    serving, kept = SimpleNamespace(ASYNC_REQUEST_FUNCS={backend: send}), []
    with recorded(serving, backend, kept.append):
        wrapped = serving.ASYNC_REQUEST_FUNCS[backend]
        output = asyncio.run(wrapped(request_func_input=Sent([{"role": "user", "content": "?"}])))
    assert serving.ASYNC_REQUEST_FUNCS[backend] is send
    return kept[0], output


@pytest.mark.parametrize("backend", [NATIVE, CHAT])
@pytest.mark.parametrize("usage", [50, 60])
def test_an_answer_with_usage_counts_and_has_the_servers_length(backend, usage):
    request, output = record(backend, usage)
    assert request.error is None and request.output_tokens == 3
    assert request.prompt_tokens == output.prompt_len == usage


def test_a_chat_without_usage_was_cut_off(request_of):
    """Upstream then believes that all tokens came: it starts from the number it asked for."""
    request, output = record(CHAT, None)
    assert request.error == "stream cut off"
    assert request.output_tokens == 0 and request.ttft_sec is None and request.itl_sec == ()
    assert request.prompt_tokens == output.prompt_len == 50


def test_a_turn_after_one_that_was_cut_off_does_not_count_either():
    """Its prompt holds the half of an answer."""
    usages, kept = [None, 60], []

    async def send(request_func_input, pbar=None):
        return Output(usages.pop(0) or request_func_input.prompt_len)

    serving = SimpleNamespace(ASYNC_REQUEST_FUNCS={CHAT: send})
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "half"}]
    with recorded(serving, CHAT, kept.append):
        for prompt in (turns[:1], [*turns, turns[0]]):
            asyncio.run(serving.ASYNC_REQUEST_FUNCS[CHAT](request_func_input=Sent(prompt)))
    assert [one.error for one in kept] == ["stream cut off", "after a failed turn"]
    assert [one.turn for one in kept] == [0, 1]


def test_a_refused_request_keeps_its_own_error():
    request, output = record(CHAT, None, success=False, error="Bad Request: too long")
    assert request.error == "Bad Request" and output.prompt_len == 50
