"""Each upstream fact that the CPU path leans on. A failure says what to check again in SGLang.

Runs on the patched and on the unpatched wheel alike, in a process of its own each: attaching
changes SGLang for good, and breaking a seam on purpose even more so.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sglang_ic.cpu.plugin import SEAMS

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(importlib.util.find_spec("sglang") is None, reason="SGLang not installed"),
]

# name: (callable, parameters in order that we pass or receive, what to check when it differs)
SIGNATURES = {
    "sglang.srt.arg_groups.model_hook.handle_model_specific_adjustments": (
        ["server_args"],
        "hooks.model_adjustments passes server_args through",
    ),
    "sglang.srt.arg_groups.overrides._dsa_kv_cache_dtype_default": (
        ["view"],
        "hooks.kv_cache_dtype_default reads view.kv_cache_dtype and returns declarations",
    ),
    "sglang.srt.arg_groups.overrides._dsa_split_backend_resolution": (
        ["view"],
        "hooks.split_backend_default returns no declaration",
    ),
    "sglang.srt.layers.rotary_embedding.factory.get_rope_cpu": (
        [
            "head_size",
            "rotary_dim",
            "max_position",
            "base",
            "is_neox_style",
            "rope_scaling",
            "dtype",
            "partial_rotary_factor",
            "device",
        ],
        "hooks.rope_on_cpu takes the same and hands all but device to get_rope",
    ),
    "sglang.srt.layers.rotary_embedding.factory.get_rope": (
        [
            "head_size",
            "rotary_dim",
            "max_position",
            "base",
            "is_neox_style",
            "rope_scaling",
            "dtype",
            "partial_rotary_factor",
            "dual_chunk_attention_config",
        ],
        "hooks.rope_on_cpu passes the first eight by position",
    ),
    "sglang.srt.mem_cache.index_key_cache.IndexKeyCache.__init__": (
        ["self", "pool", "index_buf_size"],
        "RowIndexKeyCache.__init__ sets the dtype on the pool before it calls this",
    ),
    "sglang.srt.mem_cache.index_key_cache.IndexKeyCache._buffer_shape": (
        ["self", "num_pages"],
        "RowIndexKeyCache returns (num_pages, page_size * index_head_dim)",
    ),
    "sglang.srt.mem_cache.index_key_cache.IndexKeyCache.move": (
        ["self", "tgt_loc", "src_loc"],
        "RowIndexKeyCache.move copies rows",
    ),
    "sglang.srt.mem_cache.index_key_cache.IndexKeyCache.load_cpu_copy": (
        ["self", "index_k_cpu", "indices"],
        "RowIndexKeyCache copies whole pages without CUDA",
    ),
    "sglang.srt.model_executor.pool_configurator"
    ".DefaultPoolConfigurator._compute_dsa_indexer_cell_size": (
        ["self", "kvc", "num_layers", "allocate_all_layers"],
        "hooks.index_k_bytes_per_token rescales the result from fp8 bytes to rows",
    ),
    "sglang.srt.layers.attention.dsa.dsa_indexer.Indexer.forward_cuda": (
        [
            "self",
            "x",
            "q_lora",
            "positions",
            "forward_batch",
            "layer_id",
            "return_indices",
            "use_cuda_graph",
        ],
        "indexer_forward takes what callers pass to the indexer on CUDA",
    ),
    "sglang.srt.models.deepseek_common.attention_backend_handler"
    ".AttentionBackendRegistry.get_handler": (
        ["backend_name"],
        "hooks.attention_handler wraps it as a classmethod",
    ),
    "sglang.srt.state_capturer.indexer_topk.maybe_capture_indexer_topk": (
        ["layer_id", "topk_indices"],
        "indexer_forward reports its selection through it",
    ),
}

# source text: (in which callable, what to check when it is gone)
CALL_SITES = {
    "torch.cuda.get_device_capability()": (
        "sglang.srt.arg_groups.model_hook.handle_model_specific_adjustments",
        "if upstream no longer asks CUDA, drop that seam",
    ),
    "pool.index_k_with_scale_buffer_dtype": (
        "sglang.srt.mem_cache.index_key_cache.IndexKeyCache.__init__",
        "RowIndexKeyCache chooses the dtype through this attribute",
    ),
    "self.pool.skip_topk_layers[layer_idx]": (
        "sglang.srt.mem_cache.index_key_cache.IndexKeyCache._layer_num_pages",
        "layers that reuse indices must get zero rows",
    ),
    "return IndexKeyCache(self, self.index_buf_size)": (
        "sglang.srt.mem_cache.memory_pool.DSATokenToKVPool._create_index_key_cache",
        "the pool must build the class that we replace, by this name",
    ),
    "ATTENTION_BACKENDS[backend_str](model_runner)": (
        "sglang.srt.model_executor.model_runner_components.attention_backend_setup",
        "the backend must be looked up in the table that we wrap an entry of",
    ),
    "topk_indices=topk_indices": (
        "sglang.srt.models.deepseek_common.attention_forward_methods.forward_mla"
        ".DeepseekMLAForwardMixin.forward_absorb_core",
        "CpuDsaBackend.forward_extend takes the selection by this name",
    ),
    "supports_triton": (
        "sglang.srt.mem_cache.allocator.paged.PagedTokenToKVPoolAllocator.__init__",
        "on CPU the paged allocator must take its torch path by itself",
    ),
}

READ = """
import inspect, json, pkgutil, sys
asked = json.load(sys.stdin)
def parameters(name):
    return list(inspect.signature(pkgutil.resolve_name(name)).parameters)
