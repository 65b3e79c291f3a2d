"""Candidate layers on an NVIDIA GPU: kernels, one layer's selection, and a server. Needs a GPU.

The layer's selection needs deep_gemm and sgl_kernel, at the sizes of a large model: index_topk
2,048, 32 heads, 60,000 keys. Run as test_serve.py is.
"""

import os
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from _answers import ask
from _server import running

from sglang_ic.candidates import pages as rule
from sglang_ic.candidates.switch import CANDIDATE_PAGES
from sglang_ic.server.arguments import BUNDLED_CUDA_ENVIRONMENT

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here"),
]

TOPK, HEADS, DIM, LENGTH, ROWS, NUM_PAGES = 2048, 32, 128, 60_000, 3000, 256
FIRST = LENGTH - ROWS
POOL_PAGES = 1200
RUNS = 5


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator("cuda").manual_seed(0), device="cuda")


def selection_before():
    """[ROWS, TOPK] int32 positions, most of them in the middle of what a row sees."""
    seen = torch.arange(FIRST, LENGTH, device="cuda").unsqueeze(1)
    share = (0.5 + 0.1 * drawn(ROWS, TOPK)).clamp(0, 0.999)
    selected = (share * (seen + 1)).int()
    selected[::5, 1000:] = -1
    return selected


def test_counts_and_tokens_are_those_of_the_rule():
    from sglang_ic.hopper.pages import count_selected, look_up_

    selected = selection_before()
    groups = rule.group_of_rows(FIRST, ROWS, selected.device)
    expected = rule.count_selected(selected, FIRST)
    for _ in range(RUNS):
        assert torch.equal(count_selected(selected, groups.int(), *expected.shape), expected)
    order = torch.randperm(POOL_PAGES, device="cuda").int()
    page_of = torch.full((POOL_PAGES,), -1, dtype=torch.int32, device="cuda")
    page_of[order[: expected.shape[1]].long()] = torch.arange(
        expected.shape[1], dtype=torch.int32, device="cuda"
    )
    slots = rule.look_up(selected, order[None], torch.zeros_like(groups))
    found = count_selected(slots, groups.int(), *expected.shape, page_of=page_of)
    assert torch.equal(found, expected)
    lists = rule.choose_pages(expected, FIRST, ROWS, NUM_PAGES)
    assert torch.equal(lists.cpu(), rule.choose_pages(expected.cpu(), FIRST, ROWS, NUM_PAGES))
    places = torch.randint(-1, NUM_PAGES * 64, (ROWS, TOPK), dtype=torch.int32, device="cuda")
    expected = rule.look_up(places, lists, groups)
    assert torch.equal(look_up_(places, lists.int(), groups.int()), expected)


