"""What runs on a Hopper GPU if nothing is said, and parts of it, in a server. Needs a Hopper GPU.

The bundled model with what those kernels ask for: an index_topk of 2,048, and every attention head
twice, its share of the output halved, which changes no output but for rounding. A document of
more than 16 x index_topk tokens. Upstream's own fused top-k does not repeat its answers bit for
bit, so neither is compared so: see SAME_MODEL.
"""

import os
from functools import partial

import pytest
import torch
from _answers import ask, check_gap, logprobs
from _at_once import AtOnce
from _checkpoints import copy_of, repeat_heads
from _gpu_servers import ALL_OFF, SAME_MODEL, SPARSE
from _recall import recall
from _server import running

from sglang_ic.demo import bundled_model
from sglang_ic.hopper.fused_hooks import FEWEST_KEYS
from sglang_ic.hopper.switches import DECODE_ATTENTION, OFF, PREFILL_SCORES
from sglang_ic.latency import trace
from sglang_ic.latency.target import trace_file

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here"),
]

TOPK, HEADS = 2048, 8
LENGTHS = (36_000, 9000, 17_000)
PAST_FEWEST_KEYS = 58_000  # where the model need not know what to say
NEW_TOKENS = 16  # a list that is asked for, and what the model says then
PATTERN = "FFFSFFFSFFFSFFSS"
FLAGS = [
    *("--max-total-tokens", "131072", "--mem-fraction-static", "0.7", "--random-seed", "1"),
    *("--max-running-requests", "4", "--chunked-prefill-size", "8192"),
    *("--sampling-backend", "pytorch", "--index-cache-pattern", PATTERN),
]
# What is set, and whose kernels run then.
TOPK_KERNEL, SCORES_KERNEL = "_slots_kernel", "keep_kernel"
PREFILL, DECODE = "sparse_attention_kernel", "attend_to_split_kernel"
ARMS = {
    "off": (ALL_OFF, set()),
    "default": ({}, {TOPK_KERNEL, SCORES_KERNEL, PREFILL, DECODE}),
    "split": ({**ALL_OFF, DECODE_ATTENTION: "split"}, {DECODE}),
    "written": ({PREFILL_SCORES: OFF}, {TOPK_KERNEL, PREFILL, DECODE}),
}
OURS = set().union(*(kernels for _, kernels in ARMS.values()))


def with_more_heads(weights, config):
    repeat_heads(weights, config, HEADS // config["num_attention_heads"])
    config["index_topk"] = TOPK


@pytest.fixture(scope="module")
def asked() -> list[tuple[list[int], list[int]]]:
    """Prompts, the first of 16 x index_topk tokens, and what has to be said of each in decode."""
    found = [recall(length) for length in LENGTHS]
    assert len(found[0][0]) >= 16 * TOPK
    return found


@pytest.fixture(scope="module")
def long() -> list[int]:
    """A prompt whose last chunk is scored and selected from in one pass."""
    ids, _ = recall(PAST_FEWEST_KEYS)
    assert len(ids) >= FEWEST_KEYS + 4096
    return ids


def serve(folder, model, asked, long, variables):
    folder.mkdir()
    words = ["--model-path", str(model), *FLAGS]
    (first, _), *others = asked
    with running(folder, *words, env={**os.environ, **SPARSE, **variables}) as server:
        cold, cached = (ask(server, first, NEW_TOKENS, start=start) for start in (0, -1))
        # A long request, and two of other lengths in one batch, under the profiler.
        traces = {"output_dir": str(folder / "trace"), "activities": ["GPU"], "with_stack": False}
        server.post_text("/start_profile", traces)
        past = ask(server, long, 1)
        both = ask(server, [ids for ids, _ in others], NEW_TOKENS)
        server.post_text("/stop_profile", {})
        kernels = trace.read(trace_file(folder / "trace")).counts
    return {"answers": [cold, *both], "cached": cached, "long": past, "kernels": kernels}


@pytest.fixture(scope="module")
def answers(tmp_path_factory, asked, long):
    folder = tmp_path_factory.mktemp("defaults")
    model = copy_of(bundled_model(), folder / "model", with_more_heads)
    functions = {
        name: partial(serve, folder / name, model, asked, long, variables)
        for name, (variables, _) in ARMS.items()
    }
    with AtOnce(functions) as found:
        yield found


@pytest.mark.parametrize("name", ARMS)
def test_the_kernels_run_that_should(answers, name):
    found = {kernel for kernel in OURS if any(kernel in one for one in answers[name]["kernels"])}
    assert found == ARMS[name][1]


@pytest.mark.parametrize("name", [name for name in ARMS if name != "off"])
def test_prompts_are_predicted_as_with_upstreams_kernels(answers, name):
    ours, theirs = ([*answers[one]["answers"], answers[one]["long"]] for one in (name, "off"))
    for one, other in zip(ours, theirs, strict=True):
        upto = one["meta_info"]["prompt_tokens"] - 1
        check_gap(name, logprobs(one)[:upto], logprobs(other)[:upto], SAME_MODEL)


@pytest.mark.parametrize("name", ARMS)
def test_what_stands_in_the_context_is_said(asked, answers, name):
    found = [*answers[name]["answers"], answers[name]["cached"]]
    for answer, (_, words) in zip(found, [*asked, asked[0]], strict=True):
        assert answer["output_ids"][: len(words)] == words
    assert found[-1]["meta_info"]["cached_tokens"] > 16 * TOPK - 128


@pytest.mark.parametrize("name", [name for name in ARMS if name != "off"])
def test_tokens_are_predicted_as_with_upstreams_kernels(asked, answers, name):
    """One by one, while they agree: behind the words stands what no context decides."""
    ours, theirs = (answers[one]["answers"] for one in (name, "off"))
    gaps = [alike(one, other) for one, other in zip(ours, theirs, strict=True)]
    for (_, words), gap in zip(asked, gaps, strict=True):
        assert len(gap) >= len(words)
    found = torch.tensor([one for gap in gaps for one in gap])
    check_gap(f"{name}, {len(found)} tokens", found, torch.zeros_like(found), SAME_MODEL)


def alike(one, other) -> list[float]:
    """How far the log-probabilities of generated tokens are apart, up to the first that differs."""
    found = []
    rows = (answer["meta_info"]["output_token_logprobs"] for answer in (one, other))
    for (ours, token, _), (theirs, token_again, _) in zip(*rows, strict=True):
        if token != token_again:
            break
        found.append(ours - theirs)
    return found
