"""Multi-token prediction on a served pattern: the fork says what stock says. Needs a Hopper GPU.

    fork = stock told `indexer_types`, both with a draft    equal, bit for bit, and the same drafts
    with a draft = without one                              a verify pass has kernels of its own:
                                                            see SAME_MODEL

The bundled model with an MTP layer of made-up weights, most of whose drafts are refused; a document
that it was not trained on, 16 x index_topk tokens, every replacement of
sglang_ic.hopper turned off. For the first, name the folder that holds the unpatched package in
SGLANG_IC_STOCK_SITE.
"""

import json
from functools import partial

import pytest
import torch
from _answers import ask, check_gap, logprobs
from _at_once import AtOnce
from _checkpoints import copy_of, draft_weights, widen
from _gpu_servers import EXACT, NO_STOCK, SAME_MODEL, in_stocks_words, run_as_stock
from _recall import recall
from _server import running

from sglang_ic.demo import bundled_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here"),
]

PATTERN = "FFFSFFFSFFFSFFSS"
NEW_TOKENS = 12
FLAGS = [
    *("--max-total-tokens", "20480", "--mem-fraction-static", "0.7", "--random-seed", "1"),
    *("--max-running-requests", "2", "--cuda-graph-bs-decode", "1", "2"),
    *("--disable-prefill-cuda-graph", "--chunked-prefill-size", "4096"),
    *("--sampling-backend", "pytorch", "--dsa-topk-backend", "torch"),
]
DRAFT = [
    *("--speculative-algorithm", "EAGLE", "--speculative-num-steps", "2"),
    *("--speculative-eagle-topk", "1", "--speculative-num-draft-tokens", "3"),
    *("--speculative-dsa-topk-backend", "torch"),
]


def with_draft(weights, config):
    widen(weights, config, 512)  # upstream's kernel for a draft's input takes multiples of 256
    weights |= draft_weights(weights, config)
    config["num_nextn_predict_layers"] = 1


@pytest.fixture(scope="module")
def asked() -> tuple[list[int], list[int]]:
    ids, words = recall(2400)
    assert len(ids) >= 16 * 128
    return ids, words


def serve(folder, model, ids, words, **kwargs):
    folder.mkdir()
    kwargs.setdefault("env", EXACT)
    with running(folder, "--model-path", str(model), *FLAGS, *words, **kwargs) as server:
        return {"long": ask(server, ids, NEW_TOKENS), "short": ask(server, ids[:300], NEW_TOKENS)}


def stock(folder, model, ids):
    as_stock = run_as_stock()
    if as_stock is None:
        return None
    words = [*DRAFT, "--json-model-override-args", json.dumps(in_stocks_words(PATTERN))]
    return serve(folder, model, ids, words, **as_stock)


@pytest.fixture(scope="module")
def answers(tmp_path_factory, asked):
    ids, _ = asked
    folder = tmp_path_factory.mktemp("mtp")
    model = copy_of(bundled_model(), folder / "model", with_draft)
    pattern = ["--index-cache-pattern", PATTERN]
    functions = {
        "stock": partial(stock, folder / "stock", model, ids),
        "fork": partial(serve, folder / "fork", model, ids, [*pattern, *DRAFT]),
        "alone": partial(serve, folder / "alone", model, ids, pattern),
    }
    with AtOnce(functions) as found:
        yield found


def drafts(answer) -> tuple[int, int]:
    """Verify passes, and drafts that they accepted."""
    meta = answer["meta_info"]
    return meta["spec_verify_ct"], meta["spec_num_correct_drafts"]


@pytest.mark.parametrize("length", ["long", "short"])
def test_stock_told_the_pattern_says_and_drafts_the_same(answers, length):
    if answers["stock"] is None:
        pytest.skip(NO_STOCK)
    theirs, ours = answers["stock"][length], answers["fork"][length]
    print(json.dumps({"verify passes, accepted drafts": drafts(ours)}))
    assert drafts(ours) == drafts(theirs)
    assert 0 < drafts(ours)[0] <= len(ours["output_ids"])
    assert ours["output_ids"] == theirs["output_ids"]
    assert torch.equal(logprobs(ours), logprobs(theirs))


def test_a_draft_changes_no_answer(asked, answers):
    """The prompt is predicted alike; verify passes too say what stands in the context."""
    ids, words = asked
    ours, alone = answers["fork"]["long"], answers["alone"]["long"]
    upto = len(ids) - 1 + len(words)
    assert ours["output_ids"][: len(words)] == alone["output_ids"][: len(words)] == words
    check_gap("with a draft", logprobs(ours)[:upto], logprobs(alone)[:upto], SAME_MODEL)
