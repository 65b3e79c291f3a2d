"""A recorder around upstream's request function: every request of a block, as it ends.

Upstream looks the function up in a table of its own, where a wrapper stands for the time of one
block. It changes one thing that is not sent: the length that upstream believes the prompt to have,
which a server's usage then overwrites. If nothing did, the stream ended without its usage.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

from sglang_ic.bench.record import Request, error_kind

NATIVE, CHAT = "sglang", "sglang-oai-chat"
UNKNOWN = -1  # the length of a prompt before the server has told it


@contextlib.contextmanager
def recorded(serving: Any, backend: str, keep: Callable[[Request], None]) -> Iterator[None]:
    """Hand every request that ends to `keep`, within the block.

    Args:
        serving: upstream's module.
    """
    original = serving.ASYNC_REQUEST_FUNCS[backend]
    begin = time.perf_counter()
    failed: set[float] = set()  # rows with a turn that did; what follows answers half a session

    async def send(request_func_input: Any, pbar: Any = None) -> Any:
        sent = dataclasses.replace(request_func_input, prompt_len=UNKNOWN)
        start = time.perf_counter()
        output = await original(request_func_input=sent, pbar=pbar)
        end = time.perf_counter()
        is_counted = output.prompt_len != UNKNOWN  # told in one place with the answer's tokens
        output.prompt_len = output.prompt_len if is_counted else request_func_input.prompt_len
        error = error_kind(
            success=output.success,
            error=output.error,
            ttft_sec=output.ttft,
            output_tokens=output.output_len,
            wanted_tokens=request_func_input.output_len,
            is_counted=is_counted,
            after_failure=request_func_input.timestamp in failed,
        )
        if error is not None:
            failed.add(request_func_input.timestamp)
        is_chat = backend == CHAT
        keep(_request(request_func_input, output, start - begin, end - begin, is_chat, error))
        return output

    serving.ASYNC_REQUEST_FUNCS[backend] = send
    try:
        yield
    finally:
        serving.ASYNC_REQUEST_FUNCS[backend] = original


def _request(
    sent: Any, output: Any, start: float, end: float, is_chat: bool, error: str | None
) -> Request:
    """Upstream's `RequestFuncInput` and `RequestFuncOutput` as a record.

    Args:
        start, end: seconds since the block began.
        error: its kind, see `error_kind`.
    """
    replies = [one for one in sent.prompt if isinstance(one, dict) and one["role"] == "assistant"]
    return Request(
        index=int(sent.timestamp),
        turn=len(replies),
        start_sec=start,
        end_sec=end,
        wanted_tokens=sent.output_len,
        prompt_tokens=output.prompt_len,
        output_tokens=output.output_len if error is None else 0,
        cached_tokens=output.cached_tokens,
        ttft_sec=output.ttft if error is None else None,
        e2e_sec=output.latency if error is None else None,
        itl_sec=tuple(output.itl) if error is None else (),
        # The native stream counts its tokens; upstream spreads a gap over those of one piece.
        first_tokens=None if error or is_chat else output.output_len - len(output.itl),
        error=error,
        error_text="" if error is None else output.error[-500:],
    )
