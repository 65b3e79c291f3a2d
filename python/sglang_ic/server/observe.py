"""What the scheduler process tells about the index cache: start-up log, info, counters."""

from __future__ import annotations

import logging
from typing import Any

from sglang_ic.pattern import LayerPattern
from sglang_ic.runtime.roles import LayerRoles

logger = logging.getLogger(__name__)


def roles_of(model_runner: Any) -> LayerRoles | None:
    """The roles held by a model runner's model; None for a model without them."""
    inner = getattr(model_runner.model, "model", None)
    return getattr(inner, "index_cache_roles", None)


def check_candidate_path(device: str, pattern: LayerPattern) -> None:
    """Refuse candidate layers that this process would run as Full ones.

    Raises:
        ValueError: a GPU's scheduler into which the plugin has put no candidate path.
    """
    if device == "cpu" or not pattern.num_candidate:
        return  # the CPU path reads roles itself
    from sglang_ic.hopper.plugin import CANDIDATES

    if (problem := CANDIDATES.problem()) is not None:
        raise ValueError(
            f"pattern {pattern} has C (candidate) layers, but {problem}: put sglang_ic_hopper "
            "into SGLANG_PLUGINS, or leave that variable unset"
        )


def after_scheduler_init(_result: None, scheduler: Any, *_args: Any, **_kwargs: Any) -> None:
    """AFTER hook on ``Scheduler.__init__``: log the pattern in one line, start the metrics."""
    runner = scheduler.tp_worker.model_runner
    roles = roles_of(runner)
    if roles is None:
        return
    check_candidate_path(runner.device, roles.pattern)
    resolved = runner.model_config.hf_config.index_cache
    for warning in resolved["warnings"]:
        logger.warning("index cache: %s", warning)
    logger.info("%s", resolved["log_line"])
    if scheduler.metrics_collector_context.current_scheduler_metrics_enabled:
        from sglang_ic.runtime.metrics import IndexCacheMetrics

        roles.metrics = IndexCacheMetrics(
            scheduler.metrics_collector.labels, roles.pattern, resolved["source"]
        )


def count_forward(original: Any, model_runner: Any, *args: Any, **kwargs: Any) -> Any:
    """AROUND hook on ``ModelRunner.forward``: count the indexer layer-passes of this pass.

    A replayed CUDA graph runs no Python of ours, and its roles are those of the capture, so it
    counts what one pass over this stage runs.
    """
    roles = roles_of(model_runner)
    if roles is None:
        return original(model_runner, *args, **kwargs)
    roles.last_pass = None
    output = original(model_runner, *args, **kwargs)
    if not model_runner.is_draft_worker:
        counts = roles.per_pass if output.can_run_graph else roles.last_pass
        roles.count(counts or (0, 0))
    return output


def add_index_cache(output: Any, controller: Any, *_args: Any, **_kwargs: Any) -> None:
    """AFTER hook on ``get_internal_state``: what `/server_info` and `/index_cache` show."""
    scheduler = controller.scheduler
    info = describe(scheduler.tp_worker.model_runner)
    if info is not None:
        output.internal_state["index_cache"] = info


def describe(model_runner: Any) -> dict[str, Any] | None:
    """Pattern, counters and index-K bytes of one scheduler, as JSON-ready values."""
    roles = roles_of(model_runner)
    if roles is None:
        return None
    resolved = model_runner.model_config.hf_config.index_cache
    pattern = roles.pattern
    run, skipped = roles.totals
    return {
        "pattern": str(pattern),
        "source": roles.source or resolved["source"],
        "num_layers": pattern.num_layers,
        "num_full": pattern.num_full,
        "num_shared": pattern.num_shared,
        "num_candidate": pattern.num_candidate,
        "candidate_pages": roles.candidate_pages,
        "owners": list(pattern.owners),
        "index_topk": resolved["index_topk"],
        "build": resolved["build"],
        "start_layer": roles.start_layer,
        "end_layer": roles.end_layer,
        **index_k_bytes(model_runner.token_to_kv_pool),
        "indexer_run_total": run,
        "indexer_skipped_total": skipped,
    }


def index_k_bytes(pool: Any) -> dict[str, Any]:
    """Bytes of index-K per layer of this stage, counted on the real buffers.

    ``index_k_bytes_saved`` is what the layers without rows would hold at the size of the
    largest layer; 0 when no layer holds any.
    """
    per_layer = [buffer.nbytes for buffer in pool.index_k_with_scale_buffer]
    largest = max(per_layer, default=0)
    return {
        "index_k_bytes_per_layer": per_layer,
        "index_k_bytes": sum(per_layer),
        "index_k_bytes_saved": largest * per_layer.count(0),
    }
