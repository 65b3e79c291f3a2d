"""One block of load, sent and timed by upstream: `sglang.benchmark.serving.benchmark`.

It opens the connections, keeps the concurrency or draws the Poisson arrivals, reads the streams
and takes the times. It is called in this process, on rows made beforehand, so that nothing differs
between arms but the URL. A recorder around its request function keeps each finished request:
upstream returns only a summary, at the end, and raises on a block without a single success, or
when the server has gone by then.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from typing import Any

import requests

from sglang_ic.bench import upstream
from sglang_ic.bench.endpoint import EndpointError, reason
from sglang_ic.bench.record import Request
from sglang_ic.bench.recorder import CHAT, NATIVE, recorded
from sglang_ic.bench.upstream import quiet

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
        EndpointError: the server does not answer before the first request, or any more after the
            last one. Every request that ended has been handed over by then.
    """
    import numpy as np

    serving = upstream.serving()
    backend = CHAT if is_chat else NATIVE
    serving.set_global_args(_arguments(backend))
    np.random.seed(seed % 2**32)
    num_ok = 0

    def count(request: Request) -> None:
        nonlocal num_ok
        num_ok += request.ok
        on_request(request)

    with recorded(serving, backend, count), _steady(), quiet():
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
        except OSError as error:  # its last question, after all requests, finds no server
            raise EndpointError(f"{url} was lost during a block ({reason(error)})") from error
        except (ValueError, IndexError):
            # Upstream's summary has no answer for a block in which nothing succeeded; each request
            # has been recorded with its own error by then.
            if num_ok:
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
def _steady() -> Iterator[None]:
    """No pause for garbage: with torch in the process a full collection takes longer than a token,
    so what lives now is left out of it."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
