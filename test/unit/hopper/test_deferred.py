"""Scores that are asked for and not written: what upstream does with them, and when they are."""

from types import SimpleNamespace

import pytest
import torch

from sglang_ic.hopper import fused_hooks
from sglang_ic.hopper.deferred import DeferredScores

pytest.importorskip("triton")
pytest.importorskip("sglang.srt.plugins.hook_registry", exc_type=ImportError)

NUM_ROWS, NUM_KEYS, TOPK = 3, 40, 4
STARTS = torch.tensor([0, 10, 10], dtype=torch.int32)
LENGTHS = torch.tensor([10, 29, 30], dtype=torch.int32)
REQUESTS = torch.tensor([0, 1, 1], dtype=torch.int32)
TABLE = torch.arange(2 * NUM_KEYS, dtype=torch.int32).view(2, NUM_KEYS)


@pytest.fixture
def deferred():
    q = torch.zeros(NUM_ROWS, 32, 128, dtype=torch.float8_e4m3fn)
    k = torch.zeros(NUM_KEYS, 128, dtype=torch.float8_e4m3fn)
    weights, k_scale = torch.zeros(NUM_ROWS, 32), torch.ones(NUM_KEYS)
    return fused_hooks._deferred_mqa_logits(
        q, (k, k_scale), weights, STARTS, STARTS + LENGTHS, clean_logits=False
    )


@pytest.fixture
def calls(monkeypatch):
    """What runs instead of kernels, in order."""
    calls = []

    def score(*arguments):
        calls.append(("score", arguments))
        return torch.zeros(NUM_ROWS, 64)[:, :NUM_KEYS]

    def fused(*arguments):
        calls.append(("fused", arguments))
        return "slots"

    def select(*arguments):
        calls.append(("select", arguments))
        return "slots"

    monkeypatch.setattr("sglang_ic.hopper.scoring.score", score)
    monkeypatch.setattr("sglang_ic.hopper.fused.score_and_select", fused)
    monkeypatch.setattr("sglang_ic.hopper.hooks._ragged_slots", select)
    return calls


def metadata(**changes):
    from sglang.srt.layers.attention.dsa.dsa_topk_backend import DSATopKBackend, TopkTransformMethod

    attn = SimpleNamespace(page_table_1=TABLE, token_to_batch_idx=REQUESTS, pooled_index_kpool=1)
    values = {
        "attn_metadata": attn,
        "topk_transform_method": TopkTransformMethod.PAGED,
        "topk_backend": DSATopKBackend.SGL_KERNEL,
        "force_unfused_topk": False,
        "get_seqlens_expanded": lambda: LENGTHS,
        "get_indexer_seq_len_cpu": lambda: torch.tensor([300, fused_hooks.FEWEST_KEYS]),
    }
    return SimpleNamespace(**{**values, **changes})


def upstream(*args, **kwargs):
    return "upstream's", args, kwargs


def mark(deferred):
    """Upstream's own step between scores and top-k, for an indexer that always selects none."""
    from sglang.srt.layers.attention.dsa.dsa_indexer import Indexer

    indexer = SimpleNamespace(num_init_tokens=0, num_local_tokens=0)
    Indexer._mask_init_and_local_tokens(indexer, deferred, LENGTHS, STARTS)


def test_scores_have_a_shape_before_they_are_written(deferred, calls):
    assert deferred.shape[0] == len(deferred) == NUM_ROWS and deferred.shape[1] == NUM_KEYS
    mark(deferred)
    assert calls == []


def test_prefill_scores_and_selects_in_one_call(deferred, calls):
    assert (
        fused_hooks.topk_with_fused_kernel(upstream, metadata(), deferred, TOPK, ks=STARTS)
        == "slots"
    )
    [(name, arguments)] = calls
    assert name == "fused"
    assert arguments[:4] == (deferred.q, deferred.k, deferred.k_scale, deferred.weights)
    assert arguments[4:] == (STARTS, LENGTHS, TOPK, TABLE, REQUESTS)


def test_a_piece_of_a_chunk_brings_its_own_rows(deferred, calls):
    rows = {"ks": STARTS.clone(), "ke_offset": LENGTHS.clone(), "batch_idx_list": REQUESTS.clone()}
    fused_hooks.topk_with_fused_kernel(upstream, metadata(), deferred, TOPK, **rows)
    (_, arguments) = calls[0]
    assert arguments[4] is rows["ks"] and arguments[5] is rows["ke_offset"]
    assert arguments[8] is rows["batch_idx_list"]