found = {
    "signatures": {name: parameters(name) for name in asked["signatures"]},
    "sources": {name: inspect.getsource(pkgutil.resolve_name(name)) for name in asked["sources"]},
}
print("FOUND" + json.dumps(found))
"""


def run(code: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess:
    path = [str(ROOT / "python"), os.environ.get("PYTHONPATH", "")]
    from importlib.metadata import version

    if "+ic" not in version("sglang"):
        path.append(str(ROOT / "test" / "standins"))
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={
            **os.environ,
            "SGLANG_USE_CPU_ENGINE": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            **environment,
        },
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def upstream():
    """Parameters and sources of everything in the tables, read before anything is attached."""
    asked = {"signatures": list(SIGNATURES), "sources": [where for where, _ in CALL_SITES.values()]}
    done = run(READ, json.dumps(asked))
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.split("FOUND", 1)[1])


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature_is_what_the_hook_expects(upstream, name):
    expected, recheck = SIGNATURES[name]
    assert upstream["signatures"][name] == expected, f"{name} changed: {recheck}"


@pytest.mark.parametrize("text", CALL_SITES)
def test_call_site_is_still_there(upstream, text):
    where, recheck = CALL_SITES[text]
    assert text in upstream["sources"][where], f"{text!r} left {where}: {recheck}"


def test_register_attaches_every_seam_and_twice_is_once():
    code = """
from sglang_ic.cpu.plugin import SEAMS, register
assert all(seam.problem() for seam in SEAMS), "attached before register()"
register()
assert not any(seam.problem() for seam in SEAMS)
register()
from sglang.srt.plugins.hook_registry import HookRegistry
assert all(len(hooks) == 1 for hooks in HookRegistry._hooks.values()), "attached twice"
print("ATTACHED")
"""
    done = run(code)
    assert "ATTACHED" in done.stdout, done.stderr[-3000:]


def test_register_does_nothing_without_the_cpu_engine():
    code = """
from sglang_ic.cpu.plugin import register
register()
from sglang.srt.plugins.hook_registry import HookRegistry
print("HOOKS", len(HookRegistry._hooks))
"""
    done = run(code, SGLANG_USE_CPU_ENGINE="0")
    assert "HOOKS 0" in done.stdout, done.stderr[-3000:]


# Every seam in one process: attach() is called with one broken seam at a time.
BREAK = """
import dataclasses
from sglang_ic.cpu.plugin import SEAMS, register
from sglang_ic.seams import attach
register()
for seam in SEAMS:
    name = seam.target.rstrip("]") + "_renamed" + "]" * seam.target.endswith("]")
    broken = dataclasses.replace(seam, target=name)
    try:
        attach((broken,), "DSA on CPU")
        print("ACCEPTED", seam.target)
    except SystemExit as refusal:
        print("REFUSED", seam.target, "::", str(refusal).replace(chr(10), "<newline>"))
# A hook that another object has displaced since.
import sglang.srt.mem_cache.memory_pool as memory_pool
memory_pool.IndexKeyCache = object
try:
    attach(tuple(seam for seam in SEAMS if seam.seen_at), "DSA on CPU")
    print("ACCEPTED stale binding")
except SystemExit as refusal:
    print("REFUSED stale binding ::", refusal)
"""


def test_a_seam_that_moved_stops_the_server_with_one_line():
    done = run(BREAK)
    assert done.returncode == 0, done.stderr[-3000:]
    refusals = dict(
        line.removeprefix("REFUSED ").split(" :: ", 1)
        for line in done.stdout.splitlines()
        if line.startswith("REFUSED ")
    )
    assert set(refusals) == {seam.target for seam in SEAMS} | {"stale binding"}, done.stdout
    for target, message in refusals.items():
        assert message.startswith("sglang_ic: cannot attach DSA on CPU to SGLang 0.5.23"), target
        assert "<newline>" not in message
        assert target == "stale binding" or f"{target.rstrip(']')}_renamed" in message


def test_importing_the_plugin_imports_neither_sglang_nor_torch():
    code = (
        "import sys, sglang_ic.cpu.plugin; "
        "print('CLEAN', not {'torch', 'sglang'} & set(sys.modules))"
    )
    assert "CLEAN True" in run(code).stdout
