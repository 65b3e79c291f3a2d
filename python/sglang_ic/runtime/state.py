"""The top-k indices of one forward pass.

Upstream hands the indices from layer to layer as the second half of a tuple. Here they live in
the ``ForwardBatch``: a Full layer publishes, the Shared layers after it read, and the state dies
with the pass. A candidate layer does both: it reads which keys to score, and publishes its own
selection. What a layer may read is decided by the pattern alone, so a stale or missing tensor is an
error and never a silent recomputation.

Two index domains can be inside (request-local, or fused physical slots); both are valid in every
layer of the same pass and in no other pass.

# T = rows (tokens) of the pass, K = index_topk
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from sglang_ic.runtime.roles import LayerRoles


class IndexCacheError(RuntimeError):
    """The order of Full and Shared layers was broken inside the engine: a bug, not bad input."""


class IndexCacheState:
    """Indices, their owner, and the roles of one forward pass over the layers of this stage.

    Attributes:
        pattern: roles of all layers, fixed for this pass.
        candidate_pages: pages that candidate layers score; None without such layers.
        owner_layer: the Full or candidate layer whose indices are held; None before the first.
        topk_indices: [T, K] int32, -1 pads short rows and padded rows; None before the first
            Full layer, and on passes that need no indices (short prefill with dense attention).
        num_run, num_skipped: indexers run and skipped so far, in layers.
    """

    def __init__(self, roles: LayerRoles, topk_indices: torch.Tensor | None = None) -> None:
        """Start a pass; ``topk_indices`` is what the previous pipeline stage sent, if any."""
        self.pattern = roles.pattern
        self.candidate_pages = roles.candidate_pages
        self.start_layer, self.end_layer = roles.start_layer, roles.end_layer
        self.topk_indices = topk_indices
        self.owner_layer: int | None = None
        if topk_indices is not None:
            self.owner_layer = self.pattern.owner_of(self.start_layer)
        self.num_run = 0
        self.num_skipped = 0
        self._next_layer = self.start_layer
        self.closed = False

    def runs_indexer(self, layer_id: int) -> bool:
        """Whether this layer runs its indexer in this pass; asked once per layer, in order."""
        self._require_open(layer_id)
        if layer_id != self._next_layer:
            raise IndexCacheError(
                f"layer {layer_id} asked for its role while layer {self._next_layer} was due; "
                "two forward passes share one IndexCacheState"
            )
        self._next_layer += 1
        runs = self.pattern.runs_indexer(layer_id)
        if runs:
            self.num_run += 1
        else:
            self.num_skipped += 1
        return runs

    def publish(self, layer_id: int, topk_indices: torch.Tensor | None) -> None:
        """Keep what a layer with an indexer selected for those after it; a Shared layer adds none.

        Args:
            topk_indices: [T, K] int32; None when the layer needed none.
        """
        self._require_open(layer_id)
        if self.pattern.runs_indexer(layer_id):
            self.owner_layer, self.topk_indices = layer_id, topk_indices

    def topk_for(self, layer_id: int) -> torch.Tensor:
        """The indices that Shared layer ``layer_id`` reuses: [T, K] int32."""
        self._require_open(layer_id)
        owner = self.pattern.owner_of(layer_id)
        if self.topk_indices is None or self.owner_layer != owner:
            raise self._not_held(f"Shared layer {layer_id}", owner)
        return self.topk_indices

    def candidates_for(self, layer_id: int) -> torch.Tensor | None:
        """The selection that gives layer ``layer_id`` its candidates: [T, K] int32.

        None if it scores all keys: another role, or a pass that needs no indices.
        """
        self._require_open(layer_id)
        if not self.pattern.is_candidate(layer_id) or self.topk_indices is None:
            return None
        owner = self.pattern.owner_of(layer_id - 1)
        if self.owner_layer != owner:
            raise self._not_held(f"candidate layer {layer_id}", owner)
        return self.topk_indices

    def _not_held(self, who: str, owner: int) -> IndexCacheError:
        held = "nothing" if self.owner_layer is None else f"those of layer {self.owner_layer}"
        kind = "Full" if self.pattern.is_full(owner) else "candidate"
        return IndexCacheError(
            f"{who} needs the indices of {kind} layer {owner}, but this forward pass holds {held}"
        )

    def close(self, *, all_layers: bool) -> None:
        """End the pass. ``all_layers``: every layer of the stage must have asked for its role."""
        self._require_open(self.end_layer)
        if all_layers and self._next_layer not in (self.start_layer, self.end_layer):
            raise IndexCacheError(
                f"the forward pass ended, but layer {self._next_layer} of "
                f"[{self.start_layer}, {self.end_layer}) never asked for its role"
            )
        self.closed = True

    def _require_open(self, layer_id: int) -> None:
        if self.closed:
            raise IndexCacheError(
                f"layer {layer_id} uses the indices of a forward pass that has ended"
            )


def candidates_of(forward_batch: Any, layer_id: int) -> tuple[torch.Tensor, int] | None:
    """What layer ``layer_id`` of this pass scores in place of all keys, for its indexer.

    Returns:
        The selection before it ([T, K] int32) and how many pages to take from it; None for every
        layer that scores all keys.
    """
    state: IndexCacheState | None = getattr(forward_batch, "index_cache", None)
    previous = None if state is None else state.candidates_for(layer_id)
    return None if previous is None else (previous, state.candidate_pages)
