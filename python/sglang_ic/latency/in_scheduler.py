"""Inside the scheduler of a measured server: set the roles of another arm, and tell facts.

Works on the fork and on upstream's own SGLang, through two routes that both have:

    POST /set_internal_state {"server_args": {"latency_arm": 2}}   the third of LATENCY_PATTERNS
    GET /server_info                                               facts under `latency`

A switched server was built with an indexer and index-K in every layer. On the fork the roles are
its own; upstream reads two attributes of each attention layer in every eager pass, which are set
here. A CUDA graph keeps the roles of its capture, so decode graphs are captured again for each arm.
"""

from __future__ import annotations

import functools
import json
import os
import resource
from typing import Any

from sglang_ic.pattern import LayerPattern

ARM_KEY = "latency_arm"
# JSON: F/S texts of the arms and, last, of what fills the cache; and batch sizes of decode graphs
# (empty: decode runs eagerly).
PATTERNS_VARIABLE = "SGLANG_IC_LATENCY_PATTERNS"
GRAPHS_VARIABLE = "SGLANG_IC_LATENCY_GRAPHS"


def install() -> None:
    """Add our handler and our facts to SGLang's internal-state controller."""
    from sglang.srt.managers.scheduler_components import internal_state

    controller = internal_state.SchedulerInternalStateController
    told, handlers = controller.get_internal_state, controller._update_handlers

    @functools.wraps(told)
    def get_internal_state(self, request):
        output = told(self, request)
        output.internal_state["latency"] = facts(self.scheduler)
        return output

    @functools.wraps(handlers)
    def update_handlers(self):
        def validate(_key, value):
            if reason := refusal(self.scheduler, int(value)):
                raise internal_state.UpdateRejected(reason)

        def apply(_key, value):
            set_arm(self.scheduler, int(value))

        return {**handlers(self), ARM_KEY: internal_state._UpdateHandler(validate, apply)}

    controller.get_internal_state = get_internal_state
    controller._update_handlers = update_handlers


def patterns() -> list[str]:
    return json.loads(os.environ.get(PATTERNS_VARIABLE, "[]"))


def refusal(scheduler: Any, arm: int) -> str | None:
    """Why the roles cannot be set now, in one line."""
    if not 0 <= arm < len(patterns()):
        return f"arm {arm} is not one of the {len(patterns())} arms of this server"
    if not scheduler.is_fully_idle():
        return "requests are running"
    return None


def set_arm(scheduler: Any, arm: int) -> None:
    """Run the arm's pattern from the next pass on; cached prefixes stay, the caller decides.

    Every layer holds index-K of a prefix that was computed with all layers Full.
    """
    runner = scheduler.tp_worker.model_runner
    pattern = LayerPattern.parse(patterns()[arm], runner.model_config.num_hidden_layers)
    set_roles(runner.model.model, pattern)
    fills = arm == len(patterns()) - 1  # and decodes nothing
    sizes = [] if fills else json.loads(os.environ.get(GRAPHS_VARIABLE, "[]"))
    if runner.device == "cuda":
        if sizes and not runner.decode_cuda_graph_captured:
            runner.ensure_decode_cuda_graphs(sizes)
        elif sizes:
            runner.recapture_decode_cuda_graph()
        import torch

        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()


def set_roles(model: Any, pattern: LayerPattern) -> None:
    """Give each layer its role; `model` is the inner model (`model.layers`)."""
    roles = getattr(model, "index_cache_roles", None)
    if roles is not None:  # the fork
        roles.set_pattern(roles.parse(str(pattern)))
        return
    for layer in range(pattern.num_layers):
        attention = model.layers[layer].self_attn
        assert attention.indexer is not None, f"layer {layer} has no indexer"
        attention.skip_topk = not pattern.is_full(layer)
        following = layer + 1
        attention.next_skip_topk = following < pattern.num_layers and not pattern.is_full(following)


def facts(scheduler: Any) -> dict[str, Any]:
    """What is true of this scheduler now, as JSON-ready values."""
    import torch
    import transformers
    from sglang.version import __version__

    runner = scheduler.tp_worker.model_runner
    return {
        "pattern": running_pattern(runner.model.model),
        "versions": {
            "sglang": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "weights": weights(runner.model.model),
        "memory": memory(runner.device),
        "decode_graph_batch_sizes": list(runner.decode_cuda_graph_capture_bs or []),
    }


def running_pattern(model: Any) -> str:
    """F/S text of the roles in use, read from what the passes read."""
    roles = getattr(model, "index_cache_roles", None)
    if roles is not None:
        return str(roles.pattern)
    return "".join("S" if layer.self_attn.skip_topk else "F" for layer in model.layers)


def weights(model: Any) -> dict[str, float]:
    """What tells made-up weights from trained ones: one projection and one norm of layer 0."""
    layer = model.layers[0]
    projection = layer.self_attn.q_b_proj.weight.float()
    return {
        "projection_max_abs": projection.abs().max().item(),
        "projection_std": projection.std().item(),
        "norm_mean": layer.input_layernorm.weight.float().mean().item(),
    }


def memory(device: str) -> dict[str, int]:
    """Bytes: of tensors at the peak since the arm was set, and of the whole device now."""
    if device != "cuda":
        return {"peak_process_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    import torch

    free, total = torch.cuda.mem_get_info()
    return {
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
        "device_used_bytes": total - free,
        "device_total_bytes": total,
    }
