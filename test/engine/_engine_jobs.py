"""Jobs of `_driver.py` that start `sglang.Engine`: a real scheduler, in processes of its own."""

import os
from collections.abc import Sequence
from contextlib import contextmanager

from _runner import CPU_ARGS

NUM_NEW_TOKENS = 8
# Prompts up to here are prefilled in one pass. A multiple of the page size (64).
CHUNKED_PREFILL_SIZE = 640
SHARED_LEN = 512


@contextmanager
def engine(model: str, override: str):
    """A running `sglang.Engine`.

    Args:
        override: JSON, for --json-model-override-args.
    """
    import sglang
    from sglang.srt.plugins import load_plugins

    load_plugins()  # this process has them already (SGLANG_PLUGINS says none) ...
    os.environ["SGLANG_PLUGINS"] = "sglang_ic,sglang_ic_cpu"  # ... the scheduler loads its own
    # Upstream compiles its router on first use: seconds per process, and not what is tested here.
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    started = sglang.Engine(
        model_path=model,
        json_model_override_args=override,
        chunked_prefill_size=CHUNKED_PREFILL_SIZE,
        sampling_backend="pytorch",
        sleep_on_idle=True,  # a waiting scheduler would use up a core
        **CPU_ARGS,
    )
    try:
        yield started
    finally:
        started.shutdown()


def serve(
    model: str,
    override: str,
    requests: Sequence[tuple[str, list[list[int]], list[int]]],
    refused: Sequence[str],
) -> dict:
    """Ask for the same tokens cold, from the cache, in turns, in chunks and together.

    Args:
        requests: (pattern, prompts, turn): prompts share their first `SHARED_LEN` tokens, fit in
            one chunk and differ after; `turn` follows the answer to the first and makes the
            conversation longer than a chunk.
        refused: patterns to set at the end that the engine should refuse.
    Returns:
        `answers`: for each request a dict of answers, see `ask`, by how they were asked for;
        `refusals`: see `refusals`.
    """
    with engine(model, override) as started:
        return {
            "answers": [_serve(started, *request) for request in requests],
            "refusals": _refusals(started, refused, requests[0][1][0]),
        }


def _serve(engine, pattern: str, prompts: list[list[int]], turn: list[int]) -> dict:
    ask(engine, prompts[:1])  # into the cache, under the pattern before
    engine.collective_rpc("set_index_cache_pattern", pattern=pattern)
    info = engine.get_server_info()["internal_states"][0]["index_cache"]
    answers = {"pattern": info["pattern"]}
    (answers["cold 0"],) = ask(engine, prompts[:1])
    (answers["cached"],) = ask(engine, prompts[:1], start=SHARED_LEN)
    conversation = prompts[0] + answers["cold 0"]["tokens"] + turn
    (answers["continued"],) = ask(engine, [conversation], start=len(prompts[0]))
    engine.flush_cache()
    (answers["chunked"],) = ask(engine, [conversation])
    for number, prompt in enumerate(prompts[1:], start=1):
        engine.flush_cache()
        (answers[f"cold {number}"],) = ask(engine, [prompt])
    engine.flush_cache()
    for name, start in (("together, cold", 0), ("together, cached", SHARED_LEN)):
        answers[name] = ask(engine, prompts, start)
    return answers


def ask(engine, prompts: list[list[int]], start: int = 0) -> list[dict]:
    """Greedy answers to prompts sent at once.

    Args:
        start: log-probabilities are wanted from this position on; SGLang takes at most this many
            tokens from the cache then.
    Returns:
        Per prompt: `ids`, the prompt and the answer; `tokens`, the answer; `logprobs`: position in
        `ids` -> that token's log-probability; `cached`: number of tokens from the cache.
    """
    outputs = engine.generate(
        input_ids=prompts,
        sampling_params={"temperature": 0, "max_new_tokens": NUM_NEW_TOKENS, "ignore_eos": True},
        return_logprob=True,
        logprob_start_len=start,
    )
    return [
        _answer(prompt, output["meta_info"])
        for prompt, output in zip(prompts, outputs, strict=True)
    ]


def _answer(prompt: list[int], meta: dict) -> dict:
    tokens = [token for _, token, _ in meta["output_token_logprobs"]]
    ids = prompt + tokens
    reported = meta["input_token_logprobs"] + meta["output_token_logprobs"]
    first = len(ids) - len(reported)
    assert [token for _, token, _ in reported] == ids[first:]
    return {
        "ids": ids,
        "tokens": tokens,
        # SGLang has none for the first token it reports.
        "logprobs": {
            first + i: value for i, (value, _, _) in enumerate(reported) if value is not None
        },
        "cached": meta["cached_tokens"],
    }


def refusals(model: str, override: str, refused: Sequence[str], prompt: list[int]) -> dict:
    """What `set_index_cache_pattern` says to each of `refused`, and while a request is running.

    Returns:
        `errors`: the message that the caller got for each, None if it got none; `running`: the
        same for "full" in the middle of a request; `before` and `after`: answers around all that.
    """
    with engine(model, override) as started:
        return _refusals(started, refused, prompt)


def _refusals(engine, refused: Sequence[str], prompt: list[int]) -> dict:
    (before,) = ask(engine, [prompt])
    errors = [_error(engine, pattern) for pattern in refused]
    running = engine.loop.run_until_complete(_error_in_mid_request(engine, prompt))
    (after,) = ask(engine, [prompt], start=SHARED_LEN)
    return {"errors": errors, "running": running, "before": before, "after": after}


def _error(engine, pattern: str) -> str | None:
    try:
        engine.collective_rpc("set_index_cache_pattern", pattern=pattern)
    except AssertionError as error:  # what collective_rpc raises for every failure
        return str(error)
    return None


async def _error_in_mid_request(engine, prompt: list[int]) -> str | None:
    stream = await engine.async_generate(
        input_ids=prompt,
        sampling_params={"temperature": 0, "max_new_tokens": 64, "ignore_eos": True},
        stream=True,
    )
    await anext(stream)
    error = _error(engine, "full")
    async for _ in stream:
        pass
    return error
