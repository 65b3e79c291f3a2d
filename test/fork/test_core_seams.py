"""Every fact of upstream that the core leans on. A failure says what to look at again.

Reads the installed SGLang's source, so that nothing has to start.
"""

import ast
import importlib.util
from functools import cache
from pathlib import Path

import pytest


@cache
def source(path: str) -> str:
    spec = importlib.util.find_spec("sglang")
    if spec is None:
        pytest.skip("no SGLang here")
    return (Path(spec.origin).parent / path).read_text()


@cache
def function(path: str, name: str) -> str:
    """Source of a function or `Class.method`."""
    body = ast.parse(source(path)).body
    for part in name.split("."):
        found = [
            node
            for node in body
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            and node.name == part
        ]
        assert found, f"{path} has no {name} any more"
        node, body = found[0], found[0].body
    return ast.get_source_segment(source(path), node)


FACTS = [
    (
        "srt/configs/model_config.py",
        "dsa_layer_skips_topk",
        [
            'indexer_types = getattr(config, "indexer_types", None)',
            'indexer_types[layer_id] == "shared"',
        ],
        "indexer_types must win over all other keys: server/resolve.py writes the pattern there",
    ),
    (
        "srt/configs/model_config.py",
        "ModelConfig.__init__",
        ["self.model_override_args = json.loads(model_override_args)", "copy.deepcopy("],
        "server/resolve.py reads model_override_args and changes hf_config, which must be a copy",
    ),
    (
        "srt/configs/model_config.py",
        "ModelConfig.__init__",
        [
            "self.hf_text_config = ",
            "self.model_path = ",
            "self.revision = ",
            "self.is_draft_model = ",
        ],
        "server/resolve.py reads these attributes after __init__",
    ),
    (
        "srt/arg_groups/resolution_hooks.py",
        "register_resolution_hook",
        ["_HOOKS.setdefault(name, []).append(fn)"],
        "plugin.py wraps handle_model_specific_adjustments to refuse clashing flags",
    ),
    (
        "srt/arg_groups/model_hook.py",
        "_validate_dsa_tbo_index_sharing",
        ['"shared" in indexer_types'],
        "upstream's own refusal of two-batch overlap reads indexer_types, which we write",
    ),
    (
        "srt/managers/hisparse_coordinator.py",
        "resolve_shared_index_layers",
        ['getattr(hf_text_config, "cli_factor", 1) or 1'],
        "HiSparse looks at cli_factor before the policy; write_back() neutralises it",
    ),
    (
        "srt/model_executor/pool_configurator.py",
        "DefaultPoolConfigurator",
        ["not dsa_layer_skips_topk(kvc.model_config.hf_config, layer_id)"],
        "pool sizing must ask the policy function, or Shared layers are paid for",
    ),
    (
        "srt/mem_cache/kv_cache_configurator.py",
        "KVCacheConfigurator._build_dsa_kv_pool",
        ['pool_kwargs["skip_topk_layers"]', "dsa_layer_skips_topk(self.model_config.hf_config"],
        "the pool must leave out index-K of Shared layers by the same policy",
    ),
    (
        "srt/mem_cache/memory_pool.py",
        "DSATokenToKVPool",
        ["def index_k_with_scale_buffer(self):", "return self.index_key_cache.buffer"],
        "server/observe.py counts index-K bytes on these buffers",
    ),
    (
        "srt/managers/scheduler_components/internal_state.py",
        "SchedulerInternalStateController.get_internal_state",
        ["GetInternalStateReqOutput(internal_state="],
        "server/observe.py adds to internal_state of the returned object",
    ),
    (
        "srt/managers/scheduler.py",
        "Scheduler.init_metrics_collector",
        ["self.metrics_collector_context = ", "self.metrics_collector = "],
        "server/observe.py takes labels and the on/off switch from these",
    ),
    (
        "srt/managers/scheduler.py",
        "Scheduler.flush_cache",
        ["self.tree_cache.reset()", "return success"],
        "server/control.py trusts its return value before it changes the pattern",
    ),
    (
        "srt/managers/scheduler.py",
        "Scheduler.handle_rpc_request",
        ["getattr(self, recv_req.method)"],
        "server/control.py adds a method that collective_rpc finds by name",
    ),
    (
        "srt/model_executor/model_runner.py",
        "ModelRunner.forward",
        ["self._forward_raw(", "output.can_run_graph"],
        "server/observe.py counts a replayed graph by output.can_run_graph",
    ),
    (
        "srt/layers/attention/index_topk_share.py",
        "IndexTopKShareState.from_mtp_carry",
        ["forward_batch.spec_info.dsa_topk_indices"],
        "MTP seeds stay with upstream's carrier; runtime/carry.py leaves draft layers to it",
    ),
    (
        "srt/models/deepseek_common/attention_forward_methods/forward_mla.py",
        "DeepseekMLAForwardMixin.should_run_indexer",
        ["return not self.skip_topk or (self.is_nextn and prev_topk_indices is None)"],
        "runtime/carry.py falls back to this for a batch without a state",
    ),
    (
        "srt/plugins/__init__.py",
        "load_plugins",
        ["except Exception:", "logger.exception"],
        "SGLang only logs a plugin that fails; seams.py stops the process because of it",
    ),
    (
        "srt/plugins/hook_registry.py",
        "_wrap_fn",
        ["functools.wraps(original_fn)", "wrapper.__wrapped__ = original_fn"],
        "seams.py follows __wrapped__ and closures to see whether a hook is attached",
    ),
    (
        "srt/batch_overlap/two_batch_overlap.py",
        "TboForwardBatchPreparer",
        ["return ForwardBatch(**output_dict)"],
        "children of a batch are new ForwardBatches, so they start without a state",
    ),
    (
        "srt/entrypoints/http_server.py",
        "server_info",
        ["_global_state.tokenizer_manager.get_internal_state()"],
        "server/routes.py asks the schedulers the same way",
    ),
]


@pytest.mark.parametrize(
    "path, name, needles, why", FACTS, ids=[f"{name}-{i}" for i, (_, name, *_) in enumerate(FACTS)]
)
def test_upstream_still_does_what_we_lean_on(path, name, needles, why):
    text = function(path, name)
    for needle in needles:
        assert needle in text, f"{path}: {name} no longer has {needle!r}; look again: {why}"


def test_the_only_readers_of_the_roles_are_known():
    """A new reader of the policy or of skip_topk needs a look: does it agree with our roles?"""
    spec = importlib.util.find_spec("sglang")
    if spec is None:
        pytest.skip("no SGLang here")
    root = Path(spec.origin).parent / "srt"
    found = sorted(
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if "dsa_layer_skips_topk" in path.read_text(errors="replace")
    )
    assert found == [
        "configs/model_config.py",
        "managers/hisparse_coordinator.py",
        "mem_cache/kv_cache_configurator.py",
        "model_executor/model_runner_components/misc_utils.py",
        "model_executor/pool_configurator.py",
        "models/deepseek_v2.py",
    ]


def test_the_only_runs_of_an_indexer_are_behind_our_question():
    """Each call of an indexer in the patched files is guarded by runs_indexer."""
    folder = "srt/models/deepseek_common/attention_forward_methods/"
    for name in ("forward_mla.py", "forward_mha.py"):
        text = source(folder + name)
        if "from sglang_ic import runtime" not in text:
            pytest.skip("this SGLang is not patched")
        body = text.replace("def should_run_indexer", "")
        assert "self.should_run_indexer(" not in body, f"{name} decides without the state"
