"""Which layers run their indexer, and which ones could.

*Having* an indexer (weights, and an index-K buffer) is decided when the server starts and never
changes. *Running* it is decided anew in every forward pass, from the pattern held here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sglang_ic.candidates.switch import candidate_pages
from sglang_ic.pattern import LayerPattern

if TYPE_CHECKING:
    from sglang_ic.runtime.metrics import IndexCacheMetrics


class LayerRoles:
    """Roles of the layers of one model, held by the model itself (``model.index_cache_roles``).

    Attributes:
        pattern: roles used by the next forward pass.
        start_layer, end_layer: layers of this pipeline stage, half open.
        build_all: every layer has an indexer and index-K, so that any pattern can be set.
        index_topk: tokens each query attends to; None only where no pattern has candidate layers.
        candidate_pages: pages that candidate layers score; None without such layers.
        last_pass: (indexers run, indexers skipped) of the newest pass that Python executed, or
            None; a replayed CUDA graph leaves it alone.
        totals: (run, skipped) since start, in layer-passes of the target model.
    """

    def __init__(
        self,
        pattern: LayerPattern,
        start_layer: int,
        end_layer: int,
        *,
        build_all: bool,
        index_topk: int | None = None,
    ) -> None:
        assert 0 <= start_layer < end_layer <= pattern.num_layers, (start_layer, end_layer)
        self.pattern = pattern
        self.start_layer = start_layer
        self.end_layer = end_layer
        self.build_all = build_all
        self.index_topk = index_topk
        self.candidate_pages = self._candidate_pages(pattern)
        self.last_pass: tuple[int, int] | None = None
        self.totals = (0, 0)
        self.source: str | None = None  # set once the pattern differs from the one at start
        self.metrics: IndexCacheMetrics | None = None

    @property
    def per_pass(self) -> tuple[int, int]:
        """(indexers run, indexers skipped) by one forward pass over the layers of this stage."""
        layers = range(self.start_layer, self.end_layer)
        num_run = sum(self.pattern.runs_indexer(layer) for layer in layers)
        return num_run, len(layers) - num_run

    def parse(self, text: str) -> LayerPattern:
        """Read a pattern that these layers can take.

        Raises:
            ValueError: a bad pattern, candidate layers that the environment does not allow, or the
                model has indexers on its Full layers only.
        """
        if not self.build_all:
            raise ValueError(
                "the pattern of this server is fixed: its Shared layers have no indexer and no "
                'index-K; start it with --json-model-override-args \'{"index_cache_build": "all"}\''
            )
        parsed = LayerPattern.parse(text, self.pattern.num_layers)
        self._candidate_pages(parsed)
        return parsed

    def set_pattern(self, pattern: LayerPattern) -> None:
        """Use ``pattern`` (from ``parse``) from the next forward pass on, without a reload.

        The caller must have dropped every cached prefix: hidden states depend on the pattern, and
        a layer that was Shared has written no index-K.
        """
        assert self.build_all and pattern.num_layers == self.pattern.num_layers
        self.pattern = pattern
        self.candidate_pages = self._candidate_pages(pattern)
        self.source = "set in the running engine"
        if self.metrics is not None:
            self.metrics.show(pattern, self.source)

    def _candidate_pages(self, pattern: LayerPattern) -> int | None:
        if not pattern.num_candidate:
            return None
        assert self.index_topk is not None, "candidate layers need index_topk"
        return candidate_pages(pattern.text, self.index_topk)

    def count(self, layer_passes: tuple[int, int]) -> None:
        """Add (run, skipped) of one forward pass to the totals and to Prometheus."""
        self.totals = (self.totals[0] + layer_passes[0], self.totals[1] + layer_passes[1])
        if self.metrics is not None:
            self.metrics.count(*layer_passes)
