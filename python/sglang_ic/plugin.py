"""SGLang plugin entry point (group ``sglang.srt.plugins``): the index cache on a patched SGLang.

Everything that a hook can do is done here; the patches do only what runs inside the model's own
code. See ``sglang_ic.seams`` for why each hook is looked at after it was applied.
"""

from __future__ import annotations

from sglang_ic.seams import Seam, attach, installed_version, refuse

_SRT = "sglang.srt."
_SERVER = "sglang_ic.server."

SEAMS = (
    Seam(
        _SRT + "configs.model_config.ModelConfig.__init__",
        "after",
        _SERVER + "resolve.resolve_model_config",
        "no pattern would be resolved or checked",
    ),
    Seam(
        _SRT + "managers.scheduler.Scheduler.__init__",
        "after",
        _SERVER + "observe.after_scheduler_init",
        "the pattern would not be logged and no metric would exist",
    ),
    Seam(
        _SRT + "model_executor.model_runner.ModelRunner.forward",
        "around",
        _SERVER + "observe.count_forward",
        "indexer layer-passes would not be counted",
    ),
    Seam(
        _SRT + "managers.scheduler_components.internal_state."
        "SchedulerInternalStateController.get_internal_state",
        "after",
        _SERVER + "observe.add_index_cache",
        "/server_info and /index_cache would be empty",
    ),
)


def register() -> None:
    """Called by SGLang in every process, before arguments are parsed."""
    from sglang.srt.arg_groups.resolution_hooks import register_resolution_hook

    from sglang_ic.server import control, resolve

    if not is_patched():
        refuse(
            f"SGLang {installed_version()} is not the patched one; install the wheel that "
            "`python -m sglang_ic.fork build` writes, or leave `sglang_ic` out of SGLANG_PLUGINS"
        )
    attach(SEAMS, "the index cache")
    register_resolution_hook("handle_model_specific_adjustments")(resolve.check_server_args)
    control.install()


def is_patched() -> bool:
    """Whether this SGLang carries the patch series: its ``ForwardBatch`` has our field."""
    import dataclasses

    from sglang.srt.model_executor.forward_batch_info import ForwardBatch

    return any(field.name == "index_cache" for field in dataclasses.fields(ForwardBatch))
