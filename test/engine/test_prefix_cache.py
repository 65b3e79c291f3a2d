"""The same tokens through a real scheduler in every way it can compute them, pattern by pattern.

One `sglang.Engine` with indexers everywhere takes all patterns (`set_index_cache_pattern`).
Prompts have 18 x index_topk tokens. Criterion: greedy tokens are equal, and every log-probability
that both ways report is within 1e-4, without exception.

A way may split the rows differently over forward passes, which changes roundings. Where two keys,
or two experts, score the same up to rounding, the two ways could then choose differently, and
outputs would differ by more. The prompts are chosen so that this does not happen: a test checks,
with the scores of transformers, that no row has its last chosen candidate and its first rejected
one closer than `NEAR_TIE` of the row's largest score. (Exact ties go to the lowest position.)
"""

import json

import pytest
import torch
from _engine_jobs import NUM_NEW_TOKENS, SHARED_LEN
from _environments import fork
from _hf import HfReference
from _parity_jobs import prompt

from sglang_ic.demo.tiny import write_checkpoint

pytestmark = pytest.mark.engine

INDEX_TOPK = 32
MAX_LOGPROB_GAP = 1e-4
NEAR_TIE = 2e-6
TAIL_LEN, TURN_LEN, NUM_PROMPTS = 64, 120, 3
# Pattern -> F/S text and the seed of its prompts.
PATTERNS = {
    "full": ("FFFFFFFF", 230),
    "freq:2": ("FFSFSFSF", 18),
    "freq:4": ("FFSSSFSS", 2),
    "freq:4,offset:1": ("FSSSFSSS", 14),
    "FSFFSSSF": ("FSFFSSSF", 25),
    "FFFSSFSF": ("FFFSSFSF", 32),
}
REFUSED = {
    "SFFFFFFF": "starts with S",
    "FSFS": "8 layers",
    "freq:0": "freq",
    "preset:none": "preset",
}


def prompts(seed: int) -> list[list[int]]:
    """Prompts that share their first tokens."""
    shared = prompt(SHARED_LEN, seed=1000 * seed)
    return [shared + prompt(TAIL_LEN, seed=1000 * seed + i) for i in range(1, NUM_PROMPTS + 1)]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(write_checkpoint(tmp_path_factory.mktemp("prefix-cache"), index_topk=INDEX_TOPK))


@pytest.fixture(scope="module")
def jobs(model):
    """The engine that takes every pattern, and one whose pattern is fixed; both started here."""
    everywhere = fork().submit(
        "_engine_jobs:serve",
        model=model,
        override=json.dumps({"index_cache_pattern": "full", "index_cache_build": "all"}),
        requests=[
            (pattern, prompts(seed), prompt(TURN_LEN, seed=1000 * seed + 999))
            for pattern, (_, seed) in PATTERNS.items()
        ],
        refused=list(REFUSED),
    )
    fixed = fork().submit(
        "_engine_jobs:refusals",
        model=model,
        override=json.dumps({"index_cache_pattern": "freq:4"}),
        refused=["full"],
        prompt=prompts(seed=0)[0],
    )
    return everywhere.result(), fixed.result()


