"""Which calls are replaced, and that their rows are the ones upstream would have copied."""

from types import SimpleNamespace

import pytest
import torch

from sglang_ic.hopper import hooks, reference

pytest.importorskip("sglang.srt.plugins.hook_registry", exc_type=ImportError)

TOPK = 4
# Three requests: keys they have in all, and queries of this chunk at their end.
SEQ_LENS, EXTEND_LENS = [10, 3, 25], [4, 3, 9]
NUM_KEYS, NUM_ROWS = sum(SEQ_LENS), sum(EXTEND_LENS)


def int32(values):
    return torch.tensor(values, dtype=torch.int32)


def windows_per_layer():
    """Start, length and request of each row, from the definition: causal windows, one by one."""
    starts, lengths, requests, first_key = [], [], [], 0
    for request, (keys, queries) in enumerate(zip(SEQ_LENS, EXTEND_LENS, strict=True)):
        for query in range(queries):
            starts.append(first_key)
            lengths.append(keys - queries + query + 1)
            requests.append(request)
        first_key += keys
    return int32(starts), int32(lengths), int32(requests)


def metadata(**changes):
    from sglang.srt.layers.attention.dsa.dsa_topk_backend import DSATopKBackend, TopkTransformMethod

    starts, lengths, requests = windows_per_layer()
    attn = SimpleNamespace(
        page_table_1=torch.randperm(3 * 25).view(3, 25).to(torch.int32),
        token_to_batch_idx=requests,
        pooled_index_kpool=1,
    )
    values = {
        "attn_metadata": attn,
        "topk_transform_method": TopkTransformMethod.PAGED,
        "topk_backend": DSATopKBackend.SGL_KERNEL,
        "force_unfused_topk": False,
        "get_seqlens_expanded": lambda: lengths,
    }
    return SimpleNamespace(**{**values, **changes})


def logits():
    return torch.randn(NUM_ROWS, NUM_KEYS + 2, generator=torch.Generator().manual_seed(1))


def by_reference(scores, topk, rows, page_table):
    positions = reference.select_positions(scores, rows.starts, rows.lengths, topk)
    return reference.to_slots(positions, page_table, rows.requests)


def upstream_is_not_called(*args, **kwargs):
    raise AssertionError("this call should have been replaced")


def replaced(meta, scores, **kwargs):
    return hooks.in_prefill(by_reference, upstream_is_not_called, meta, scores, TOPK, **kwargs)


def upstream(*args, **kwargs):
    return "upstream's", args, kwargs


def test_rows_of_one_pass_are_those_of_each_layer():
    starts, lengths, requests = windows_per_layer()
    rows = hooks.prefill_rows(metadata(), logits(), TOPK, starts, None, None)
    assert torch.equal(rows.starts, starts)
    assert torch.equal(rows.lengths, lengths)
    assert torch.equal(rows.requests, requests)


def test_slots_are_those_of_a_page_table_row_copied_for_each_query():
    meta, scores = metadata(), logits()
    starts, lengths, requests = windows_per_layer()
    got = replaced(meta, scores, ks=starts)
    copied = meta.attn_metadata.page_table_1[requests]
    for row in range(NUM_ROWS):
        window = scores[row, starts[row] : starts[row] + lengths[row]]
        best = window.topk(min(TOPK, len(window))).indices
        expected = set(copied[row][best].tolist())
        assert set(got[row].tolist()) - {-1} == expected


@pytest.mark.parametrize("rows_per_piece", [1, 3, 5, NUM_ROWS])
def test_a_chunk_in_pieces_selects_as_the_whole_chunk(rows_per_piece):
    """Upstream cuts the rows of a chunk where their scores do not fit, and passes slices."""
    meta, scores = metadata(), logits()
    starts, lengths, requests = windows_per_layer()
    pieces = [
        replaced(
            meta,
            scores[begin : begin + rows_per_piece],
            ks=starts[begin : begin + rows_per_piece],
            cu_seqlens_q=torch.ones(rows_per_piece, dtype=torch.int32),
            ke_offset=lengths[begin : begin + rows_per_piece],
            batch_idx_list=requests[begin : begin + rows_per_piece],
        )
        for begin in range(0, NUM_ROWS, rows_per_piece)
    ]
    assert torch.equal(torch.cat(pieces), replaced(meta, scores, ks=starts))


def other_calls():
    from sglang.srt.layers.attention.dsa.dsa_topk_backend import DSATopKBackend, TopkTransformMethod

    starts, lengths, _ = windows_per_layer()
    attn = metadata().attn_metadata
    given = {"ks": starts}
    yield "decode has no windows", {}, {}
    yield "fp8 KV", {"topk_transform_method": TopkTransformMethod.RAGGED}, given
    yield "torch top-k", {"topk_backend": DSATopKBackend.TORCH}, given
    yield "flashinfer top-k", {"topk_backend": DSATopKBackend.FLASHINFER}, given
    yield "unfused", {"force_unfused_topk": True}, given
    yield (
        "no wide page table",
        {"attn_metadata": SimpleNamespace(**{**vars(attn), "page_table_1": None})},
        given,
    )
    yield (
        "pooled keys",
        {"attn_metadata": SimpleNamespace(**{**vars(attn), "pooled_index_kpool": 4})},
        given,
    )
    yield "requests of context parallelism", {}, {**given, "batch_idx_list": [0, 1, 2]}
    yield "padded lengths", {"get_seqlens_expanded": lambda: lengths[:-1]}, given
    yield "other lengths", {"get_seqlens_expanded": lambda: lengths.long()}, given


@pytest.mark.parametrize("number", range(10))
def test_every_other_call_reaches_upstream_as_it_was(number):
    name, changes, given = list(other_calls())[number]
    meta, scores = metadata(**changes), logits()
    word, args, kwargs = hooks.in_prefill(
        upstream_is_not_called, upstream, meta, scores, TOPK, **given
    )
    assert word == "upstream's", name
    assert args[0] is meta and args[1] is scores and args[2] == TOPK
    assert {key: value for key, value in kwargs.items() if value is not None} == given


def test_the_number_of_other_calls_is_the_number_tested():
    assert len(list(other_calls())) == 10


@pytest.mark.parametrize("name", ["SGLANG_DSA_FUSE_TOPK", "SGLANG_OPT_USE_TOPK_V2"])
def test_kernels_that_are_turned_off_by_environment_stay_off(monkeypatch, name):
    monkeypatch.setenv(name, "false")
    starts, *_ = windows_per_layer()
    assert hooks.prefill_rows(metadata(), logits(), TOPK, starts, None, None) is None


def test_scores_in_another_layout_reach_upstream():
    starts, *_ = windows_per_layer()
    whole = logits()
    assert whole.stride(0) % 4 == 0
    for scores in (whole.half(), whole.T.contiguous().T, whole[:, :-1].contiguous()):
        assert hooks.prefill_rows(metadata(), scores, TOPK, starts, None, None) is None


def test_zeros_are_made_once():
    first = hooks._zeros(torch.device("cpu"), 5)
    assert first.shape == (5,) and first.dtype == torch.int32 and not first.any()
    assert first.data_ptr() == hooks._zeros(torch.device("cpu"), 8).data_ptr()
    assert hooks._zeros(torch.device("cpu"), 0).shape == (0,)
