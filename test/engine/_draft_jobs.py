"""Jobs for an MTP draft layer (upstream's GLM NextN model) beside its target, on both SGLangs.

The draft's top-k travels on `spec_info`, which is upstream's and must stay as it is.
"""

import copy
from pathlib import Path

import torch
from _checkpoints import draft_weights, weights_of
from _parity_jobs import build, counted_indexers, prompt
from _passes import caught_batch

LENGTH = 544
SEED_ROWS = [LENGTH - 1, 300]  # rows that a worker would have accepted


def _build_draft(model_runner, model_path: str):
    """A draft around a copy of the checkpoint's last layer, with its own eh_proj and norms."""
    from sglang.srt.models.glm4_moe import GlmMoeDsaForCausalLMNextN

    config = copy.copy(model_runner.model_config.hf_config)
    config.architectures = ["GlmMoeDsaForCausalLMNextN"]
    config.num_nextn_predict_layers = 1
    draft = GlmMoeDsaForCausalLMNextN(config)
    weights = draft_weights(weights_of(Path(model_path)), vars(config))
    draft.load_weights(weights.items())
    # set_embed_and_head of upstream wants CUDA.
    draft.model.embed_tokens.weight, _ = model_runner.model.get_embed_and_head()
    return draft


class Draft:
    """Runs the draft's passes in the target's pool and context, and counts its indexer."""

    def __init__(self, runner, model_path: str, counts):
        from sglang.srt.runtime_context import get_model

        self.runner, self.counts = runner, counts
        self.shared_experts = runner.model_runner.model.shared_experts_config
        with get_model().override(shared_experts=self.shared_experts):
            self.model = _build_draft(runner.model_runner, model_path)

    def run(self, forward_batch, records) -> dict:
        """One pass: final hidden states, the indices that it attended with, indexer runs."""
        from sglang.srt.model_executor.forward_context import ForwardContext, forward_context
        from sglang.srt.runtime_context import get_model

        backend = self.runner.model_runner.attn_backend
        self.counts.clear()
        records.passes.clear()
        with (
            torch.no_grad(),
            get_model().override(shared_experts=self.shared_experts),
            forward_context(ForwardContext(attn_backend=backend), forward_batch=forward_batch),
        ):
            backend.init_forward_metadata(forward_batch)
            hidden = self.model.model(
                forward_batch.input_ids, forward_batch.positions, forward_batch
            )
        return {
            "hidden": hidden,
            "topk": records.passes[-1][0],
            "indexer_runs": sum(self.counts.values()),
        }


def draft_passes(model: str, override: dict) -> dict:
    """Draft extend that writes seeds, then draft steps with and without a seed."""
    from sglang.srt.layers.attention.index_topk_share import IndexTopKShareState
    from sglang.srt.speculative.eagle_info import EagleDraftExtendInput, EagleDraftInput

    with counted_indexers() as counts:
        runner = build(model, override)
        draft = Draft(runner, model, counts)
        ids = prompt(LENGTH, seed=1)
        target = runner.prefill(ids)
        index_topk = runner.model_runner.model_config.hf_config.index_topk
        hidden_size = runner.model_runner.model_config.hidden_size
        generator = torch.Generator().manual_seed(3)

        def states(rows: int) -> torch.Tensor:
            return torch.randn(rows, hidden_size, generator=generator)

        with runner.record_topk() as records:
            extend = caught_batch(runner, lambda: runner.prefill(ids))
            seeds = torch.full((len(SEED_ROWS), index_topk), -7, dtype=torch.int32)
            extend.spec_info = EagleDraftExtendInput(
                hidden_states=states(LENGTH),
                dsa_seed_topk_capture=seeds,
                dsa_seed_topk_select=torch.tensor(SEED_ROWS),
            )
            found = {"extend": draft.run(extend, records)}

            decode = caught_batch(runner, lambda: runner.decode(5))
            hidden_states = states(1)
            decode.spec_info = EagleDraftInput(hidden_states=hidden_states)
            decode.spec_info.dsa_topk_indices = seeds[:1].clone()
            with IndexTopKShareState.mtp_iteration(decode, keep_carry_seed=True):
                found["with a seed"] = draft.run(decode, records)
                found["its next step"] = draft.run(decode, records)
            after = [decode.spec_info.dsa_topk_indices, decode.reuse_dsa_topk_indices]
            decode.spec_info.dsa_topk_indices = seeds[:1].clone()
            with IndexTopKShareState.mtp_iteration(decode):
                found["seed dropped"] = draft.run(decode, records)
                found["reuses its own"] = draft.run(decode, records)
            found["no iteration"] = draft.run(decode, records)
            if hasattr(decode, "index_cache"):  # the fork: the target's own state is none of its
                from sglang_ic.runtime import begin_forward

                begin_forward(runner.model_runner.model.model, decode, None)
            decode.spec_info.dsa_topk_indices = seeds[:1].clone()
            with IndexTopKShareState.mtp_iteration(decode, keep_carry_seed=True):
                found["on a batch of the target"] = draft.run(decode, records)
    return {"target": target, "passes": found, "seeds": seeds, "after": after}
