"""Every fact of upstream that sglang_ic.hopper leans on. A failure says what to look at again.

Reads the installed SGLang's source: nothing has to start, and no GPU is needed.
"""

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest

DSA = "srt/layers/attention/dsa/"
TOPK_V2 = "kernels/ops/attention/dsv4/topk.py"


@cache
def source(path: str) -> str:
    spec = importlib.util.find_spec("sglang")
    if spec is None:
        pytest.skip("no SGLang here")
    return (Path(spec.origin).parent / path).read_text()


def definition(path: str, name: str) -> ast.FunctionDef:
    """A function or `Class.method`."""
    body = ast.parse(source(path)).body
    for part in name.split("."):
        found = [node for node in body if getattr(node, "name", None) == part]
        assert found, f"{path} has no {name} any more"
        node, body = found[0], found[0].body
    return node


def text(path: str, name: str) -> str:
    return " ".join(ast.unparse(definition(path, name)).split())


def arguments(path: str, name: str) -> list[str]:
    args = definition(path, name).args
    return [arg.arg for arg in args.args + args.kwonlyargs]


def test_the_hooked_method_takes_what_the_hook_takes():
    assert arguments(DSA + "dsa_indexer_metadata.py", "DSAIndexerMetadata.topk_transform") == [
        *("self", "logits", "topk", "ks", "cu_seqlens_q", "ke_offset", "batch_idx_list"),
        "topk_indices_offset_override",
    ], "look again at _in_prefill in sglang_ic/hopper/hooks.py"


def test_the_method_of_candidate_layers_takes_what_its_hook_takes():
    name = "Indexer._get_topk_ragged"
    assert arguments(DSA + "dsa_indexer.py", name) == [
        *("self", "enable_dual_stream", "forward_batch", "layer_id", "q_fp8", "weights"),
        *("metadata", "topk_result"),
    ], "look again at topk_of_candidates in candidates.py and prefill_without_scores in hooks.py"


