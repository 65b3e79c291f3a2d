"""Index-K rows: where they go, how they move, and that reusing layers own none."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("sglang.srt.mem_cache.index_key_cache", exc_type=ImportError)

from sglang_ic.cpu.index_k import RowIndexKeyCache  # noqa: E402

PAGE, DIM, SIZE = 64, 128, 256


def make_pool(skip=(False, True, False), dtype=torch.float32, index_kpool=1):
    return SimpleNamespace(
        page_size=PAGE,
        index_page_size=PAGE,
        index_head_dim=DIM,
        index_kpool=index_kpool,
        quant_block_size=128,
        dtype=dtype,
        device="cpu",
        start_layer=4,
        layer_num=len(skip),
        skip_topk_layers=list(skip),
        custom_mem_pool=None,
        layer_transfer_counter=None,
        memory_saver_adapter=SimpleNamespace(region=lambda tag: nullcontext()),
    )


def make_cache(**kwargs):
    return RowIndexKeyCache(make_pool(**kwargs), SIZE)


def test_one_row_per_slot_and_none_on_layers_that_reuse():
    cache = make_cache()
    # The allocator hands out pages 1 .. SIZE / PAGE; page 0 takes padding.
    assert [cache.rows(layer).shape for layer in (4, 5, 6)] == [
        (SIZE + PAGE, DIM),
        (0, DIM),
        (SIZE + PAGE, DIM),
    ]
    assert [buffer.nbytes for buffer in cache.buffer] == [(SIZE + PAGE) * DIM * 4, 0] + [
        (SIZE + PAGE) * DIM * 4
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_are_stored_at_their_slots_in_the_kv_dtype(dtype):
    cache = make_cache(dtype=dtype)
    loc = torch.tensor([64, SIZE + PAGE - 1, 130])
    keys = torch.randn(3, DIM)
    cache.store(6, loc, keys)
    assert cache.rows(6).dtype == dtype
    assert torch.equal(cache.rows(6)[loc], keys.to(dtype))
    untouched = torch.ones(SIZE + PAGE, dtype=torch.bool)
    untouched[loc] = False
    assert cache.rows(6)[untouched].abs().max() == 0
    assert cache.rows(4).abs().max() == 0


def test_a_reusing_layer_refuses_keys():
    with pytest.raises(RuntimeError, match="layer 5 reuses indices"):
        make_cache().store(5, torch.tensor([64]), torch.randn(1, DIM))


def test_move_copies_rows_of_every_layer_even_when_they_overlap():
    cache = make_cache()
    for layer in (4, 6):
        cache.store(layer, torch.arange(64, 320), torch.randn(256, DIM))
    before = {layer: cache.rows(layer).clone() for layer in (4, 6)}
    src, tgt = torch.tensor([70, 71, 200]), torch.tensor([71, 72, 99])
    cache.move(tgt, src)
    for layer in (4, 6):
        expected = before[layer].clone()
        expected[tgt] = before[layer][src]
        assert torch.equal(cache.rows(layer), expected)
    cache.move(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))


def test_retracted_pages_come_back_at_other_pages():
    cache = make_cache()
    for layer in (4, 6):
        cache.store(layer, torch.arange(64, 192), torch.randn(128, DIM))
    saved = cache.cpu_copy(torch.arange(64, 192))
    old = {layer: cache.rows(layer)[64:192].clone() for layer in (4, 6)}
    cache.store(4, torch.arange(64, 192), torch.zeros(128, DIM))
    cache.load_cpu_copy(saved, torch.arange(192, 320))
    for layer in (4, 6):
        assert torch.equal(cache.rows(layer)[192:320], old[layer])


def test_pooled_and_quantised_storage_is_refused():
    with pytest.raises(ValueError, match="index_kpool=4 is not supported on CPU"):
        make_cache(index_kpool=4)
    with pytest.raises(ValueError, match="float8_e4m3fn is not supported"):
        make_cache(dtype=torch.float8_e4m3fn)
