"""What runs on a Hopper GPU if nothing is said, and fused scores, in a server. Needs a Hopper GPU.

The bundled model with what those kernels ask for: an index_topk of 2,048, and every attention head
twice, its share of the output halved, which changes no output but for rounding. A document of
16 x index_topk tokens. Upstream's own fused top-k does not repeat its answers bit for bit, so
neither is compared so: see SAME_MODEL in test_parity.py.
"""

import json
import os
from functools import partial

import pytest
import torch
from _answers import ask, check_gap, logprobs
from _at_once import AtOnce
from _checkpoints import copy_of, repeat_heads
from _server import running

from sglang_ic.demo import bundled_model
from sglang_ic.hopper.switches import DECODE_ATTENTION, NAMES, OFF, PREFILL_SCORES
from sglang_ic.latency import trace
from sglang_ic.latency.target import trace_file

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here"),
]

TOPK, HEADS = 2048, 8
NEW_TOKENS = 16
PATTERN = "FFFSFFFSFFFSFFSS"
FLAGS = [
    *("--max-total-tokens", "131072", "--mem-fraction-static", "0.7", "--random-seed", "1"),
    *("--max-running-requests", "4", "--chunked-prefill-size", "8192"),
    *("--sampling-backend", "pytorch", "--index-cache-pattern", PATTERN),
]
SPARSE = {"SGLANG_DSA_PREFILL_DENSE_ATTN_KV_LEN_THRESHOLD": "0"}
ALL_OFF = dict.fromkeys(NAMES, OFF)
# What is set, and whose kernels run then.
PREFILL, DECODE = "sparse_attention_kernel", "attend_to_split_kernel"
ARMS = {
    "off": (ALL_OFF, set()),
    "default": ({}, {PREFILL, "_slots_kernel", DECODE}),
    "decode": ({**ALL_OFF, DECODE_ATTENTION: "split"}, {DECODE}),
    "fused": ({PREFILL_SCORES: "fused"}, {PREFILL, "keep_kernel", DECODE}),
}
OURS = set().union(*(kernels for _, kernels in ARMS.values()))
# Of log-probabilities over the prompt, as in test_parity.py.
SAME_MODEL = {"median": 0.01, "mean": 0.03}


def with_more_heads(weights, config):
    repeat_heads(weights, HEADS // config["num_attention_heads"])
    heads = {"num_attention_heads": HEADS, "num_key_value_heads": HEADS}
    config |= {**heads, "index_topk": TOPK}


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """Beginnings of documents, the first of 16 x index_topk tokens."""
    from transformers import AutoTokenizer

    from sglang_ic.demo.documents import documents

    tokenizer = AutoTokenizer.from_pretrained(bundled_model())
    lengths = (16 * TOPK, 9000, 17_000)
    found = documents("test", length=36_000, count=len(lengths))
    cut = [tokenizer(one.text).input_ids[:n] for one, n in zip(found, lengths, strict=True)]
    assert [len(ids) for ids in cut] == list(lengths)
    return cut


def serve(folder, model, prompts, variables):
    folder.mkdir()
    words = ["--model-path", str(model), *FLAGS]
    with running(folder, *words, env={**os.environ, **SPARSE, **variables}) as server:
        one, *both = prompts
        found = {"cold": ask(server, one, NEW_TOKENS), "cached": ask(server, one, 4, start=-1)}
        # Two requests of other lengths in one batch, under the profiler.
        traces = {"output_dir": str(folder / "trace"), "activities": ["GPU"], "with_stack": False}
        server.post_text("/start_profile", traces)
        found["both"] = ask(server, both, NEW_TOKENS)
        server.post_text("/stop_profile", {})
        found["kernels"] = trace.read(trace_file(folder / "trace")).counts
    return found


@pytest.fixture(scope="module")
def answers(tmp_path_factory, prompts):
    folder = tmp_path_factory.mktemp("defaults")
    model = copy_of(bundled_model(), folder / "model", with_more_heads)
    functions = {
        name: partial(serve, folder / name, model, prompts, variables)
        for name, (variables, _) in ARMS.items()
    }
    with AtOnce(functions) as found:
        yield found


def of_answer(one, other) -> list[tuple[float, float]]:
    """Log-probabilities of the generated tokens that two answers begin with alike."""
    found = []
    rows = (answer["meta_info"]["output_token_logprobs"] for answer in (one, other))
    for (ours, token, _), (theirs, token_again, _) in zip(*rows, strict=True):
        if token != token_again:
            break
        found.append((ours, theirs))
    return found


def of_prompt(answer) -> torch.Tensor:
    return logprobs(answer)[: answer["meta_info"]["prompt_tokens"] - 1]


@pytest.mark.parametrize("name", ARMS)
def test_the_kernels_run_that_should(answers, name):
    found = {kernel for kernel in OURS if any(kernel in one for one in answers[name]["kernels"])}
    assert found == ARMS[name][1]


@pytest.mark.parametrize("name", [name for name in ARMS if name != "off"])
def test_it_says_what_upstreams_kernels_say(answers, name):
    """The prompt, and two of other lengths in one batch; then what is generated, while it agrees:
    a near-tie may be continued otherwise."""
    ours, theirs = answers[name], answers["off"]
    pairs = [(ours["cold"], theirs["cold"]), *zip(ours["both"], theirs["both"], strict=True)]
    generated = []
    for one, other in pairs:
        check_gap(name, of_prompt(one), of_prompt(other), SAME_MODEL)
        generated += of_answer(one, other)
    print(json.dumps({"tokens alike": len(generated)}))
    assert len(generated) >= len(pairs) * NEW_TOKENS // 2
    check_gap(f"{name}, generated", *torch.tensor(generated).T, SAME_MODEL)


@pytest.mark.parametrize("name", ARMS)
def test_a_cached_prompt_is_continued_as_a_cold_one(answers, name):
    cold, cached = answers[name]["cold"], answers[name]["cached"]
    assert cached["meta_info"]["cached_tokens"] > 16 * TOPK - 128
    first, again = (one["meta_info"]["output_token_logprobs"][0] for one in (cold, cached))
    assert first[1] == again[1]
    assert abs(first[0] - again[0]) < SAME_MODEL["mean"]
