"""Tensor parallelism on two GPUs, with Shared layers. Needs two Hopper GPUs of one host.

    fork = stock told `indexer_types`, both on two GPUs     equal, bit for bit
    two GPUs = one                                          sums over heads in another order
    what runs by default = upstream's kernels, on two       bf16 rounding: see SAME_MODEL

The bundled model in the first two, with every replacement of sglang_ic.hopper turned off; in the
last with 16 heads, 8 a rank, and an index_topk of 2,048. Ranks speak through NCCL alone: the other
all-reduces of upstream may use NVLink multicast, which a host that others share may forbid.
"""

import json
import os
from functools import partial

import pytest
import torch
from _answers import ask, check_gap, logprobs
from _at_once import AtOnce
from _checkpoints import copy_of, repeat_heads
from _gpu_servers import (
    ALL_OFF,
    EXACT,
    NO_STOCK,
    SAME_MODEL,
    SPARSE,
    in_stocks_words,
    run_as_stock,
)
from _recall import recall
from _server import running

from sglang_ic.demo import bundled_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no two NVIDIA GPUs here"),
]

PATTERN = "FFFSFFFSFFFSFFSS"
HEADS = 16
SHORT, LONG = 2400, 36_000  # about 16 x index_topk of 128 and of 2,048, and more
NEW_TOKENS = 3
TWO = [
    *("--tp-size", "2", "--disable-custom-all-reduce"),
    "--enforce-disable-flashinfer-allreduce-fusion",
]
FLAGS = [
    *("--max-total-tokens", "65536", "--mem-fraction-static", "0.7", "--random-seed", "1"),
    *("--max-running-requests", "2", "--cuda-graph-bs-decode", "1", "2"),
    *("--disable-prefill-cuda-graph", "--chunked-prefill-size", "4096"),
    *("--sampling-backend", "pytorch"),
]
EXACT_FLAGS = ["--dsa-topk-backend", "torch"]
DEFAULT = {**os.environ, **SPARSE}


def with_more_heads(weights, config):
    repeat_heads(weights, config, HEADS // config["num_attention_heads"])
    config["index_topk"] = 2048


def serve(folder, ids, words, model=None, **kwargs):
    folder.mkdir()
    path = ["--model-path", str(model or bundled_model())]
    with running(folder, *path, *FLAGS, *words, **kwargs) as server:
        return ask(server, ids, NEW_TOKENS)


def stock(folder, ids):
    as_stock = run_as_stock()
    if as_stock is None:
        return None
    words = [*EXACT_FLAGS, *TWO, "--json-model-override-args", json.dumps(in_stocks_words(PATTERN))]
    return serve(folder, ids, words, **as_stock)


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tensor")
    more = copy_of(bundled_model(), folder / "model", with_more_heads)
    pattern = ["--index-cache-pattern", PATTERN]
    short, long = (recall(length)[0] for length in (SHORT, LONG))
    exact = [*EXACT_FLAGS, *pattern]
    functions = {
        "stock, two": partial(stock, folder / "stock", short),
        "two": partial(serve, folder / "two", short, [*exact, *TWO], env=EXACT),
        "one": partial(serve, folder / "one", short, exact, env=EXACT),
        "off": partial(
            serve, folder / "off", long, [*pattern, *TWO], more, env={**DEFAULT, **ALL_OFF}
        ),
        "default": partial(serve, folder / "default", long, [*pattern, *TWO], more, env=DEFAULT),
    }
    with AtOnce(functions) as found:
        yield found


def test_stock_told_the_pattern_says_the_same(answers):
    theirs, ours = answers["stock, two"], answers["two"]
    if theirs is None:
        pytest.skip(NO_STOCK)
    assert theirs["output_ids"] == ours["output_ids"]
    assert torch.equal(logprobs(theirs), logprobs(ours))


@pytest.mark.parametrize(("names", "length"), [(("two", "one"), SHORT), (("default", "off"), LONG)])
def test_two_servers_predict_alike_and_say_what_stands_in_the_context(answers, names, length):
    ids, words = recall(length)
    assert len(ids) >= 16 * {SHORT: 128, LONG: 2048}[length]
    ours, theirs = (answers[name] for name in names)
    check_gap(" = ".join(names), logprobs(ours), logprobs(theirs), SAME_MODEL)
    assert ours["output_ids"] == theirs["output_ids"] == words[:NEW_TOKENS]
