"""SGLang's own scale-out with Shared layers, on CPU: two processes say what one says.

    --tp 2        every layer's heads on two ranks: sums in another order, so equal up to rounding
    --pp-size 2   the first 8 layers here, the others there; the selection crosses the boundary
    --dp-size 2   two whole copies; with --enable-dp-attention the ranks share experts, and an
                  idle rank runs padding

The bundled model, 16 x index_topk tokens. Every rank gets a processor of its own, by name, because
upstream otherwise wants a NUMA node for each.
"""

import os

import pytest
import torch
from _server import running, two_processors

from sglang_ic.demo.documents import documents

pytestmark = pytest.mark.engine

# The second stage of two begins with Shared layers, which reuse layer 6's selection.
PATTERN = "FSFSSSFSSSFSSFSS"
NEW_TOKENS = 8
EXACT, ROUNDED = 0.0, 1e-3  # largest difference in log-probability
MODES = {
    "tensor": (["--tp", "2"], ROUNDED),
    "pipeline": (["--pp-size", "2"], EXACT),
    "data": (["--dp-size", "2"], EXACT),
    "data, attention": (["--tp", "2", "--dp-size", "2", "--enable-dp-attention"], ROUNDED),
}


def ask(tmp_path, *flags, ranks=(None,), **variables) -> tuple[list[dict], dict]:
    """Each data-parallel rank's answer to a long document, and what the server says of itself."""
    (document,) = documents("test", length=2200, count=1)
    question = next(one for one in document.answers if one.task == "multi_key")
    words = ["--index-cache-pattern", PATTERN, "--max-total-tokens", "8192", *flags]
    environment = {**os.environ, **variables}
    with running(tmp_path, *words, env=environment) as server:
        body = {"text": document.text[: question.start], "return_logprob": True}
        sampling = {"max_new_tokens": NEW_TOKENS, "temperature": 0, "ignore_eos": True}
        body |= {"logprob_start_len": 0, "sampling_params": sampling}
        answers = [server.post("/generate", {**body, "routed_dp_rank": rank}) for rank in ranks]
        info = server.get("/index_cache")
    for answer in answers:
        assert answer["meta_info"]["prompt_tokens"] >= 16 * 128
        assert answer["meta_info"]["cached_tokens"] == 0  # so every rank computed its own
    return answers, info


def logprobs(answer: dict) -> torch.Tensor:
    meta = answer["meta_info"]
    rows = meta["input_token_logprobs"][1:] + meta["output_token_logprobs"]
    return torch.tensor([row[0] for row in rows], dtype=torch.float64)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    first, _, _ = two_processors().partition("|")
    (answer,), _ = ask(tmp_path_factory.mktemp("alone"), SGLANG_CPU_OMP_THREADS_BIND=first)
    return answer


@pytest.mark.parametrize("mode", MODES)
def test_two_processes_say_what_one_says(tmp_path, alone, mode):
    flags, most = MODES[mode]
    ranks = (0, 1) if "--dp-size" in flags else (None,)
    answers, info = ask(tmp_path, *flags, ranks=ranks, SGLANG_CPU_OMP_THREADS_BIND=two_processors())
    for answer in answers:
        assert answer["output_ids"] == alone["output_ids"]
        difference = (logprobs(answer) - logprobs(alone)).abs()
        print({mode: difference.max().item()})
        assert difference.max() <= most
    assert info["pattern"] == PATTERN
