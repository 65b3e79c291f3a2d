"""The fork on an NVIDIA GPU: served, obeyed, counted, equal to stock. Needs a Hopper GPU.

Run with `python -m pytest test/gpu` in an environment with the patched SGLang. For the comparison
with stock, name the folder that holds the unpatched package in SGLANG_IC_STOCK_SITE.
"""

import json
from functools import partial

import pytest
import torch
from _answers import ask, logprobs
from _at_once import AtOnce
from _gpu_servers import EXACT, NO_STOCK, run_as_stock
from _server import running

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here"),
]

PATTERN = "FSFSSSSFSSSSSFSS"
FLAGS = [
    # A small pool, so that other tests may run beside on the same GPU.
    *("--max-total-tokens", "20480", "--mem-fraction-static", "0.7"),
    *("--max-running-requests", "4"),
    *("--cuda-graph-bs-decode", "1", "2", "--sampling-backend", "pytorch"),
    *("--chunked-prefill-size", "1024", "--random-seed", "1", "--enable-metrics"),
    # Upstream's fused top-k takes index_topk 2048 only, and may break ties either way.
    *("--dsa-topk-backend", "torch"),
]
EAGER_PREFILL = ["--disable-prefill-cuda-graph"]
# 16 x index_topk (128) and more; byte-level ids of the bundled model.
PROMPT = [3 + (7919 * i + i // 7) % 250 for i in range(3000)]
NEW_TOKENS = 32


def model_dir():
    from sglang_ic.demo import bundled_model

    return str(bundled_model())


def serve_once(tmp_path, *flags, **kwargs):
    kwargs.setdefault("env", EXACT)
    with running(tmp_path, "--model-path", model_dir(), *FLAGS, *flags, **kwargs) as server:
        first, again = (ask(server, PROMPT, NEW_TOKENS) for _ in range(2))
        before = server.get("/index_cache") if "module" not in kwargs else None
        short = ask(server, PROMPT[:600:2], 20)
        after = server.get("/index_cache") if "module" not in kwargs else None
        metric = (
            server.metric("sglang:index_cache_indexer_run_total")
            if "module" not in kwargs
            else None
        )
        log = server.log.read_text()
    return {
        "first": first,
        "again": again,
        "short": short,
        "before": before,
        "after": after,
        "metric": metric,
        "log": log,
    }


def stock_once(tmp_path):
    as_stock = run_as_stock()
    if as_stock is None:
        return None
    return serve_once(tmp_path, *EAGER_PREFILL, **as_stock)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    new = tmp_path_factory.mktemp
    pattern = ["--index-cache-pattern", PATTERN]
    full = ["--index-cache-pattern", "full"]
    functions = {
        "shared": partial(serve_once, new("shared"), *pattern, *EAGER_PREFILL),
        "full": partial(serve_once, new("full"), *full, *EAGER_PREFILL),
        "graphed": partial(serve_once, new("graphed"), *pattern),
        "stock": partial(stock_once, new("stock")),
    }
    with AtOnce(functions) as found:
        yield found


@pytest.fixture
def shared(served):
    return served["shared"]


@pytest.fixture
def full(served):
    return served["full"]


def test_pattern_is_served_and_shared_layers_hold_no_index_k(shared):
    info = shared["after"]
    assert info["pattern"] == PATTERN
    sizes = info["index_k_bytes_per_layer"]
    assert [size > 0 for size in sizes] == [role == "F" for role in PATTERN]


def test_counters_are_right_under_cuda_graph_replay(shared):
    assert "Capture" in shared["log"] and "cuda graph" in shared["log"].lower()
    run = shared["after"]["indexer_run_total"] - shared["before"]["indexer_run_total"]
    skipped = shared["after"]["indexer_skipped_total"] - shared["before"]["indexer_skipped_total"]
    # One prefill pass, then a decode pass per further token; the overlap scheduler may add one.
    assert run in (4 * 20, 4 * 21), run
    assert skipped == 3 * run
    assert shared["metric"] == shared["after"]["indexer_run_total"]


def test_pattern_changes_the_answer_only_past_index_topk(shared, full):
    """Below index_topk both select the same tokens, in another order: bf16 sums differ by rounding,
    which random weights amplify. Past it the selections themselves differ."""
    difference = (logprobs(shared["first"]) - logprobs(full["first"])).abs()
    below, past = difference[:120], difference[2048:3000]
    print(
        json.dumps(
            {"median_dlogprob": {"below": below.median().item(), "past": past.median().item()}}
        )
    )
    assert past.median() > 10 * below.median()


def test_cached_prompt_continues_with_the_same_tokens(shared):
    assert shared["again"]["meta_info"]["cached_tokens"] > 0 or shared["again"]["meta_info"][
        "prompt_tokens"
    ] == len(PROMPT)
    assert shared["again"]["output_ids"][:4] == shared["first"]["output_ids"][:4]


def test_prefill_cuda_graph_keeps_the_answer(served, shared):
    graphed = served["graphed"]
    difference = (logprobs(graphed["first"]) - logprobs(shared["first"])).abs()
    print(json.dumps({"prefill_graph_max_dlogprob": difference.max().item()}))
    assert difference.mean() < 0.02


def test_all_full_equals_stock(served, full):
    stock = served["stock"]
    if stock is None:
        pytest.skip(NO_STOCK)
    for name in ("first", "again", "short"):
        a, b = logprobs(stock[name]), logprobs(full[name])
        print(json.dumps({name: (a - b).abs().max().item()}))
        assert stock[name]["output_ids"] == full[name]["output_ids"]
        assert torch.equal(a, b)
