"""The patched SGLang against upstream's own wheel on CPU: raw logits, bit for bit.

Needs `make setup stock`. Prompts are at least 16 times index_topk, since shorter ones would make
every pattern equal by construction.
"""

import functools
import json
import random

import _environments
import pytest
import torch
from _environments import EngineError

from sglang_ic.demo.tiny import write_checkpoint
from sglang_ic.pattern import LayerPattern

pytestmark = [pytest.mark.engine, pytest.mark.stock]

INDEX_TOPK = 32
LENGTHS = dict(length=17 * INDEX_TOPK, chunk_size=200, prefix_len=10 * INDEX_TOPK)
NUM_LAYERS = {"GlmMoeDsaForCausalLM": 8, "DeepseekV32ForCausalLM": 5}
GLM, V32 = NUM_LAYERS

_random = random.Random(20261122)
RANDOM_PATTERN = "F" + "".join(_random.choice("FS") for _ in range(7))
assert "S" in RANDOM_PATTERN

MLA = "sglang.srt.models.deepseek_common.attention_forward_methods.forward_mla"
PREPARE = f"{MLA}:DeepseekMLAForwardMixin.forward_absorb_prepare"
CORE = f"{MLA}:DeepseekMLAForwardMixin.forward_absorb_core"
MODEL = "sglang.srt.models.deepseek_v2:DeepseekV2Model.forward"
BROKEN = {
    "publishes the rows of other tokens": (
        CORE,
        "self, forward_batch, topk_indices\n",
        "self, forward_batch, topk_indices.roll(1, 0)\n",
    ),
    "publishes the first layer only": (
        CORE,
        "or index_cache.publish(",
        "or (index_cache.publish if self.layer_id == 0 else lambda *_: True)(",
    ),
    "runs the other layers' indexers": (
        PREPARE,
        "if index_cache.runs_indexer(",
        "if not index_cache.runs_indexer(",
    ),
    "reuses upstream's argument": (
        PREPARE,
        "index_cache.topk_for(",
        "(lambda attn, batch, prev: prev)(",
    ),
    "forgets to start the pass": (
        MODEL,
        "index_cache.begin_forward(\n        self, ",
        "__import__('sglang.srt.layers.attention.index_topk_share', fromlist=['x'])"
        ".IndexTopKShareState(\n        ",
    ),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folder of a tiny checkpoint by architecture."""
    return {
        architecture: str(
            write_checkpoint(
                tmp_path_factory.mktemp(architecture),
                architecture=architecture,
                num_layers=num_layers,
                index_topk=INDEX_TOPK,
            )
        )
        for architecture, num_layers in NUM_LAYERS.items()
    }


@functools.cache
def measured(stock_side: bool, model: str, override: str, num_decode: int):
    """One environment's measurements, started at once; ask `.result()` of what it returns."""
    driver = _environments.stock() if stock_side else _environments.fork()
    job = driver.submit(
        "_parity_jobs:measure",
        model=model,
        override=json.loads(override),
        num_decode=num_decode,
        **LENGTHS,
    )
    return functools.cache(job.result)


def both(model: str, stock_override: dict, fork_override: dict, num_decode: int):
    """Measurements of (stock, fork), run at the same time."""
    jobs = [
        measured(True, model, json.dumps(stock_override), num_decode),
        measured(False, model, json.dumps(fork_override), num_decode),
    ]
    return tuple(job() for job in jobs)


def differences(stock: dict, fork: dict) -> list[str]:
    """Every tensor that is not equal bit for bit, with its first differing place."""
    pairs = [
        (f"logits, {way}", stock["logits"][way], fork["logits"][way]) for way in fork["logits"]
    ]
    layers = zip(stock["topk"], fork["topk"], strict=True)
    pairs += [(f"top-k of layer {layer}", *pair) for layer, pair in enumerate(layers)]
    return [_first_difference(*pair) for pair in pairs if not torch.equal(pair[1], pair[2])]


def _first_difference(name: str, stock: torch.Tensor, fork: torch.Tensor) -> str:
    if stock.shape != fork.shape:
        return f"{name}: shape {tuple(stock.shape)} on stock, {tuple(fork.shape)} on the fork"
    place = tuple((stock != fork).nonzero()[0].tolist())
    return f"{name}: {stock[place]} on stock, {fork[place]} on the fork at {place}"


def types(pattern: str) -> dict:
    """The override that upstream obeys: a type for each layer."""
    return {"indexer_types": LayerPattern.parse(pattern, len(pattern)).indexer_types}


@pytest.mark.parametrize("architecture", [GLM, V32])
def test_all_full_logits_equal_stock_bit_for_bit(models, architecture):
    stock, fork = both(models[architecture], {}, {}, num_decode=64)
    assert fork["logits"]["1: decode"].shape[0] == 64
    assert differences(stock, fork) == []
    assert fork["indexer_runs"] == stock["indexer_runs"]
    assert fork["indexer_runs"] == [fork["passes"]] * NUM_LAYERS[architecture]


@pytest.mark.parametrize(
    ("architecture", "pattern"),
    [(GLM, "FSFSSFSS"), (GLM, "FSSSSSSS"), (GLM, RANDOM_PATTERN), (V32, "FFSSF")],
)
def test_pattern_logits_equal_stock_given_the_same_types(models, architecture, pattern):
    model = models[architecture]
    stock, fork = both(model, types(pattern), {"index_cache_pattern": pattern}, num_decode=16)
    assert differences(stock, fork) == []
    runs = [fork["passes"] if role == "F" else 0 for role in pattern]
    assert fork["indexer_runs"] == stock["indexer_runs"] == runs


def test_a_pattern_moves_the_logits_far_more_than_rounding(models):
    """Otherwise equality above would say nothing about the pattern."""
    full, _ = both(models[GLM], {}, {}, num_decode=64)
    shared, _ = both(models[GLM], types("FSFSSFSS"), {"index_cache_pattern": "FSFSSFSS"}, 16)
    moved = (full["logits"]["1: one chunk"] - shared["logits"]["1: one chunk"]).abs().amax(dim=1)
    assert moved[:INDEX_TOPK].max() == 0  # every token is selected: sharing cannot matter
    assert moved[-1] > 0.1


def test_documented_override_is_obeyed(models):
    """Upstream's flag does nothing on GLM's config; on the fork it means what is documented."""
    override = {"index_topk_freq": 4}
    stock, fork = both(models[GLM], override, override, num_decode=16)
    assert stock["indexer_runs"] == [stock["passes"]] * 8
    assert fork["indexer_runs"] == [fork["passes"] if r == "F" else 0 for r in "FFSSSFSS"]
    assert differences(stock, fork) != []

    told, _ = both(models[GLM], types("FFSSSFSS"), override, num_decode=16)
    assert differences(told, fork) == []


def test_stock_environment_is_upstreams_wheel():
    found = _environments.stock().run("_parity_jobs:files_unlike_record")
    assert found["different"] == []
    assert found["compared"] > 5000
    assert found["version"] == "0.5.23"
    assert found["imported"] == found["installed"]
    assert not found["has_our_field"]


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_patch_does_not_pass(models, name):
    pattern = {"index_cache_pattern": "FSFSSFSS"}
    stock = measured(True, models[GLM], json.dumps(types("FSFSSFSS")), 16)
    arguments = dict(model=models[GLM], override=pattern, num_decode=16, **LENGTHS)
    job = _environments.fork().submit(
        "_parity_jobs:measure", broken=list(BROKEN[name]), **arguments
    )
    try:
        fork = job.result()
    except EngineError as error:
        assert "does not contain" not in str(error)  # the hunk has moved: mend BROKEN
        refusal = str(error).strip().splitlines()[-1]
        assert "IndexCacheError" in refusal or "without top-k indices" in refusal, refusal
    else:
        assert differences(stock(), fork) != []


def test_a_broken_patch_is_seen_with_all_layers_full(models):
    stock = measured(True, models[GLM], "{}", 64)
    broken = list(BROKEN["runs the other layers' indexers"])
    arguments = dict(model=models[GLM], override={}, num_decode=64, **LENGTHS)
    job = _environments.fork().submit("_parity_jobs:measure", broken=broken, **arguments)
    with pytest.raises(EngineError, match="needs the indices of Full layer 0.*holds nothing"):
        differences(stock(), job.result())