def test_the_hooks_of_attention_take_what_upstreams_methods_take():
    backend, name = "srt/layers/attention/dsa_backend.py", "DeepseekSparseAttnBackend."
    why = "look again at sglang_ic/hopper/attention_hooks.py"
    assert arguments(backend, name + "forward_extend")[:6] == [
        *("self", "q", "k", "v", "layer", "forward_batch"),
    ], why
    assert {"q_rope", "attn_sink"} <= set(arguments(backend, name + "forward_extend")), why
    assert arguments(backend, name + "_forward_flashmla_sparse") == [
        *("self", "q_all", "kv_cache", "v_head_dim", "page_table_1", "sm_scale", "topk_length"),
        "attn_sink",
    ], why
    assert arguments(backend, name + "_forward_fa3") == [
        *("self", "q_rope", "kv_cache", "v_head_dim", "q_nope", "page_table", "cache_seqlens"),
        *("cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "sm_scale", "logit_cap", "page_size"),
    ], "look again at decode_in_splits in sglang_ic/hopper/decode_attention.py"
    utils = "kernels/ops/attention/utils.py"
    assert arguments(utils, "concat_mla_absorb_q_general") == ["q_nope", "q_rope"], why


def test_the_kernel_that_ragged_calls_takes_what_it_is_given():
    assert arguments(TOPK_V2, "topk_transform_ragged_v2") == [
        *("scores", "seq_lens", "out_offsets", "out_indices", "row_starts"),
    ], "look again at _ragged_slots in sglang_ic/hopper/hooks.py"
    words = ast.get_docstring(definition(TOPK_V2, "topk_transform_ragged_v2"))
    assert "selected_position + out_offsets[i]" in " ".join(words.split())


FACTS = [
    (
        DSA + "dsa_indexer.py",
        "Indexer._get_topk_ragged",
        [
            "raw_topk_result = metadata.topk_transform(logits, self.index_topk, ks=ks)",
            "batch_idx_chunk = token_to_batch_idx[start:end]",
            "lengths_chunk = seq_lens_expanded[start:end]",
            "ke_offset=lengths_chunk, batch_idx_list=batch_idx_chunk",
        ],
        "hooks.prefill_rows reads windows, lengths and requests from these arguments",
    ),
    (
        DSA + "dsa_indexer.py",
        "Indexer._get_topk_paged",
        ["topk_result = metadata.topk_transform(logits, self.index_topk)"],
        "decode passes no ks, and that is how hooks.prefill_rows leaves it alone",
    ),
    (
        DSA + "dsa_indexer.py",
        "Indexer._forward_cuda_k_only",
        ["raw_topk_result = metadata.topk_transform(dummy_logits, self.index_topk)"],
        "prefill within index_topk passes no ks, and stays with upstream's kernel",
    ),
    (
        DSA + "dsa_topk_backend.py",
        "DSATopKBackend.topk_transform",
        [
            "attn_metadata.page_table_1[batch_idx_list] if batch_idx_list is not None",
            "return fast_topk_transform_fused(",
            "if not envs.SGLANG_DSA_FUSE_TOPK.get() or force_unfused_topk:",
        ],
        "the copied page-table rows and the older kernel are what sglang_ic.hopper replaces: "
        "if upstream no longer does this, drop the replacement",
    ),
    (
        DSA + "dsa_topk_backend.py",
        "_topk_transform_v2_ragged",
        ["out_offsets=topk_indices_offset", "row_starts=row_starts"],
        "upstream calls the ragged kernel like this for fp8 KV",
    ),
    (
        DSA + "dsa_indexer.py",
        "Indexer._get_topk_ragged",
        [
            "logits = resolve_fp8_mqa_logits_fn()(q_padded, kv_fp8, w_padded, ks, ke, "
            "clean_logits=False)",
            "k_scale = k_scale.view(torch.float32).squeeze(-1)",
            "k_fp8 = k_fp8.view(torch.float8_e4m3fn)",
            "weights = weights.squeeze(-1)",
        ],
        "fused_hooks._deferred_mqa_logits stands in for it: its arguments, shapes and dtypes",
    ),
    (
        DSA + "dsa_indexer.py",
        "Indexer._get_topk_ragged",
        [
            "need_chunk, logits_budget_bytes = mqa_logits_should_chunk(num_rows=q_offset, "
            "num_cols=k_offset, get_budget_bytes=",
            "if not need_chunk:",
        ],
        "fused_hooks.whole_chunks answers this question where scores are not written",
    ),
    (
        DSA + "dsa_indexer.py",
        "Indexer._get_topk_ragged",
        ["seq_len_sum = torch.sum(indexer_seq_lens_cpu).item()"],
        "fused_hooks.prefill_without_scores asks for the same lengths, which are on the CPU",
    ),
    (
        DSA + "utils.py",
        "resolve_fp8_mqa_logits_fn",
        ["return deep_gemm.fp8_mqa_logits"],
        "fused_hooks.scores_with_fused_kernel stands in for this function",
    ),
    (
        DSA + "dsa_indexer.py",
        "Indexer._get_topk_ragged",
        [
            "block_tables = metadata.get_logical_page_table()",
            "get_token_to_kv_pool().get_index_k_scale_buffer(layer_id, "
            "metadata.get_indexer_seq_len(), block_tables, seq_len_sum, max_seq_len)",
            "self._pad_heads_for_deep_gemm(q_fp8[:q_offset], weights[:q_offset])",
            "self._mask_init_and_local_tokens(logits, seq_lens_expanded, ks)",
        ],
        "hopper/candidates.py stands in for this method in candidate layers: it gathers index-K "
        "with pages of its own, and calls the same functions",
    ),
    (
        DSA + "dsa_topk_backend.py",
        "DSATopKBackend.topk_func",
        ["return fast_topk_v2(score, lengths, topk, row_starts=row_starts)"],
        "hopper/candidates.py selects with it: positions in a window that begins at 0, -1 pads",
    ),
    (
        "kernels/ops/kvcache/dsa_index_k_cache.py",
        "_get_k_and_s_triton",
        ["_, page_indice_batch_offset = page_indices.shape", "seq_num = seq_lens.shape[0]"],
        "hopper/candidates.py passes lists of pages [groups, pages] in place of page tables",
    ),
    (
        "srt/layers/attention/dsa_backend.py",
        "DeepseekSparseAttnBackend._cal_indexer_k_start_end",
        [
            "token_to_batch_idx = torch.cat(token_to_batch_idx, dim=0)",
            "tb = torch.full((extend_seq_len,), bi, dtype=torch.int32",
            "return ((ks, ke), token_to_batch_idx)",
        ],
        "hooks.Rows.requests is token_to_batch_idx: int32, one entry per query, once per pass",
    ),
    (
        "srt/layers/attention/dsa_backend.py",
        "DeepseekSparseAttnBackend.forward_extend",
        ["page_table_1 = self._get_fused_topk_page_table(topk_indices)"],
        "attention takes the fused top-k as slots",
    ),
    (
        "srt/layers/attention/dsa_backend.py",
        "DeepseekSparseAttnBackend.forward_extend",
        [
            "if q_rope is not None: q_all = concat_mla_absorb_q_general(q_nope, q_rope) "
            "if dsa_impl == 'triton_sparse_mla':",
            "return self._forward_flashmla_sparse(q_all=q_all, kv_cache=kv_cache, "
            "page_table_1=page_table_1,",
        ],
        "attention_hooks leaves queries in two parts between these two lines",
    ),
    (
        "srt/layers/attention/dsa_backend.py",
        "DeepseekSparseAttnBackend._forward_flashmla_sparse",
        [
            "if topk_length is not None and topk_length.shape[0] != num_tokens: topk_length = None",
            "indices_input = page_table_1.unsqueeze(1)",
            "o = o[:, :num_heads, :]",
        ],
        "attention_hooks.attend_to_parts stands in for this method",
    ),
    (
        "srt/layers/attention/dsa_backend.py",
        "DeepseekSparseAttnBackend._forward_fa3",
        [
            "cache_seqlens = cache_seqlens[:num_queries]",
            "softmax_scale=sm_scale, causal=True, softcap=logit_cap, return_softmax_lse=False",
            "page_table = page_table.clamp(min=0)",
            "return o",
        ],
        "decode_attention.decode_in_splits stands in for this method",
    ),
    (
        "srt/layers/attention/dsa_backend.py",
        "DeepseekSparseAttnBackend._get_fused_topk_page_table",
        ["self.dsa_topk_backend.is_sgl_kernel()", "return topk_indices"],
        "attention takes the fused top-k as slots, in any order",
    ),
    (
        "srt/layers/attention/dsa_backend.py",
        "DeepseekSparseAttnBackend.get_topk_transform_method",
        ["self.dsa_kv_cache_store_fp8", "topk_transform_method = TopkTransformMethod.PAGED"],
        "bf16 KV makes prefill PAGED, the case that is replaced",
    ),
]


@pytest.mark.parametrize(
    "path, name, needles, why", FACTS, ids=[name.rsplit(".", 1)[-1] for _, name, *_ in FACTS]
)
def test_upstream_still_does_what_we_lean_on(path, name, needles, why):
    found = text(path, name)
    for needle in needles:
        assert needle in found, f"{path}: {name} no longer has {needle!r}; look again: {why}"


def test_what_upstream_does_with_prefill_scores_is_known():
    """Deferred scores have a length, a shape and scatter_, and top-k knows them; nothing else."""
    function = definition(DSA + "dsa_indexer.py", "Indexer._get_topk_ragged")
    names = {"logits", "logits_chunk"}
    uses = {
        " ".join(ast.unparse(node).split()).partition("(")[0]
        for node in ast.walk(function)
        if not isinstance(node, ast.Assign)
        and any(isinstance(c, ast.Name) and c.id in names for c in ast.iter_child_nodes(node))
    }
    why = "look again at DeferredScores in sglang_ic/hopper/deferred.py"
    assert uses == {
        *("logits.shape", "self._mask_init_and_local_tokens", "metadata.topk_transform"),
    }, why
    masking = text(DSA + "dsa_indexer.py", "Indexer._mask_init_and_local_tokens")
    before, _, after = masking.partition("row_starts is None")
    assert "num_init_tokens == 0 and self.num_local_tokens == 0: return logits" in before, why
    assert set(re.findall(r"logits\.(\w+)", after)) == {"shape", "scatter_"}, why


def test_only_the_prefill_indexer_asks_for_scores():
    """Deferred scores must reach the hooked top-k, whoever asked for them."""
    spec = importlib.util.find_spec("sglang")
    if spec is None:
        pytest.skip("no SGLang here")
    root = Path(spec.origin).parent / "srt"
    calls = {
        path.name: path.read_text(errors="replace").count("resolve_fp8_mqa_logits_fn()(")
        for path in root.rglob("*.py")
        if "resolve_fp8_mqa_logits_fn" in path.read_text(errors="replace")
    }
    assert calls == {"dsa_indexer.py": 2, "utils.py": 0}


def test_the_metadata_has_the_fields_that_are_read():
    fields = {
        node.target.id
        for node in definition("srt/layers/attention/dsa_backend.py", "DSAMetadata").body
        if isinstance(node, ast.AnnAssign)
    }
    assert {"page_table_1", "token_to_batch_idx", "pooled_index_kpool"} <= fields


def test_the_only_callers_of_the_hooked_method_are_known():
    """A new caller needs a look: would its rows be taken for prefill rows?"""
    spec = importlib.util.find_spec("sglang")
    if spec is None:
        pytest.skip("no SGLang here")
    root = Path(spec.origin).parent / "srt"
    calls = {
        path.name: path.read_text(errors="replace").count("metadata.topk_transform(")
        for path in root.rglob("*.py")
        if "metadata.topk_transform(" in path.read_text(errors="replace")
    }
    assert calls == {"dsa_indexer.py": 4, "dsa_indexer_kpool.py": 1}
