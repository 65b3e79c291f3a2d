"""Jobs that run one pipeline stage of the patched SGLang each, joined by a real gloo group."""

import json
import os
from pathlib import Path

import torch
from _in_process_jobs import LENGTH, refusal
from _parity_jobs import prompt
from _passes import caught_batch, idle_batch, no_output
from _runner import CPU_ARGS, CpuRunner

NUM_DECODE = 4


def _build_stage(model: str, override: dict, rank: int, first_layers: int, rendezvous: str):
    """A runner of layers `[0, first_layers)` or of the rest, in a group of two processes."""
    from sglang.benchmark import one_batch
    from sglang.srt.runtime_context import SpawnRanks, publish, spawn_world_rank
    from sglang.srt.server_args import PortArgs, ServerArgs

    num_layers = json.loads((Path(model) / "config.json").read_text())["num_hidden_layers"]
    os.environ["SGLANG_PP_LAYER_PARTITION"] = f"{first_layers},{num_layers - first_layers}"
    # SGLang asks where each rank's threads run; with one thread each it does not matter.
    core = min(os.sched_getaffinity(0))
    os.environ["SGLANG_CPU_OMP_THREADS_BIND"] = f"{core}|{core}"
    os.environ["SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE"] = f"file://{rendezvous}"
    overrides = {"json_model_override_args": json.dumps(override), "pp_size": 2}
    args = ServerArgs(**{**CPU_ARGS, "model_path": model, **overrides})
    args.resolve_once()
    world_rank = spawn_world_rank(args, tp_rank=0, pp_rank=rank)
    publish(args, role="scheduler", ranks=SpawnRanks(world_rank=world_rank, gpu_id=0))
    one_batch._init_process_global_configs()
    bench, _ = one_batch.load_model(args, PortArgs.init_new(args), gpu_id=0, tp_rank=0)
    return CpuRunner(bench.torch_runner)


def _chain(model_runner, arrived: list) -> None:
    """Make every pass of this stage take from the stage before and give to the stage after."""
    from sglang.srt.model_executor.forward_batch_info import PPProxyTensors

    group, forward = model_runner.pp_group, model_runner.forward

    def forward_stage(forward_batch):
        if not group.is_first_rank:
            arrived.append(group.recv_tensor_dict())
            return forward(forward_batch, pp_proxy_tensors=PPProxyTensors(arrived[-1]))
        group.send_tensor_dict(forward(forward_batch).logits_output.tensors)
        return no_output(model_runner, forward_batch)

    model_runner.forward = forward_stage
    if group.is_first_rank:  # it has no head, and CpuRunner wants to apply one
        model_runner.model.lm_head = torch.nn.Linear(model_runner.model_config.hidden_size, 1)


def stage(model: str, override: dict, rank: int, first_layers: int, rendezvous: str) -> dict:
    """Prefill in chunks, decode, and an idle pass through one of two stages.

    Returns:
        The last stage's logits (meaningless on the first), and what arrived at it per pass.
    """
    runner = _build_stage(model, override, rank, first_layers, rendezvous)
    model_runner, arrived = runner.model_runner, []
    forward = model_runner.forward
    _chain(model_runner, arrived)
    logits = [runner.prefill(prompt(LENGTH, seed=1), chunk_size=300)]
    logits += [runner.decode(token) for token in prompt(NUM_DECODE, seed=2)]
    with torch.no_grad():
        idle = model_runner.forward(idle_batch(runner)).logits_output.hidden_states
    roles = model_runner.model.model.index_cache_roles
    found = {
        "logits": torch.cat(logits),
        "idle_rows": 0 if idle is None else idle.shape[0],
        "arrived": arrived,
        "layers": (roles.start_layer, roles.end_layer),
        "totals": roles.totals,
        "per_pass": roles.per_pass,
    }
    if rank == 1:
        model_runner.forward = forward
        found["without_indices"] = refusal(lambda: _run_without_indices(runner, arrived[0]))
    return found


def _run_without_indices(runner, first_pass: dict) -> None:
    """Repeat the first chunk, as if the stage before had sent hidden states only."""
    from sglang.srt.model_executor.forward_batch_info import PPProxyTensors

    sent = {name: value for name, value in first_pass.items() if name != "topk_indices"}
    ids = prompt(LENGTH, seed=1)[: len(first_pass["hidden_states"])]
    forward_batch = caught_batch(runner, lambda: runner.prefill(ids))
    runner.model_runner.forward(forward_batch, pp_proxy_tensors=PPProxyTensors(sent))


def single(model: str, override: dict) -> dict:
    """The same passes in one process."""
    from _parity_jobs import build

    runner = build(model, override)
    logits = [runner.prefill(prompt(LENGTH, seed=1), chunk_size=300)]
    logits += [runner.decode(token) for token in prompt(NUM_DECODE, seed=2)]
    return {"logits": torch.cat(logits)}
