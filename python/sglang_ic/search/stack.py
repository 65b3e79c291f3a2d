"""The loop over the layers, in place of `DeepseekV2Model.forward`, from any layer on.

Every layer hands its output on as the last layer of a pipeline stage does: complete, with the
residual beside it. So a pass that begins at layer l computes bit for bit what a pass from layer 0
computes above l, whatever SGLang would have fused across that boundary.

# T = tokens of a chunk, D = hidden size, K = index_topk
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sglang_ic.pattern import LayerPattern
from sglang_ic.runtime.roles import LayerRoles
from sglang_ic.runtime.state import IndexCacheState

if TYPE_CHECKING:
    from sglang_ic.search.passes import LayerPasses

LOGITS_BLOCK_BYTES = 256 << 20  # float32 logits held at a time


@dataclass(frozen=True)
class Entry:
    """What a layer starts from, for one chunk."""

    hidden: torch.Tensor  # [T, D], the output of the layer below
    residual: torch.Tensor  # [T, D]
    # [T, K] int32, what the nearest Full layer below selected; None where it attended to all.
    topk: torch.Tensor | None


class Stack:
    """One pass over one chunk, and what it left behind."""

    def __init__(
        self,
        passes: LayerPasses,
        pattern: LayerPattern,
        start: int,
        entry: Entry | None,
        kept: dict[int, list[Entry]],
        place: Callable[[Entry], Entry],
        rows: list[int],
    ) -> None:
        self.passes, self.inner = passes, passes.inner
        self.roles = LayerRoles(pattern, start, passes.num_layers, build_all=True)
        self.start, self.entry = start, entry
        self.kept, self.place, self.rows = kept, place, rows
        self.selected: list[torch.Tensor] = []  # [R, K] of each layer
        self.targets: torch.Tensor | None = None  # [T] or [T - 1] int64, of the rows in order
        self.nll = 0.0

    @contextmanager
    def in_place(self) -> Iterator[None]:
        assert "forward" not in self.inner.__dict__, "passes are nested"
        self.inner.forward = self
        try:
            yield
        finally:
            del self.inner.forward

    def __call__(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        forward_batch: Any,
        input_embeds: torch.Tensor | None = None,
        pp_proxy_tensors: Any = None,
    ) -> torch.Tensor:
        """Final hidden states [T, D]; on the way, what was asked for."""
        from sglang.srt.layers.layer_boundary.residual import batch as residual_batch
        from sglang.srt.utils import BumpAllocator

        layers, end = self.inner.layers, self.passes.num_layers
        topk = None
        if self.entry is None:
            hidden = self.inner.embed_tokens(input_ids)
            residual_batch.start(forward_batch)
        else:
            hidden = self._enter(self.start, self.entry, forward_batch)
            if self.entry.topk is not None:
                topk = self.entry.topk.to(hidden.device)
        state = forward_batch.index_cache = IndexCacheState(self.roles, topk)
        zeros = BumpAllocator(2 * (end - self.start), torch.float32, positions.device)
        for layer in range(self.start, end):
            hidden, _ = layers[layer](
                positions,
                hidden,
                forward_batch,
                zeros,
                next_full_attention_layer_id=self.inner.next_full_attention_layer_id.get(layer),
            )
            if self.rows:
                self.selected.append(state.topk_indices[self.rows].cpu())
            if layer + 1 < end:
                sent = residual_batch.to_pp(hidden, forward_batch)
                if layer + 1 in self.kept:
                    # Kernels may write into what they were given, but never into indices.
                    copies = sent["hidden_states"].clone(), sent["residual"].clone()
                    entry = Entry(*copies, state.topk_indices)
                    self.kept[layer + 1].append(self.place(entry))
                hidden = layers[layer + 1].attn_boundary.from_pp(sent, forward_batch)
        state.close(all_layers=True)
        forward_batch.index_cache = None
        hidden = residual_batch.complete_output(hidden, forward_batch)
        hidden = residual_batch.final_norm(hidden, forward_batch, self.inner.norm)
        self.nll = self._nll(hidden, forward_batch)
        return hidden

    def _enter(self, layer: int, entry: Entry, forward_batch: Any) -> torch.Tensor:
        from sglang.srt.model_executor.forward_batch_info import PPProxyTensors

        device = forward_batch.input_ids.device
        copies = {
            name: tensor.to(device, copy=True)
            for name, tensor in (("hidden_states", entry.hidden), ("residual", entry.residual))
        }
        boundary = self.inner.layers[layer].attn_boundary
        return boundary.from_pp(PPProxyTensors(copies), forward_batch)

    def _nll(self, hidden: torch.Tensor, forward_batch: Any) -> float:
        """Sum of -log p(target) over the rows that have one, in nats."""
        from sglang.srt.layers.logits_processor import LogitsMetadata

        model = self.passes.runner.model
        metadata = LogitsMetadata.from_forward_batch(forward_batch)
        vocab = self.passes.runner.model_config.vocab_size
        targets = self.targets.to(hidden.device)
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        block = max(1, LOGITS_BLOCK_BYTES // (4 * vocab))
        for begin in range(0, len(targets), block):
            wanted = targets[begin : begin + block]
            logits = model.logits_processor._get_logits(
                hidden[begin : begin + len(wanted)],
                model.lm_head,
                metadata,
                use_logits_buffer=False,
            )[:, :vocab].float()
            logprobs = logits.gather(1, wanted[:, None]).squeeze(1) - logits.logsumexp(dim=1)
            total -= logprobs.double().sum()
        return float(total)
