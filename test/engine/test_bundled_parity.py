"""The bundled model: the patched engine against transformers, on the trained weights, fp32 on CPU.

Criteria as in test_hf_parity.py but for a wider gap, on documents that the model was not trained
on: 16 x index_topk tokens of prompt, then decode steps.
"""

import pytest
import torch
from _compare import check_choices, check_logprobs
from _environments import fork, stock
from _hf import HfReference

from sglang_ic.demo import bundled_model
from sglang_ic.demo.documents.bpe import encoder
from sglang_ic.demo.documents.document import test_document as document
from sglang_ic.demo.train.data import BOS_ID

pytestmark = pytest.mark.engine

NUM_PREFILL = 16 * 128
NUM_DECODE = 16
# Twice the layers of the random models, and log-probabilities of trained ones reach -20: 1.1e-4 was
# the largest gap seen, at -10.8.
MAX_LOGPROB_GAP = 5e-4
PATTERNS = ["F" * 16, "FFFSFFFSFFFSFFSS", "FS" * 8, "FSSS" * 4, "FFSSSSSFSSSSSSSF"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def prompts() -> dict[str, list[int]]:
    """Another document for every pattern."""
    length = NUM_PREFILL + NUM_DECODE + 40
    made = [document(f"test-{i}", f"parity-{i}", length, encoder()) for i in range(len(PATTERNS))]
    return {
        pattern: [BOS_ID, *doc.input_ids][: NUM_PREFILL + NUM_DECODE]
        for pattern, doc in zip(PATTERNS, made, strict=True)
    }


@pytest.fixture(scope="module")
def runs(prompts) -> dict[str, dict]:
    """Pattern -> what the engine selected and predicted."""
    found = fork().run(
        "_pattern_jobs:run_patterns",
        model=str(bundled_model()),
        requests=list(prompts.items()),
        num_decode=NUM_DECODE,
    )
    return dict(zip(PATTERNS, found, strict=True))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_trained_weights_give_what_transformers_gives(pattern, prompts, runs):
    run = runs[pattern]
    owners = [pattern.rindex("F", 0, layer + 1) for layer in range(len(pattern))]
    keys = {layer: run["topk"][owner] for layer, owner in enumerate(owners)}
    hf = HfReference(bundled_model(), pattern).run(prompts[pattern], keys, run["experts"])
    full = {layer: keys[layer] for layer, owner in enumerate(owners) if layer == owner}
    assert sorted(hf.keys) == sorted(full)
    check_choices("keys", full, hf.keys)
    check_choices("experts", run["experts"], hf.experts)
    check_logprobs(run["logprobs"], hf.logprobs, NUM_PREFILL, MAX_LOGPROB_GAP)


@pytest.mark.stock
@pytest.mark.parametrize("pattern", ["F" * 16, "FFFSFFFSFFFSFFSS"])
def test_upstream_serves_it_and_the_fork_computes_the_same_bits(pattern, prompts):
    ids = prompts["F" * 16][:NUM_PREFILL]
    words = [{"F": "full", "S": "shared"}[role] for role in pattern]
    overrides = (stock(), {"indexer_types": words}), (fork(), {"index_cache_pattern": pattern})
    jobs = [
        driver.submit("_parity_jobs:prefill", model=str(bundled_model()), override=keys, ids=ids)
        for driver, keys in overrides
    ]
    theirs, ours = (job.result() for job in jobs)
    assert theirs.shape[0] == NUM_PREFILL and torch.equal(theirs, ours)
