"""What runs on a Hopper GPU if nothing is said, and fused scores, in a server. Needs a Hopper GPU.

The bundled model with what those kernels ask for: an index_topk of 2,048, and every attention head
twice, its share of the output halved, which changes no output but for rounding. A document of
16 x index_topk tokens. Upstream's own fused top-k does not repeat its answers bit for bit, so
neither is compared so: see SAME_MODEL in test_parity.py.
"""

import os
from functools import partial

import pytest
import torch
from _answers import ask, check_gap, logprobs
from _at_once import AtOnce
from _checkpoints import copy_of, repeat_heads
from _server import running

from sglang_ic.demo import bundled_model
from sglang_ic.hopper.switches import NAMES, OFF, PREFILL_ATTENTION, PREFILL_SCORES
from sglang_ic.latency import trace
from sglang_ic.latency.target import trace_file

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here"),
]

TOPK, HEADS = 2048, 8
PATTERN = "FFFSFFFSFFFSFFSS"
FLAGS = [
    *("--max-total-tokens", "131072", "--mem-fraction-static", "0.7", "--random-seed", "1"),
    *("--max-running-requests", "4", "--chunked-prefill-size", "8192"),
    *("--sampling-backend", "pytorch", "--index-cache-pattern", PATTERN),
]
ALL_OFF = dict.fromkeys(NAMES, OFF)
# What is set, and whose kernels run then.
ARMS = {
    "off": (ALL_OFF, set()),
    "default": ({}, {"sparse_attention_kernel", "_slots_kernel"}),
    "attention": ({**ALL_OFF, PREFILL_ATTENTION: "heads"}, {"sparse_attention_kernel"}),
    "fused": ({PREFILL_SCORES: "fused"}, {"sparse_attention_kernel", "keep_kernel"}),
}
OURS = set().union(*(kernels for _, kernels in ARMS.values()))
# Of log-probabilities over the prompt, as in test_parity.py.
SAME_MODEL = {"median": 0.01, "mean": 0.03}


def with_more_heads(weights, config):
    repeat_heads(weights, HEADS // config["num_attention_heads"])
    heads = {"num_attention_heads": HEADS, "num_key_value_heads": HEADS}
    config |= {**heads, "index_topk": TOPK}


@pytest.fixture(scope="module")
def prompt() -> list[int]:
    from transformers import AutoTokenizer

    from sglang_ic.demo.documents import documents

    tokenizer = AutoTokenizer.from_pretrained(bundled_model())
    (document,) = documents("test", length=36_000, count=1)
    ids = tokenizer(document.text).input_ids
    assert len(ids) >= 16 * TOPK
    return ids


def serve(folder, model, prompt, variables):
    folder.mkdir()
    words = ["--model-path", str(model), *FLAGS]
    with running(folder, *words, env={**os.environ, **variables}) as server:
        found = {"cold": ask(server, prompt, 4), "cached": ask(server, prompt, 4, start=-1)}
        # Two requests of other lengths in one batch, under the profiler.
        both = [prompt[::-1][:9000], prompt[1000:18_000]]
        traces = {"output_dir": str(folder / "trace"), "activities": ["GPU"], "with_stack": False}
        server.post_text("/start_profile", traces)
        found["both"] = ask(server, both, 4)
        server.post_text("/stop_profile", {})
        found["kernels"] = trace.read(trace_file(folder / "trace")).counts
    return found


@pytest.fixture(scope="module")
def answers(tmp_path_factory, prompt):
    folder = tmp_path_factory.mktemp("defaults")
    model = copy_of(bundled_model(), folder / "model", with_more_heads)
    functions = {
        name: partial(serve, folder / name, model, prompt, variables)
        for name, (variables, _) in ARMS.items()
    }
    with AtOnce(functions) as found:
        yield found


def of_prompt(answer) -> torch.Tensor:
    return logprobs(answer)[: answer["meta_info"]["prompt_tokens"] - 1]


@pytest.mark.parametrize("name", ARMS)
def test_the_kernels_run_that_should(answers, name):
    found = {kernel for kernel in OURS if any(kernel in one for one in answers[name]["kernels"])}
    assert found == ARMS[name][1]


@pytest.mark.parametrize("name", [name for name in ARMS if name != "off"])
def test_the_prompt_is_predicted_as_with_upstreams_kernels(answers, name):
    """Whole, and two of other lengths in one batch."""
    ours, theirs = answers[name], answers["off"]
    pairs = [(ours["cold"], theirs["cold"]), *zip(ours["both"], theirs["both"], strict=True)]
    for one, other in pairs:
        check_gap(name, of_prompt(one), of_prompt(other), SAME_MODEL)


@pytest.mark.parametrize("name", ARMS)
def test_a_cached_prompt_is_continued_as_a_cold_one(answers, name):
    cold, cached = answers[name]["cold"], answers[name]["cached"]
    assert cached["meta_info"]["cached_tokens"] > 16 * TOPK - 128
    first, again = (one["meta_info"]["output_token_logprobs"][0] for one in (cold, cached))
    assert first[1] == again[1]
    assert abs(first[0] - again[0]) < SAME_MODEL["mean"]
