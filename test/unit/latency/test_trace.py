"""Kernel names to categories, on a small trace made by hand."""

import gzip
import json
import re
from pathlib import Path

import pytest

from sglang_ic.latency import trace

# (name, launches, microseconds each, category)
KERNELS = [
    ("void deep_gemm::sm90_fp8_mqa_logits<32u, 128u, false>(...)", 4, 1000, "mqa_logits"),
    ("void deep_gemm::sm90_fp8_paged_mqa_logits<64u>(...)", 2, 500, "mqa_logits"),
    ("void deep_gemm::smxx_paged_mqa_logits_metadata<32u>(...)", 2, 5, "other indexer"),
    ("topk_transform_prefill_kernel(TopKParams)", 4, 400, "top-k"),
    ("void at::native::sbtopk::gatherTopK<float>(...)", 1, 30, "top-k"),
    ("void at::native::vectorized_gather_kernel<16, long>(...)", 4, 60, "page-table gather"),
    ("fused_indexer_q_rope_hadamard_quant_kernel", 4, 10, "other indexer"),
    ("void flash::fwd::sparse_attn_fwd_kernel<576>(...)", 8, 900, "sparse attention"),
    ("void cutlass::device_kernel<flash::FlashAttnFwdSm90<...>>", 2, 20, "sparse attention"),
    ("fused_moe_kernel", 8, 100, "MoE"),
    ("void moe_fused_gate_kernel<float>(...)", 8, 3, "MoE"),
    ("void topkGatingSoftmax_moe<...>(...)", 1, 3, "MoE"),
    ("nvjet_tst_128x256_64x4_1x2_h_bz_coopA_TNT", 8, 50, "GEMM"),
    ("void cublasLt::splitKreduce_kernel<...>", 8, 5, "GEMM"),
    ("fused_add_rmsnorm_kernel", 16, 2, "norm"),
    ("void flashinfer::norm::FusedAddRMSNormKernel<8u, __nv_bfloat16>(...)", 16, 2, "norm"),
    ("void sglang::fused_k_indexer_norm_rope_store<...>(...)", 2, 1, "other indexer"),
    ("void sglang::act_and_mul_kernel<__nv_bfloat16, 0>(...)", 8, 10, "MoE"),
    ("_slots_kernel", 0, 0, "top-k"),
    ("keep_kernel", 0, 0, "mqa_logits"),
    ("Memcpy DtoD (Device -> Device)", 1, 7, "rest"),
    ("void at::native::elementwise_kernel<...>", 3, 1, "rest"),
]


def chrome_trace() -> dict:
    events = [
        {"ph": "X", "cat": "kernel", "name": name, "dur": microseconds, "ts": 0}
        for name, num, microseconds, _ in KERNELS
        for _ in range(num)
    ]
    return {
        "traceEvents": [
            {"ph": "M", "name": "process_name"},
            {"ph": "X", "cat": "cuda_runtime", "name": "cudaGraphLaunch", "dur": 900},
            {"ph": "X", "cat": "gpu_user_annotation", "name": "mqa_logits", "dur": 900},
            *events,
        ]
    }


@pytest.mark.parametrize("name, _num, _each, wanted", KERNELS)
def test_category_of_a_kernel(name, _num, _each, wanted):
    assert trace.category(name) == wanted


def test_times_add_up_by_category_and_nothing_is_lost():
    found = trace.kernels(chrome_trace())
    milliseconds = found.category_ms()
    assert tuple(milliseconds) == trace.NAMES
    assert milliseconds["mqa_logits"] == pytest.approx(5.0)
    assert milliseconds["top-k"] == pytest.approx(1.63)
    assert milliseconds["other indexer"] == pytest.approx(0.052)
    total = sum(num * each for _, num, each, _ in KERNELS) / 1e3
    assert sum(milliseconds.values()) == pytest.approx(total)


