"""The mock server keeps its own deadlines, seen by a plain socket. No SGLang needed."""

import json
import threading
import time
import urllib.request

import pytest

from sglang_ic.bench.mock_server import MockServer


@pytest.fixture
def serve():
    servers = []

    def start(**kwargs):
        servers.append(MockServer(0, **{"ttft_ms": 200.0, "itl_ms": 100.0, **kwargs}))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def generate(url, tokens):
    """(seconds since sending, event) of each event of a native stream."""
    body = {"input_ids": [1, 2, 3], "sampling_params": {"max_new_tokens": tokens}}
    asked = urllib.request.Request(f"{url}/generate", json.dumps(body).encode())
    begin, events = time.perf_counter(), []
    with urllib.request.urlopen(asked, timeout=30) as answer:
        for line in answer:
            if line.startswith(b"data: {"):
                events.append((time.perf_counter() - begin, json.loads(line[6:])))
    return events


def test_tokens_come_at_their_deadlines(serve):
    events = generate(serve().url, 5)
    assert [event["meta_info"]["completion_tokens"] for _, event in events] == [1, 2, 3, 4, 5]
    for number, (seconds, _) in enumerate(events):
        assert seconds == pytest.approx(0.2 + 0.1 * number, abs=0.05)


def test_a_late_token_makes_no_other_late(serve, monkeypatch):
    """The third sleep lasts 80 ms too long; only the third token is late."""
    from sglang_ic.bench import mock_server

    sleep, calls = mock_server._sleep_until, []

    def slow(deadline):
        calls.append(deadline)
        sleep(deadline + (0.08 if len(calls) == 3 else 0))

    monkeypatch.setattr(mock_server, "_sleep_until", slow)
    times = [seconds for seconds, _ in generate(serve().url, 5)]
    assert times[2] == pytest.approx(0.48, abs=0.05)
    assert times[3] == pytest.approx(0.5, abs=0.05)
    assert times[4] == pytest.approx(0.6, abs=0.05)


def test_a_chat_ends_with_its_usage_unless_told_to_fail(serve):
    def lines(**kwargs):
        body = {"messages": [], "max_completion_tokens": 3}
        url = f"{serve(ttft_ms=0.0, itl_ms=20.0, **kwargs).url}/v1/chat/completions"
        with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=30) as answer:
            return [
                line.decode().removeprefix("data: ") for line in answer.read().splitlines() if line
            ]

    *tokens, usage, done = lines()
    assert len(tokens) == 3 and json.loads(usage)["usage"]["completion_tokens"] == 3
    assert done == "[DONE]"
    token, error, done = lines(error_after=1)
    assert "content" in token and "told to fail" in error and done == "[DONE]"
    assert len(lines(stop_after=2)) == 2


def test_itl_below_what_a_machine_keeps_is_refused():
    with pytest.raises(ValueError, match="at least 20"):
        MockServer(0, ttft_ms=100.0, itl_ms=10.0)
