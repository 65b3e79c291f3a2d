"""One real model on the patched SGLang, without a server: what each pass runs, shares and refuses.

Needs `make setup stock`. Jobs run in processes of their own (`_environments.py`).
"""

import json
import shutil
from pathlib import Path

import _environments
import pytest
import torch

from sglang_ic.demo import checkpoint
from sglang_ic.demo.shape import DsaShape
from sglang_ic.demo.tiny import write_checkpoint

pytestmark = pytest.mark.engine

INDEX_TOPK = 32
PATTERN = "FSFSSFSS"
OVERRIDE = {"index_cache_pattern": PATTERN}
FULL = [role == "F" for role in PATTERN]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(write_checkpoint(tmp_path_factory.mktemp("moe"), index_topk=INDEX_TOPK))


@pytest.fixture(scope="module")
def dense_model(tmp_path_factory) -> str:
    """No experts: upstream's on CPU cannot take the zero rows of an idle pass."""
    folder = tmp_path_factory.mktemp("dense")
    shape = DsaShape("GlmMoeDsaForCausalLM", 8, INDEX_TOPK, 64, 4, num_dense_layers=8)
    checkpoint.write(folder, shape, seed=0)
    return str(folder)


@pytest.fixture(scope="module")
def trained_model(tmp_path_factory, model) -> str:
    """A checkpoint as trained sharing ships it: its own pattern, no indexers on Shared layers."""
    folder = tmp_path_factory.mktemp("trained")
    shared = [layer for layer, role in enumerate(PATTERN) if role == "S"]
    write_checkpoint(folder, index_topk=INDEX_TOPK, drop_indexer_layers=shared)
    config = json.loads((folder / "config.json").read_text())
    config["indexer_types"] = ["full" if role == "F" else "shared" for role in PATTERN]
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def fork_job(name: str, **kwargs):
    return _environments.fork().run(name, **kwargs)


@pytest.fixture(scope="module")
def counted(model) -> dict:
    return fork_job("_in_process_jobs:passes_and_counts", model=model, override=OVERRIDE)


@pytest.fixture(scope="module")
def rows(dense_model) -> dict:
    return fork_job("_in_process_jobs:idle_and_padded_rows", model=dense_model, override=OVERRIDE)


@pytest.fixture(scope="module")
def single_process(dense_model) -> dict:
    return fork_job("_pipeline_jobs:single", model=dense_model, override=OVERRIDE)


def test_shared_layers_do_not_run_their_indexers(counted):
    found, passes = counted, counted["num_passes"]
    assert found["pattern"] == PATTERN
    assert found["indexer_runs"] == [passes * full for full in FULL]
    assert found["has_indexer"] == FULL
    run, skipped = passes * 3, passes * 5
    assert found["totals"] == (run, skipped)
    assert found["metrics"] == [run, skipped]
    assert found["gauges"] == [3, 5]
    described = found["described"]
    assert (described["indexer_run_total"], described["indexer_skipped_total"]) == (run, skipped)


def test_shared_layers_hold_no_index_k(counted):
    held, described = counted["index_k_bytes"], counted["described"]
    assert [num_bytes > 0 for num_bytes in held] == FULL
    assert counted["index_k_written"] == FULL
    assert described["index_k_bytes_per_layer"] == held
    assert described["index_k_bytes"] == sum(held)
    assert described["index_k_bytes_saved"] == 5 * max(held)


def test_short_dense_prefill_runs_full_layers_only_and_leaves_their_index_k(model):
    """GPUs attend densely up to index_topk tokens; decode needs the index-K of that prefill."""
    found = fork_job(
        "_in_process_jobs:short_prefill",
        model=model,
        override=OVERRIDE,
        length=INDEX_TOPK - 8,
        num_decode=24,
    )
    assert found["dense_layers"] == list(range(8))
    for way in ("sparse", "dense"):
        assert found[way]["indexer_runs"] == [int(full) for full in FULL]
        assert found[way]["counted"] == (3, 5)
    for part in ("prefill", "decode"):
        # Two orders of summation, no near-tie in this prompt: rounding only.
        torch.testing.assert_close(found["dense"][part], found["sparse"][part], atol=1e-3, rtol=0)


def test_idle_pass_has_zero_rows_and_runs_nothing(rows):
    assert rows["idle_rows"] == 0
    assert rows["idle_indexer_runs"] == 0
    assert rows["idle_totals"] == (0, 0)
    assert rows["idle_state"] is None


def test_padded_rows_are_minus_one_on_every_layer_and_change_no_other_row(rows):
    pad = rows["num_padded"]
    for layer, topk in enumerate(rows["topk"]):
        assert (topk[-pad:] == -1).all(), layer
        assert (topk[INDEX_TOPK:-pad] >= 0).all(), layer
    # Matrix products of another height may round differently.
    torch.testing.assert_close(rows["padded"][:-pad], rows["plain"], atol=1e-3, rtol=0)