def test_calls_that_are_not_known_reach_upstream_with_written_scores(deferred, calls):
    from sglang.srt.layers.attention.dsa.dsa_topk_backend import TopkTransformMethod

    fp8_kv = metadata(topk_transform_method=TopkTransformMethod.RAGGED)
    word, args, kwargs = fused_hooks.topk_with_fused_kernel(
        upstream, fp8_kv, deferred, TOPK, ks=STARTS
    )
    assert word == "upstream's" and args[0] is fp8_kv and args[2] == TOPK
    assert isinstance(args[1], torch.Tensor) and args[1].shape == deferred.shape
    assert kwargs["ks"] is STARTS
    [(name, arguments)] = calls
    assert name == "score"
    assert arguments[4] is deferred.starts and arguments[5] is deferred.ends


def test_scores_of_others_reach_upstream_as_they_were(calls):
    """Decode: upstream's own scores, and no windows."""
    scores, meta = torch.zeros(2, 8), metadata()
    assert fused_hooks.topk_with_fused_kernel(upstream, meta, scores, TOPK, ke_offset=LENGTHS) == (
        "upstream's",
        (meta, scores, TOPK),
        {"ke_offset": LENGTHS},
    )


def test_deferred_scores_are_no_tensor():
    """Anything else that upstream might do with them is an error at once."""
    assert not issubclass(DeferredScores, torch.Tensor)
    assert not {"masked_fill_", "to", "dtype", "stride", "__getitem__"} & set(dir(DeferredScores))


def test_where_both_replacements_run_scores_that_are_written_are_selected_from(deferred, calls):
    both = fused_hooks.topk_with_both_kernels
    assert both(upstream, metadata(), deferred, TOPK, ks=STARTS) == "slots"
    scores = torch.zeros(NUM_ROWS, NUM_KEYS)
    assert both(upstream, metadata(), scores, TOPK, ks=STARTS) == "slots"
    assert [name for name, _ in calls] == ["fused", "select"]
    assert calls[1][1][0] is scores


class Indexer(SimpleNamespace):
    """Stands for upstream's: asks whether to cut the chunk, who scores it, and may fail."""

    def get_topk_ragged(self, dual_stream, batch, layer_id, q_fp8, weights, metadata, result=None):
        if batch.fails:
            raise RuntimeError("of upstream")
        scored_by = fused_hooks.scores_with_fused_kernel(lambda: "DeepGEMM")
        assert (scored_by == "DeepGEMM") == (fused_hooks.whole_chunks(upstream) != (False, 0))
        return fused_hooks.whole_chunks(upstream, num_rows=8, num_cols=9), result


def cut_by(metadata, cp=None, num_rows=fused_hooks.FEWEST_ROWS, fails=False, **numbers):
    indexer = Indexer(
        **{"index_topk": TOPK, "num_init_tokens": 0, "num_local_tokens": 0, **numbers}
    )
    batch = SimpleNamespace(attn_cp_metadata=cp, fails=fails)
    arguments = (indexer, False, batch, 3, range(num_rows), None, metadata)
    return fused_hooks.prefill_without_scores(Indexer.get_topk_ragged, *arguments, "result")


def test_scores_that_are_not_written_are_not_cut_into_pieces():
    assert cut_by(metadata()) == ((False, 0), "result")
    assert fused_hooks.whole_chunks(upstream, num_rows=8) == ("upstream's", (), {"num_rows": 8})


def test_scores_that_will_be_written_are_cut_as_upstream_does():
    from sglang.srt.layers.attention.dsa.dsa_topk_backend import TopkTransformMethod

    expected = (("upstream's", (), {"num_rows": 8, "num_cols": 9}), "result")
    assert cut_by(metadata(topk_transform_method=TopkTransformMethod.RAGGED)) == expected
    assert cut_by(metadata(), cp="some") == expected
    assert cut_by(metadata(), num_init_tokens=1) == expected
    assert cut_by(metadata(), num_local_tokens=1) == expected
    assert cut_by(metadata(), num_rows=fused_hooks.FEWEST_ROWS - 1) == expected
    one_short, many = [fused_hooks.FEWEST_KEYS - 1] * 3, [fused_hooks.FEWEST_KEYS] * 22
    for lengths in (one_short, many):
        other = metadata(get_indexer_seq_len_cpu=lambda: torch.tensor(lengths))  # noqa: B023
        assert cut_by(other) == expected


def test_scores_that_a_user_wants_in_torch_are_upstreams(monkeypatch):
    monkeypatch.setenv("SGLANG_FP8_PAGED_MQA_LOGITS_TORCH", "true")
    assert cut_by(metadata())[0] != (False, 0)


def test_an_error_leaves_no_mark():
    with pytest.raises(RuntimeError, match="of upstream"):
        cut_by(metadata(), fails=True)
    assert fused_hooks.whole_chunks(upstream, num_rows=8)[0] == "upstream's"