@pytest.fixture(scope="module")
def answers(jobs) -> dict[str, dict]:
    return dict(zip(PATTERNS, jobs[0]["answers"], strict=True))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """As in the engine's processes: small operations lose more to threads than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=PATTERNS)
def served(request, answers) -> tuple[str, dict]:
    """A pattern as F/S text, and the answers under it."""
    return PATTERNS[request.param][0], answers[request.param]


def test_engine_uses_the_pattern_that_was_set(served):
    text, answers = served
    assert answers["pattern"] == text


def test_cache_is_used_when_it_may_be(served):
    _, answers = served
    cold = [answers["cold 0"], answers["cold 1"], answers["cold 2"], *answers["together, cold"]]
    assert [answer["cached"] for answer in cold] == [0] * 6
    assert answers["chunked"]["cached"] == 0
    assert answers["cached"]["cached"] == SHARED_LEN
    # Whole pages of 64 tokens, the first answer's included.
    assert answers["continued"]["cached"] == SHARED_LEN + TAIL_LEN
    assert [one["cached"] for one in answers["together, cached"]] == [SHARED_LEN] * NUM_PROMPTS


def test_cached_answer_equals_cold_answer(served):
    _, answers = served
    check_same(answers["cached"], answers["cold 0"], TAIL_LEN - 1 + NUM_NEW_TOKENS)


def test_chunked_prefill_equals_one_pass_and_decode(served):
    """The conversation, cold, contains the first prompt and, as input, the answer to it."""
    _, answers = served
    first = answers["cold 0"]
    assert answers["chunked"]["ids"][: len(first["ids"])] == first["ids"]
    check_same(answers["chunked"], first, len(first["ids"]) - 1)


def test_continued_conversation_equals_the_same_conversation_cold(served):
    _, answers = served
    num_positions = NUM_NEW_TOKENS + TURN_LEN - 1 + NUM_NEW_TOKENS
    check_same(answers["continued"], answers["chunked"], num_positions)


@pytest.mark.parametrize("way", ["cold", "cached"])
def test_requests_at_once_equal_each_alone(served, way):
    _, answers = served
    num_positions = {
        "cold": SHARED_LEN + TAIL_LEN - 1 + NUM_NEW_TOKENS,
        "cached": TAIL_LEN - 1 + NUM_NEW_TOKENS,
    }
    for number, answer in enumerate(answers[f"together, {way}"]):
        check_same(answer, answers[f"cold {number}"], num_positions[way])


def test_answers_equal_transformers_and_no_choice_is_a_near_tie(served, model):
    text, answers = served
    hf = HfReference(model, text)
    for name in ("chunked", "cold 1", "cold 2"):
        answer = answers[name]
        found = hf.run(answer["ids"])
        for kind, choices in (("keys", found.keys), ("experts", found.experts)):
            ties = {layer: near_ties(choice) for layer, choice in choices.items()}
            assert not any(ties.values()), f"{name}: {kind} are near-ties at layer -> rows {ties}"
        check_same(answer, {"ids": answer["ids"], "logprobs": own_logprobs(found, answer["ids"])})
        start = len(answer["ids"]) - NUM_NEW_TOKENS
        assert found.logprobs[start - 1 : -1].argmax(1).tolist() == answer["tokens"]


def test_comparison_sees_another_pattern(answers, model):
    answer = answers["freq:4"]["chunked"]
    other = own_logprobs(HfReference(model, "FSSSFSSS").run(answer["ids"]), answer["ids"])
    with pytest.raises(AssertionError, match="log-probabilities differ"):
        check_same(answer, {"ids": answer["ids"], "logprobs": other})


def test_bad_pattern_is_refused_and_changes_nothing(jobs):
    refusals = jobs[0]["refusals"]
    for (pattern, words), error in zip(REFUSED.items(), refusals["errors"], strict=True):
        assert error is not None, f"{pattern} was accepted"
        assert words in error and "\n" not in error, error
    # The cache is still there, and still right.
    assert refusals["after"]["cached"] == SHARED_LEN
    check_same(refusals["after"], refusals["before"], TAIL_LEN - 1 + NUM_NEW_TOKENS)


def test_pattern_is_refused_while_a_request_is_running(jobs):
    assert "requests are running" in jobs[0]["refusals"]["running"]


def test_engine_with_a_fixed_pattern_refuses_another(jobs):
    refusals = jobs[1]
    (error,) = refusals["errors"]
    assert "fixed" in error and "index_cache_build" in error
    assert refusals["after"]["cached"] == SHARED_LEN
    check_same(refusals["after"], refusals["before"], TAIL_LEN - 1 + NUM_NEW_TOKENS)


def own_logprobs(found, ids: list[int]) -> dict[int, float]:
    """Position -> log-probability that transformers gave to the token there."""
    picked = found.logprobs[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    return dict(enumerate(picked.tolist(), start=1))


def near_ties(choice) -> list[int]:
    """Rows whose last chosen and first rejected candidates score almost the same."""
    lowest_in = choice.scores.masked_fill(~choice.mask, float("inf")).amin(1)
    highest_out = choice.scores.masked_fill(choice.mask, float("-inf")).amax(1)
    scale = choice.scores.masked_fill(choice.scores.isinf(), 0).abs().amax(1)
    return (lowest_in - highest_out < NEAR_TIE * scale).nonzero().flatten().tolist()


def check_same(ours: dict, theirs: dict, num_positions: int | None = None) -> None:
    """Equal tokens, and close log-probabilities at the positions that both have."""
    common = sorted(ours["logprobs"].keys() & theirs["logprobs"].keys())
    assert len(common) == (num_positions or len(ours["logprobs"]))
    both = min(len(ours["ids"]), len(theirs["ids"]))
    lines = [
        f"position {at} token {ours['ids'][at]}: {ours['logprobs'][at]:.7g} "
        f"and {theirs['logprobs'][at]:.7g}"
        for at in common
        # A NaN is never close.
        if not abs(ours["logprobs"][at] - theirs["logprobs"][at]) <= MAX_LOGPROB_GAP
    ]
    assert not lines, f"log-probabilities differ at {len(lines)} positions:\n" + "\n".join(
        lines[:10]
    )
    assert ours["ids"][:both] == theirs["ids"][:both], "greedy tokens differ"