def test_what_is_shown_is_every_category_once():
    assert sorted(trace.SHOWN) == sorted(trace.NAMES)


def test_every_kernel_of_ours_is_known():
    """A kernel in `rest` would make what it replaces look cheaper than it is."""
    folder = Path(trace.__file__).parents[1] / "hopper"
    text = "".join(path.read_text() for path in folder.glob("*.py"))
    kernels = re.findall(r"@(?:triton|gluon)\.jit(?:\(.*\))?\ndef (\w+_kernel)\(", text)
    assert set(kernels) == set(trace.OURS)


def test_kernels_that_were_filed_elsewhere_move_to_their_category():
    times = dict.fromkeys(trace.NAMES, 10.0)
    longest = [
        {"name": "flashinfer::norm::RMSNormKernel", "category": "sparse attention", "total_ms": 4},
        {"name": "flash::sparse_attn_fwd", "category": "sparse attention", "total_ms": 5},
        {"name": "nvjet_cut".ljust(160, "_"), "category": "MoE", "total_ms": 6},
        {"name": "flash::norm_cut".ljust(160, "_"), "category": "sparse attention", "total_ms": 1},
        {"name": "nvjet", "category": "MoE", "total_ms": 3},
    ]
    found = trace.refiled(times, longest)
    assert (found["norm"], found["sparse attention"]) == (15, 5)
    assert (found["MoE"], found["GEMM"]) == (7, 13)
    assert sum(found.values()) == sum(times.values())


def test_scoring_kernels_against_the_counter():
    found = trace.kernels(chrome_trace())
    assert found.launches("mqa_logits") == 6
    assert trace.launches_per_run(found, 6) == 1
    assert trace.launches_per_run(found, 3) == 2
    assert trace.launches_per_run(found, 4) == 1.5  # the counter and the trace disagree
    assert trace.launches_per_run(found, 0) is None
    assert trace.launches_per_run(found, None) is None  # stock counts none
    nothing = trace.Kernels({"norm": 1}, {"norm": 1.0}, {}, 1.0)
    assert trace.launches_per_run(nothing, 94) == 0  # a counter without a kernel must show


def test_longest_kernels_come_first():
    first, second, *_ = trace.kernels(chrome_trace()).longest(5)
    assert (first["category"], first["num"], first["total_ms"]) == ("sparse attention", 8, 7.2)
    assert second["category"] == "mqa_logits"


def test_what_is_subtracted_leaves_no_kernel_that_it_had_as_often():
    counts, times = {"norm": 6, "mqa_logits": 1}, {"norm": 12.5, "mqa_logits": 600.0}
    tokens = trace.Kernels(counts, times, {"norm": 9.0}, 612.0)
    counts, times = {"norm": 2, "mqa_logits": 1}, {"norm": 4.0, "mqa_logits": 590.0}
    prompt = trace.Kernels(counts, times, {"norm": 3.0}, 594.0)
    left = tokens.without(prompt)
    assert (left.counts, left.total_us, left.busy_us) == ({"norm": 4}, {"norm": 8.5}, 18.0)
    assert left.alone_ms() == {**dict.fromkeys(trace.NAMES, 0.0), "norm": 0.006}


def test_packed_and_plain_files_read_the_same(tmp_path):
    text = json.dumps(chrome_trace()).encode()
    (tmp_path / "a.trace.json").write_bytes(text)
    (tmp_path / "a.trace.json.gz").write_bytes(gzip.compress(text))
    packed, plain = (trace.read(tmp_path / name) for name in ("a.trace.json.gz", "a.trace.json"))
    assert packed == plain == trace.kernels(chrome_trace())


def test_a_trace_of_a_cpu_is_refused():
    events = [{"ph": "X", "cat": "cpu_op", "name": "aten::mm", "dur": 3}]
    with pytest.raises(trace.TraceError, match="no GPU kernel"):
        trace.kernels({"traceEvents": events})
