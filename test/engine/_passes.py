"""Forward passes by hand: catch a prepared ForwardBatch, then run it whole, or layer by layer.

Used by the jobs that need more than `_runner.CpuRunner` offers.
"""

from collections.abc import Callable
from contextlib import contextmanager
from types import SimpleNamespace

import torch


def no_output(model_runner, forward_batch):
    """What stands in for a pass's output where only the pass itself matters: zeros."""
    rows = len(forward_batch.input_ids)
    hidden = torch.zeros(rows, model_runner.model_config.hidden_size)
    return SimpleNamespace(logits_output=SimpleNamespace(hidden_states=hidden))


def caught_batch(runner, step: Callable[[], object]):
    """The ForwardBatch of `step`, a prefill or decode of one pass: prepared, but not run."""
    model_runner, caught = runner.model_runner, []

    def catch(forward_batch):
        caught.append(forward_batch)
        return no_output(model_runner, forward_batch)

    before = model_runner.__dict__.get("forward")
    model_runner.forward = catch
    step()
    if before is None:
        del model_runner.forward
    else:
        model_runner.forward = before
    (forward_batch,) = caught
    return forward_batch


def run_batch(runner, forward_batch) -> torch.Tensor:
    """Final hidden states of a whole pass: [rows, hidden] float32."""
    with torch.no_grad():
        return runner.model_runner.forward(forward_batch).logits_output.hidden_states


def idle_batch(runner):
    """A ForwardBatch without rows, as a data-parallel rank without work runs it."""
    from sglang.srt.managers.schedule_batch import ScheduleBatch
    from sglang.srt.model_executor.forward_batch_info import CaptureHiddenMode, ForwardBatch
    from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

    model_runner = runner.model_runner
    batch = ScheduleBatch.init_new(
        reqs=[],
        req_to_token_pool=model_runner.req_to_token_pool,
        token_to_kv_pool_allocator=model_runner.token_to_kv_pool_allocator,
        tree_cache=None,
        model_config=model_runner.model_config,
        enable_overlap=False,
        spec_algorithm=SpeculativeAlgorithm.NONE,
    )
    batch.prepare_for_idle()
    forward_batch = ForwardBatch.init_new(
        batch, model_runner, return_hidden_states_before_norm=False
    )
    forward_batch.capture_hidden_mode = CaptureHiddenMode.FULL
    return forward_batch


@contextmanager
def outside_the_runner(model_runner, forward_batch):
    """What ModelRunner sets around a model's forward, with a backend planned for this batch."""
    from sglang.srt.layers.layer_boundary import get_attn_tp_context
    from sglang.srt.model_executor.forward_context import ForwardContext, forward_context
    from sglang.srt.runtime_context import get_model

    from sglang_ic.cpu.backend import CpuDsaBackend

    backend = CpuDsaBackend(model_runner)
    backend.init_forward_metadata(forward_batch)
    shared_experts = model_runner.model.shared_experts_config
    with (
        torch.no_grad(),
        get_model().override(shared_experts=shared_experts),
        forward_context(ForwardContext(attn_backend=backend), forward_batch=forward_batch),
        get_attn_tp_context().maybe_input_scattered(forward_batch),
    ):
        yield


class LayerByLayer:
    """One pass of the patched DeepseekV2Model in steps, so that two of them can take turns."""

    def __init__(self, model_runner, forward_batch):
        from sglang.srt.utils import BumpAllocator

        self.model_runner = model_runner
        self.model = model_runner.model.model
        self.forward_batch = forward_batch
        num_layers = len(self.model.layers)
        self.zeros = BumpAllocator(2 * num_layers, dtype=torch.float32, device="cpu")
        self.hidden: torch.Tensor | None = None  # [rows, hidden]

    def begin(self):
        """Start the pass; the state that its batch holds from now on."""
        from sglang.srt.layers.layer_boundary.residual import batch as residual

        from sglang_ic.runtime import begin_forward

        with torch.no_grad():
            self.hidden = self.model.embed_tokens(self.forward_batch.input_ids)
        residual.start(self.forward_batch)
        return begin_forward(self.model, self.forward_batch, None)

    def layer(self, layer_id: int) -> None:
        with outside_the_runner(self.model_runner, self.forward_batch):
            self.hidden, _ = self.model.layers[layer_id](
                self.forward_batch.positions, self.hidden, self.forward_batch, self.zeros
            )

    def end(self) -> torch.Tensor:
        """Final hidden states: [rows, hidden] float32."""
        from sglang.srt.layers.layer_boundary.residual import batch as residual

        from sglang_ic.runtime import end_forward

        end_forward(self.model, self.forward_batch)
        with torch.no_grad():
            self.hidden = residual.complete_output(self.hidden, self.forward_batch)
            return residual.final_norm(self.hidden, self.forward_batch, self.model.norm)

    def run(self) -> torch.Tensor:
        self.begin()
        for layer_id in range(len(self.model.layers)):
            self.layer(layer_id)
        return self.end()
