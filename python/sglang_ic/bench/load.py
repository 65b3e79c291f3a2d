"""One block of load, sent and timed by upstream: `sglang.benchmark.serving.benchmark`.

It opens the connections, keeps the concurrency or draws the Poisson arrivals, reads the streams
and takes the times. It is called in this process, on rows made beforehand, so that nothing differs
between arms but the URL. Its request function is looked up in its own table, where a recorder
around it keeps each finished request: upstream returns only a summary, at the end, and raises on a
block without a single success.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import requests

from sglang_ic.bench import upstream
from sglang_ic.bench.endpoint import EndpointError, reason
from sglang_ic.bench.record import Request, error_kind
from sglang_ic.bench.upstream import quiet

NATIVE, CHAT = "sglang", "sglang-oai-chat"
PATHS = {NATIVE: "/generate", CHAT: "/v1/chat/completions"}


def run_block(
    url: str,
    model: str,
    rows: list[Any],
    *,
    is_chat: bool,
    concurrency: int | None,
    rate: float | None,
    seed: int,
    tokens: Any,
    on_request: Callable[[Request], None],
) -> None:
    """Send `rows` and hand every finished request to `on_request` as it ends.

    Args:
        concurrency: requests at any time; None for no limit.
        rate: Poisson arrivals per second; None sends as fast as `concurrency` lets.
        seed: of the arrival times.
        tokens: the tokenizer that upstream counts answer tokens with.

    Raises:
        EndpointError: the server does not answer before the first request.
    """
    import numpy as np

    serving = upstream.serving()
    backend = CHAT if is_chat else NATIVE
    serving.set_global_args(_arguments(backend))
    np.random.seed(seed % 2**32)
    done = 0

    def count(request: Request) -> None:
        nonlocal done
        done += request.ok
        on_request(request)

    with _recorded(serving, backend, count), _steady(), quiet():
        try:
            serving.flush_server_cache(url, backend)
        except requests.RequestException as error:
            raise EndpointError(f"{url} does not flush its cache ({reason(error)})") from error
        try:
            asyncio.run(
                serving.benchmark(
                    backend=backend,
                    api_url=url + PATHS[backend],
                    base_url=url,
                    model_id=model,
                    tokenizer=tokens,
                    input_requests=rows,
                    request_rate=float("inf") if rate is None else rate,
                    max_concurrency=concurrency,
                    disable_tqdm=True,
                    lora_names=None,
                    lora_request_distribution=None,
                    lora_zipf_alpha=None,
                    extra_request_body={"return_cached_tokens_details": True} if is_chat else {},
                    profile=False,
                    warmup_requests=0,  # arms are warmed by a block of other prompts
                )
            )
        except (ValueError, IndexError, OSError):
            # Upstream's summary has no answer for a block in which nothing succeeded, and asks a
            # server that may be gone; each request has been recorded with its own error by then.
            if done:
                raise


def _arguments(backend: str) -> argparse.Namespace:
    """The command-line values that upstream's functions read from its module."""
    return argparse.Namespace(
        backend=backend,
        dataset_name="generated-shared-prefix",
        temperature=0.0,
        top_p=1.0,
        disable_ignore_eos=False,
        disable_stream=False,
        return_logprob=False,
        return_routed_experts=False,
        logprob_start_len=-1,
        top_logprobs_num=0,
        token_ids_logprob=None,
        cache_report=True,
        warmup_requests=0,
        plot_throughput=False,
        goodput=None,
        sharegpt_output_len=None,
        random_input_len=None,
        random_output_len=None,
        random_range_ratio=None,
        output_file=os.devnull,
        output_details=False,
    )


@contextlib.contextmanager
def _recorded(serving: Any, backend: str, keep: Callable[[Request], None]) -> Iterator[None]:
    """Put a recorder around upstream's request function for one block."""
    original = serving.ASYNC_REQUEST_FUNCS[backend]
    begin = time.perf_counter()

    async def send(request_func_input: Any, pbar: Any = None) -> Any:
        start = time.perf_counter()
        output = await original(request_func_input=request_func_input, pbar=pbar)
        end = time.perf_counter()
        keep(_request(request_func_input, output, start - begin, end - begin, backend == CHAT))
        return output

    serving.ASYNC_REQUEST_FUNCS[backend] = send
    try:
        yield
    finally:
        serving.ASYNC_REQUEST_FUNCS[backend] = original


@contextlib.contextmanager
def _steady() -> Iterator[None]:
    """No pause for garbage: with torch in the process a full collection takes longer than a token,
    so what lives now is left out of it."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _request(sent: Any, output: Any, start: float, end: float, is_chat: bool) -> Request:
    """Upstream's `RequestFuncInput` and `RequestFuncOutput` as a record."""
    replies = [one for one in sent.prompt if isinstance(one, dict) and one["role"] == "assistant"]
    error = error_kind(
        success=output.success,
        error=output.error,
        ttft_sec=output.ttft,
        output_tokens=output.output_len,
        wanted_tokens=sent.output_len,
        after_failure=any(not reply["content"] for reply in replies),
    )
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
