"""Requests to a measured server: streamed answers with the arrival time of every token."""

from __future__ import annotations

import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sglang_ic.latency.timing import Stream

TIMEOUT_SEC = 600
FIRST_ID = 10  # below are special tokens in the vocabularies we know


class RequestError(RuntimeError):
    """A server that did not answer as it should; the message is one line."""


def prompt(seed: str, num_tokens: int, vocab_size: int) -> list[int]:
    """Random token ids, the same for the same seed."""
    return random.Random(seed).choices(range(FIRST_ID, vocab_size), k=num_tokens)


def call(url: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """The JSON (or text) answer of a route; POST if there is a body.

    Raises:
        RequestError: no answer, or an error.
    """
    try:
        with _open(url, path, body) as answer:
            text = answer.read().decode()
    except urllib.error.HTTPError as error:
        raise RequestError(f"{path} answers {error.code}: {error.read()[:300]!r}") from error
    except OSError as error:
        raise RequestError(f"{path} does not answer ({error})") from error
    return json.loads(text) if text.startswith(("{", "[")) else text


def generate(url: str, prompts: Sequence[list[int]], new_tokens: int) -> list[Stream]:
    """Send all prompts at once and wait for their whole answers.

    Raises:
        RequestError: an answer is an error, or shorter than asked for.
    """
    pool = ThreadPoolExecutor(len(prompts))
    try:
        return list(pool.map(lambda ids: _stream(url, ids, new_tokens), prompts))
    finally:
        # Not waited for: after an interrupt they end when their server is stopped.
        pool.shutdown(wait=False, cancel_futures=True)


def _stream(url: str, ids: list[int], new_tokens: int) -> Stream:
    parameters = {"max_new_tokens": new_tokens, "ignore_eos": True, "temperature": 0}
    body = {"input_ids": ids, "sampling_params": parameters, "stream": True}
    arrivals: list[tuple[float, int]] = []
    last: dict[str, Any] = {}
    sent = time.perf_counter()
    try:
        with _open(url, "/generate", body) as answer:
            for line in answer:
                if not line.startswith(b"data: {"):
                    continue
                now = time.perf_counter()
                last = json.loads(line[6:])
                if "error" in last:
                    raise RequestError(f"/generate: {last['error']}")
                tokens = last["meta_info"]["completion_tokens"]
                if tokens > (arrivals[-1][1] if arrivals else 0):
                    arrivals.append((now, tokens))
    except OSError as error:
        raise RequestError(f"/generate does not answer ({error})") from error
    if not arrivals or arrivals[-1][1] != new_tokens:
        got = arrivals[-1][1] if arrivals else 0
        raise RequestError(f"/generate gave {got} of {new_tokens} tokens")
    return Stream(
        sent_sec=sent,
        arrivals=tuple(arrivals),
        cached_tokens=last["meta_info"].get("cached_tokens", 0),
        last_ids=tuple(last.get("output_ids", ())[-4:]),
    )


def _open(url: str, path: str, body: dict[str, Any] | None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url + path, data=data, headers=headers)
    return urllib.request.urlopen(request, timeout=TIMEOUT_SEC)