class Layer:
    """One candidate layer of one request: an indexer, its pool, and the arguments of the hook."""

    index_page_size, index_head_dim, quant_block_size = 64, DIM, 128

    def __init__(self, domain: str) -> None:
        from sglang.srt.layers.attention.dsa.dsa_indexer import Indexer
        from sglang.srt.layers.attention.dsa.dsa_topk_backend import (
            DSATopKBackend,
            TopkTransformMethod,
        )
        from sglang.srt.model_executor.forward_batch_info import ForwardMode

        from sglang_ic.pattern import LayerPattern
        from sglang_ic.runtime.roles import LayerRoles
        from sglang_ic.runtime.state import IndexCacheState

        self.keys = drawn(POOL_PAGES, 64, DIM).to(torch.float8_e4m3fn)
        self.scales = drawn(POOL_PAGES, 64).abs() + 0.1
        self.buffer = torch.cat(  # a page is all its keys, then all their scales
            [
                self.keys.view(torch.uint8).flatten(1),
                self.scales.view(torch.uint8).view(POOL_PAGES, -1),
            ],
            dim=1,
        ).contiguous()
        self.table = torch.randperm(POOL_PAGES, device="cuda").int()[None, : -(-LENGTH // 64)]
        self.q = drawn(ROWS, HEADS, DIM).to(torch.float8_e4m3fn)
        self.weights = drawn(ROWS, HEADS, 1)
        self.previous = selection_before()
        groups = torch.zeros(ROWS, dtype=torch.int64, device="cuda")
        roles = LayerRoles(LayerPattern("FC"), 0, 2, build_all=False, index_topk=TOPK)
        state = IndexCacheState(roles)
        slots = rule.look_up(self.previous, self.table, groups)
        state.publish(0, slots if domain == "slots" else self.previous)
        metadata = SimpleNamespace(
            attn_metadata=SimpleNamespace(indexer_logical_page_table=None, pooled_index_kpool=1),
            topk_backend=DSATopKBackend.SGL_KERNEL,
            topk_transform_method=TopkTransformMethod.PAGED,
            force_unfused_topk=domain == "positions",
            get_logical_page_table=lambda: self.table,
            get_indexer_seq_len_cpu=lambda: torch.tensor([LENGTH]),
        )
        batch = SimpleNamespace(
            forward_mode=ForwardMode.EXTEND,
            attn_cp_metadata=None,
            extend_seq_lens_cpu=[ROWS],
            index_cache=state,
        )
        indexer = SimpleNamespace(
            index_topk=TOPK,
            num_init_tokens=0,
            num_local_tokens=0,
            _with_real_sm_count=nullcontext,
            _pad_heads_for_deep_gemm=Indexer._pad_heads_for_deep_gemm,
            _get_index_k_read_buffer=lambda pool, layer_id: pool.buffer,
        )
        self.call = [indexer, False, batch, 1, self.q, self.weights, metadata]

    def get_index_k_scale_buffer(self, layer_id, lengths, page_indices, total, longest):
        from sglang.kernels.ops.kvcache.dsa_index_k_cache import GetKAndS

        return GetKAndS.execute(
            self,
            self.buffer,
            page_indices=page_indices,
            seq_len_tensor=lengths,
            seq_len_sum=total,
            max_seq_len=longest,
        )

    def select(self):
        from sglang_ic.hopper.candidates import topk_of_candidates

        return topk_of_candidates(None, *self.call)


@pytest.fixture(params=["positions", "slots"])
def layer(request, monkeypatch):
    pytest.importorskip("deep_gemm")
    pytest.importorskip("sgl_kernel")
    from sglang.srt.layers.attention.dsa import dsa_indexer

    monkeypatch.setenv(CANDIDATE_PAGES, str(NUM_PAGES))
    made = Layer(request.param)
    made.domain = request.param
    monkeypatch.setattr(dsa_indexer, "get_token_to_kv_pool", lambda: made)
    return made


def test_a_layer_selects_the_best_of_its_candidates_every_time(layer):
    import deep_gemm

    slots = layer.table[0].long().unsqueeze(1) * 64 + torch.arange(64, device="cuda")
    order = slots.flatten()[:LENGTH]
    keys = layer.keys.view(torch.uint8).view(-1, DIM)[order].view(torch.float8_e4m3fn)
    ends = torch.arange(FIRST + 1, LENGTH + 1, dtype=torch.int32, device="cuda")
    scores = deep_gemm.fp8_mqa_logits(
        layer.q,
        (keys, layer.scales.flatten()[order]),
        layer.weights.squeeze(-1),
        torch.zeros_like(ends),
        ends,
        clean_logits=False,
    )[:, :LENGTH]
    position = torch.arange(LENGTH, device="cuda")
    hidden = position >= ends.unsqueeze(1)
    counts = rule.count_selected(layer.previous, FIRST)
    lists = rule.choose_pages(counts, FIRST, ROWS, NUM_PAGES)
    listed = torch.zeros(counts.shape, dtype=torch.bool, device="cuda").scatter_(1, lists, True)
    hidden |= ~listed[rule.group_of_rows(FIRST, ROWS, ends.device)][:, position // 64]
    expected = scores.masked_fill(hidden, float("-inf")).topk(TOPK).values
    for _ in range(RUNS):
        found = layer.select().long()
        if layer.domain == "slots":
            at = torch.full((POOL_PAGES * 64,), -1, device="cuda")
            at[order] = position
            found = at[found]
        assert (found.sort().values.diff() > 0).all() and (found >= 0).all()
        own = scores.gather(1, found).sort(descending=True).values
        torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)


def test_a_layer_does_not_wait_for_the_gpu(layer):
    layer.select()  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        layer.select()
    finally:
        torch.cuda.set_sync_debug_mode("default")


FLAGS = [
    # A small pool, so that other tests may run beside on the same GPU.
    *("--max-total-tokens", "20480", "--mem-fraction-static", "0.7"),
    *("--max-running-requests", "4", "--random-seed", "1"),
    *("--cuda-graph-bs-decode", "1", "2", "--disable-prefill-cuda-graph"),
    *("--sampling-backend", "pytorch", "--dsa-topk-backend", "torch"),
]
ENVIRONMENT = {**os.environ, **BUNDLED_CUDA_ENVIRONMENT, CANDIDATE_PAGES: "17"}
PROMPT = [3 + (7919 * i + i // 7) % 250 for i in range(3000)]


def served(folder, pattern):
    from sglang_ic.demo import bundled_model

    argv = ["--model-path", str(bundled_model()), *FLAGS, "--index-cache-pattern", pattern]
    with running(folder, *argv, env=ENVIRONMENT) as server:
        answer = ask(server, PROMPT, 8)
        info, log = server.get("/index_cache"), server.log.read_text()
    rows = answer["meta_info"]["input_token_logprobs"][1:]
    return torch.tensor([row[0] for row in rows]), info, log


def test_a_server_says_that_it_is_approximate_and_differs_past_its_candidates(tmp_path):
    pattern = "F" + "C" * 15
    exact, _, _ = served(tmp_path, "full")
    found, info, log = served(tmp_path, pattern)
    assert (info["num_full"], info["num_candidate"], info["candidate_pages"]) == (1, 15, 17)
    assert info["indexer_skipped_total"] == 0 and info["indexer_run_total"] % 16 == 0
    assert log.count("APPROXIMATE RESULTS") == 1
    difference = (exact - found).abs()
    covered = 1024  # rows of groups that see at most 17 pages
    assert difference[2048:].median() > 10 * difference[:covered].median()
