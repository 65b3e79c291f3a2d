"""Upstream's own `Indexer._get_topk_ragged`, with what runs by default attached and no kernels.

Started by test_fused_hooks.py, since attaching changes SGLang for good. Arguments: rows of the
pass, bytes that scores may take, keys of each request. Prints what was called instead of kernels,
in order, with the rows of each call, and what was selected.
"""

import json
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import torch

from sglang_ic.hopper import fused, hooks, plugin
from sglang_ic.hopper.switches import Switches
from sglang_ic.seams import attach

TOPK, HEADS, DIM = 16, 8, 128
num_rows, budget, *lengths = map(int, sys.argv[1:])
calls = []


def scored(q, kv, weights, starts, ends, clean_logits):
    assert q.shape == (len(weights), 32, DIM) and not clean_logits  # padded heads
    calls.append(["DeepGEMM", len(q)])
    return torch.empty(len(q), len(kv[0]), device="meta")


def ragged(logits, topk, rows, page_table):
    calls.append(["ragged", len(logits)])
    return torch.full((len(logits), topk), 5, dtype=torch.int32)


def in_one_pass(q, k, k_scale, weights, starts, lengths, topk, page_table, requests):
    assert q.shape == (len(starts), 32, DIM) and weights.shape == (len(starts), 32)
    assert len(k) == len(k_scale) and len(starts) == len(lengths) == len(requests)
    calls.append(["fused", len(q)])
    return torch.full((len(q), topk), 7, dtype=torch.int32)


class Queries:
    """A CPU tensor that says it is on an indexed device, which upstream wants."""

    device = torch.device("cpu", 0)

    def __init__(self, tensor):
        self.tensor, self.shape = tensor, tensor.shape

    def __len__(self):
        return len(self.tensor)

    def __getitem__(self, rows):
        return self.tensor[rows]


sys.modules["deep_gemm"] = SimpleNamespace(fp8_mqa_logits=scored)
attach(plugin.seams(Switches.read({})), "a test")
hooks._ragged_slots, fused.score_and_select = ragged, in_one_pass

from sglang.srt.layers.attention.dsa import dsa_indexer  # noqa: E402
from sglang.srt.layers.attention.dsa.dsa_indexer_metadata import DSAIndexerMetadata  # noqa: E402
from sglang.srt.layers.attention.dsa.dsa_topk_backend import TopkTransformMethod  # noqa: E402
from sglang.srt.model_executor.forward_batch_info import ForwardMode  # noqa: E402

num_keys = sum(lengths)
keys = torch.zeros(num_keys, DIM, dtype=torch.uint8)
scales = torch.ones(num_keys, 1).view(torch.uint8)
dsa_indexer.get_token_to_kv_pool = lambda: SimpleNamespace(
    index_page_size=64, get_index_k_scale_buffer=lambda *_: (keys, scales)
)
starts = torch.zeros(num_rows, dtype=torch.int32)
counted = torch.full((num_rows,), 9, dtype=torch.int32)
table = torch.zeros(len(lengths), max(lengths), dtype=torch.int32)
attn_metadata = SimpleNamespace(
    page_table_1=table,
    real_page_table=table,
    indexer_logical_page_table=None,
    token_to_batch_idx=starts.clone(),
    pooled_index_kpool=1,
    dsa_seqlens_expanded=counted,
    indexer_k_start_end=(starts, starts + counted),
    indexer_seq_lens=torch.tensor(lengths),
    indexer_seq_lens_cpu=torch.tensor(lengths),
    topk_indices_offset=None,
)
metadata = DSAIndexerMetadata(attn_metadata, TopkTransformMethod.PAGED)
batch = SimpleNamespace(
    forward_mode=ForwardMode.EXTEND,
    seq_lens_cpu=torch.tensor(lengths),
    extend_seq_lens_cpu=lengths,
    attn_cp_metadata=None,
)
indexer = SimpleNamespace(
    index_topk=TOPK,
    num_init_tokens=0,
    num_local_tokens=0,
    _with_real_sm_count=nullcontext,
    _pad_heads_for_deep_gemm=dsa_indexer.Indexer._pad_heads_for_deep_gemm,
    _mask_init_and_local_tokens=lambda *_: None,
    _get_mqa_logits_budget_bytes=lambda _: budget,
    _MQA_LOGITS_BYTES_PER_ELEM=4,
)
queries = Queries(torch.zeros(num_rows, HEADS, DIM, dtype=torch.float8_e4m3fn))
weights = torch.zeros(num_rows, HEADS, 1)
result = torch.full((num_rows, TOPK), -1, dtype=torch.int32)
select = dsa_indexer.Indexer._get_topk_ragged
found = select(indexer, False, batch, 3, queries, weights, metadata, result)
print(json.dumps({"calls": calls, "selected": sorted(set(found.flatten().tolist()))}))