def test_two_children_of_a_batch_keep_their_own_indices(model):
    found = fork_job("_in_process_jobs:two_children", model=model, override=OVERRIDE)
    assert found["own_states"]
    for one_by_one, in_turns in zip(found["one_by_one"], found["in_turns"], strict=True):
        assert torch.equal(one_by_one, in_turns)
    assert torch.equal(found["one_by_one"][0], found["whole"])
    assert not torch.equal(found["one_by_one"][0][:100], found["one_by_one"][1][:100])
    assert "IndexCacheError: this ForwardBatch still holds" in found["nested"]
    assert "two forward passes share one IndexCacheState" in found["shared_state"]


REFUSALS = {
    "shared layer before any Full layer": "layer 1 asked for its role while layer 0 was due",
    "state of another pass": "still holds the indices of another forward pass",
    "state of an ended pass": "uses the indices of a forward pass that has ended",
    "the same batch again": "still holds the indices of another forward pass",
    "missed publish": "Shared layer 3 needs the indices of Full layer 2, but this forward pass "
    "holds those of layer 0",
    "layer left out": "layer 5 asked for its role while layer 4 was due",
    "last layer left out": "the forward pass ended, but layer 7 of [0, 8) never asked",
}


def test_broken_passes_are_refused_and_the_next_one_is_sound(model):
    found = fork_job("_in_process_jobs:faults", model=model, override=OVERRIDE)
    for fault, message in REFUSALS.items():
        assert found["refusals"][fault].startswith("IndexCacheError: "), fault
        assert message in found["refusals"][fault], fault
    for fault in ("pass failing midway", "pass failing midway in the runner"):
        assert found["refusals"][fault] == "ZeroDivisionError: layer 3 fails"
    for retry, hidden in found["after_failure"].items():
        assert torch.equal(hidden, found["good"]), retry
    assert torch.equal(found["last"], found["good"])


@pytest.mark.parametrize(
    ("first_layers", "starts"), [(3, "Shared"), (4, "Shared"), (2, "Full"), (5, "Full")]
)
def test_two_pipeline_stages_equal_one_process(
    dense_model, single_process, tmp_path, first_layers, starts
):
    assert starts == ("Full" if FULL[first_layers] else "Shared")
    rendezvous = str(tmp_path / "rendezvous")
    jobs = [
        _environments.fork().submit(
            "_pipeline_jobs:stage",
            model=dense_model,
            override=OVERRIDE,
            rank=rank,
            first_layers=first_layers,
            rendezvous=rendezvous,
        )
        for rank in (0, 1)
    ]
    first, last = (job.result() for job in jobs)
    assert torch.equal(last["logits"], single_process["logits"])
    assert (first["layers"], last["layers"]) == ((0, first_layers), (first_layers, 8))
    for stage in (first, last):
        begin, end = stage["layers"]
        assert stage["per_pass"] == (sum(FULL[begin:end]), end - begin - sum(FULL[begin:end]))
        assert stage["totals"] == tuple(6 * count for count in stage["per_pass"])

    num_rows = [300, 244, 1, 1, 1, 1, 0]  # two chunks, decode steps, an idle pass
    assert [len(one["hidden_states"]) for one in last["arrived"]] == num_rows
    assert last["idle_rows"] == 0
    if starts == "Shared":
        shapes = [tuple(one["topk_indices"].shape) for one in last["arrived"]]
        assert shapes == [(count, INDEX_TOPK) for count in num_rows]
        assert "requires DSA topk_indices from the previous stage" in last["without_indices"]
    else:
        assert all("topk_indices" not in one for one in last["arrived"])
        assert last["without_indices"] == "nothing"


@pytest.mark.stock
@pytest.mark.parametrize("pattern", [None, PATTERN])
def test_draft_layer_takes_and_writes_seeds_as_upstream(model, pattern):
    stock_override = {"indexer_types": [("shared", "full")[full] for full in FULL]}
    fork_override = OVERRIDE
    if pattern is None:
        stock_override = fork_override = {}
    jobs = [
        driver.submit("_draft_jobs:draft_passes", model=model, override=override)
        for driver, override in (
            (_environments.stock(), stock_override),
            (_environments.fork(), fork_override),
        )
    ]
    stock, fork = (job.result() for job in jobs)
    passes = fork["passes"]
    assert {name: one["indexer_runs"] for name, one in passes.items()} == {
        "extend": 1,
        "with a seed": 0,
        "its next step": 0,
        "seed dropped": 1,
        "reuses its own": 0,
        "no iteration": 1,
        "on a batch of the target": 0,
    }
    assert torch.equal(fork["seeds"], passes["extend"]["topk"][[-1, 300]])  # the selected rows
    seed = fork["seeds"][:1]
    assert torch.equal(passes["with a seed"]["topk"], seed)
    assert torch.equal(passes["on a batch of the target"]["topk"], seed)
    assert not torch.equal(passes["seed dropped"]["topk"], seed)
    assert fork["after"] == [None, False]

    assert torch.equal(stock["target"], fork["target"])
    assert torch.equal(stock["seeds"], fork["seeds"])
    for name, one in passes.items():
        assert torch.equal(stock["passes"][name]["hidden"], one["hidden"]), name
        assert torch.equal(stock["passes"][name]["topk"], one["topk"]), name


