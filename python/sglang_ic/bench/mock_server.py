"""A server with known latencies, to show that the client reports what a server does.

    python -m sglang_ic.bench.mock_server --port 30000 --ttft-ms 1000 --itl-ms 100

It speaks SGLang's native protocol (`POST /generate`) and its chat route, as streams. Token k of a
request is sent at arrival + TTFT + k * ITL: every token has its own deadline, so a late one makes
no other late. One thread serves a connection and sleeps to the deadline; an event loop would
round each deadline up to a millisecond. Prompts are not read; the answer is one letter a token.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MIN_ITL_MS = 20.0  # below that, the operating system's own lateness is what one would measure
MODEL = "mock"


class MockServer(ThreadingHTTPServer):
    """Answers on loopback until shut down, and can go wrong in the ways that servers do.

    Args:
        stop_after: tokens after which the connection is closed in mid-answer.
        error_after: tokens after which a chat goes on with an error event, its status being sent.
        fail: answer every n-th request with status 500; 0 for none.
        exit_after: requests after which the process ends instead of answering.
    """

    daemon_threads = True
    request_queue_size = 256
    allow_reuse_address = True

    def __init__(
        self,
        port: int,
        *,
        ttft_ms: float,
        itl_ms: float,
        tokenizer: str | None = None,
        model: str = MODEL,
        stop_after: int | None = None,
        error_after: int | None = None,
        fail: int = 0,
        exit_after: int | None = None,
    ) -> None:
        if itl_ms < MIN_ITL_MS:
            raise ValueError(f"itl_ms {itl_ms:g}: use at least {MIN_ITL_MS:g}")
        self.ttft_sec, self.itl_sec = ttft_ms / 1e3, itl_ms / 1e3
        self.tokenizer, self.model = tokenizer, model
        self.stop_after, self.error_after = stop_after, error_after
        self.fail, self.exit_after = fail, exit_after
        self.num_generated = 0
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is its own business, as it is for a real server."""


class Handler(BaseHTTPRequestHandler):
    """One request of one connection, which is closed after the answer."""

    server: MockServer

    def log_message(self, *args: Any) -> None:
        """No access log: writing it takes time."""

    def do_GET(self) -> None:
        told = {
            "/v1/models": {"data": [{"id": self.server.model, "max_model_len": 1 << 20}]},
            "/model_info": {"tokenizer_path": self.server.tokenizer},
            "/server_info": {"version": "mock", "internal_states": [{}]},
            "/health_generate": {},
        }
        path = self.path.partition("?")[0]
        self._answer(200, told[path]) if path in told else self._answer(404, {})

    def do_POST(self) -> None:
        arrival = time.perf_counter()
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        path = self.path.partition("?")[0]
        if path == "/flush_cache":
            self._answer(200, {})
        elif path in ("/generate", "/v1/chat/completions"):
            self.server.num_generated += 1
            if self.server.num_generated - 1 == self.server.exit_after:
                os._exit(0)  # no thread of it says goodbye
            if self.server.fail and self.server.num_generated % self.server.fail == 0:
                self._answer(500, {"error": "told to fail"})
            else:
                self._generate(json.loads(body), arrival, chat=path != "/generate")
        else:
            self._answer(404, {})

    def _generate(self, asked: dict, arrival: float, *, chat: bool) -> None:
        if chat:
            length, prompt = asked["max_completion_tokens"], len(json.dumps(asked["messages"]))
        else:
            length, prompt = asked["sampling_params"]["max_new_tokens"], len(asked["input_ids"])
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head(200, "text/event-stream")
        first = arrival + self.server.ttft_sec
        for number in range(length):
            if number == self.server.stop_after:
                return
            if chat and number == self.server.error_after:
                self.wfile.write(_event({"error": {"message": "told to fail"}}))
                self.wfile.write(b"data: [DONE]\n\n")
                return
            event = _chat_event(number) if chat else _native_event(number, prompt)
            _sleep_until(first + number * self.server.itl_sec)
            self.wfile.write(event)
        if chat:
            usage = {"prompt_tokens": prompt, "completion_tokens": length}
            self.wfile.write(_event({"choices": [], "usage": usage}))
        self.wfile.write(b"data: [DONE]\n\n")

    def _answer(self, status: int, value: dict) -> None:
        self._head(status, "application/json")
        self.wfile.write(json.dumps(value).encode())

    def _head(self, status: int, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Connection", "close")
        self.end_headers()


def _native_event(number: int, prompt_tokens: int) -> bytes:
    """SGLang's native stream repeats the whole text so far."""
    meta = {"prompt_tokens": prompt_tokens, "completion_tokens": number + 1, "cached_tokens": 0}
    return _event({"text": "a" * (number + 1), "meta_info": meta})


def _chat_event(number: int) -> bytes:
    return _event({"choices": [{"index": 0, "delta": {"content": "a"}}]})


def _event(value: dict) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _sleep_until(deadline: float) -> None:
    left = deadline - time.perf_counter()
    if left > 0:
        time.sleep(left)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m sglang_ic.bench.mock_server", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--port", type=int, default=0, help="default: a free one, printed")
    parser.add_argument("--ttft-ms", type=float, default=1000.0, help="default: %(default)g")
    parser.add_argument("--itl-ms", type=float, default=100.0, help="default: %(default)g")
    parser.add_argument("--model", default=MODEL, help="the name it gives; default: %(default)s")
    parser.add_argument("--tokenizer", help="folder that it tells clients to take")
    parser.add_argument("--stop-after", type=int, help="hang up after so many tokens")
    parser.add_argument("--error-after", type=int, help="of a chat: an error after so many tokens")
    parser.add_argument("--fail", type=int, default=0, help="refuse every n-th request")
    parser.add_argument("--exit-after", type=int, help="end at the request after so many")
    args = parser.parse_args()
    try:
        server = MockServer(**vars(args))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    # Also as a background job of a shell, which starts those with Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print(server.url, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


if __name__ == "__main__":
    main()