def test_full_layer_without_weights_is_refused_at_start(tmp_path):
    write_checkpoint(tmp_path, index_topk=INDEX_TOPK, drop_indexer_layers=(3, 4))
    for override, source in (
        ({}, "default (all Full)"),
        ({"index_cache_pattern": "FFSFSSSS"}, "--index-cache-pattern"),
        ({"index_topk_freq": 1}, "--json-model-override-args index_topk_freq"),
    ):
        refusal = fork_job("_in_process_jobs:refused_start", model=str(tmp_path), override=override)
        layers = "layer 3" if "index_cache_pattern" in override else "layers 3-4"
        assert refusal == (
            f"PatternError: {source}: {layers} cannot be Full, the checkpoint has indexer weights "
            "only on layers 0-2, 5-7 (the weights, not indexer_types, decide what may be Full): "
            "make them S, as in --index-cache-pattern FFFSSFFF"
        )


@pytest.mark.stock
def test_trained_sharing_serves_its_own_pattern(trained_model, model):
    """Without a flag; equal to upstream, and to the same pattern with all weights present."""
    measure = dict(length=544, chunk_size=200, prefix_len=320, num_decode=4)
    name = "_parity_jobs:measure"
    jobs = [
        _environments.stock().submit(name, model=trained_model, override={}, **measure),
        _environments.fork().submit(name, model=trained_model, override={}, **measure),
        _environments.fork().submit(name, model=model, override=OVERRIDE, **measure),
    ]
    stock, trained, flagged = (job.result() for job in jobs)
    assert trained["indexer_runs"] == [trained["passes"] * full for full in FULL]
    for way, logits in trained["logits"].items():
        assert torch.equal(logits, stock["logits"][way]), way
        assert torch.equal(logits, flagged["logits"][way]), way


def test_trained_sharing_whose_weights_are_missing_is_refused(trained_model, tmp_path):
    """The pattern in its config.json asks for a Full layer that the weights do not have."""
    folder = Path(shutil.copytree(trained_model, tmp_path / "copy"))
    config = json.loads((folder / "config.json").read_text())
    config["indexer_types"][1] = "full"
    (folder / "config.json").write_text(json.dumps(config))
    refusal = fork_job("_in_process_jobs:refused_start", model=str(folder), override={})
    assert "config.json indexer_types: layer 1 cannot be Full" in refusal
    assert f"--index-cache-pattern {PATTERN}" in refusal


NUM_PAGES, LONG = 17, 1536  # rows from 1,024 on are in a group that sees more than 17 pages
CANDIDATES = "FCSCCSCC"


@pytest.fixture(scope="module")
def candidates(model) -> dict:
    return fork_job(
        "_in_process_jobs:candidate_layers",
        model=model,
        pattern=CANDIDATES,
        num_pages=NUM_PAGES,
        length=LONG,
    )


def test_candidate_layers_are_full_layers_where_candidates_are_all_keys(candidates):
    full, mine = candidates["full"], candidates[CANDIDATES]
    whole = 2 * 512
    for layer in (0, 1):  # before the first Shared layer hidden states are the same
        assert torch.equal(mine["topk"][layer][:whole], full["topk"][layer][:whole])
    assert torch.equal(mine["topk"][0], full["topk"][0])
    assert not torch.equal(mine["topk"][1][whole:], full["topk"][1][whole:])


def test_candidate_layers_select_inside_the_pages_that_the_selection_before_gives(candidates):
    from sglang_ic.candidates import pages

    topk, begin = candidates[CANDIDATES]["topk"], 1024
    owner = 0
    for layer, letter in enumerate(CANDIDATES):
        own = topk[layer][begin:]
        if letter == "S":
            assert torch.equal(own, topk[owner][begin:])
        elif letter == "C":
            before = topk[owner][begin:]
            counts = pages.count_selected(before, begin)
            (listed,) = pages.choose_pages(counts, begin, LONG - begin, NUM_PAGES)
            assert torch.isin(own // 64, listed).all() and (own >= 0).all()
            assert (own <= torch.arange(begin, LONG)[:, None]).all()
        owner = layer if letter != "S" else owner


def test_candidate_layers_score_all_keys_in_decode_and_count_as_run(candidates):
    mine = candidates[CANDIDATES]
    num_candidate, num_passes = CANDIDATES.count("C"), LONG // 512 + 1
    assert mine["calls"] == num_candidate * (LONG // 512)
    assert mine["calls_in_decode"] == 0
    assert mine["layer_passes"] == [6 * num_passes, 2 * num_passes]
    assert candidates["full"]["calls"] == 0
    assert mine["decode"].isfinite().all()
