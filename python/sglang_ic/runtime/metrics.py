"""Prometheus metrics of the index cache, in the words and labels of SGLang's own collector."""

from __future__ import annotations

from collections.abc import Mapping

from sglang_ic.pattern import LayerPattern


class IndexCacheMetrics:
    """Gauges for the pattern and counters for indexer layer-passes, of one scheduler.

    A *layer-pass* is one layer in one forward pass of the target model. A Full or candidate layer
    counts as run also when it only stores index-K (short prefill with dense attention).
    """

    def __init__(self, labels: Mapping[str, str], pattern: LayerPattern, source: str) -> None:
        # SGLang sets PROMETHEUS_MULTIPROC_DIR at start; the client reads it when imported.
        from prometheus_client import Counter, Gauge

        names = tuple(labels)
        info = Gauge(
            "sglang:index_cache_pattern_info",
            "1 for the pattern of Full (F), Shared (S) and candidate (C) layers in use.",
            labelnames=(*names, "pattern", "source"),
            multiprocess_mode="mostrecent",
        )
        full = Gauge(
            "sglang:index_cache_full_layers",
            "Layers that run their indexer over all keys.",
            labelnames=names,
            multiprocess_mode="mostrecent",
        )
        shared = Gauge(
            "sglang:index_cache_shared_layers",
            "Layers that reuse the top-k of the nearest layer that runs its indexer.",
            labelnames=names,
            multiprocess_mode="mostrecent",
        )
        candidate = Gauge(
            "sglang:index_cache_candidate_layers",
            "Layers that run their indexer over candidate pages: approximate.",
            labelnames=names,
            multiprocess_mode="mostrecent",
        )
        self._labels = dict(labels)
        self._shown: Gauge | None = None
        self._info, self._full, self._shared, self._candidate = info, full, shared, candidate
        self._run = Counter(
            "sglang:index_cache_indexer_run_total",
            "Indexer layer-passes run.",
            labelnames=names,
        ).labels(**labels)
        self._skipped = Counter(
            "sglang:index_cache_indexer_skipped_total",
            "Indexer layer-passes skipped by Shared layers.",
            labelnames=names,
        ).labels(**labels)
        self.show(pattern, source)

    def show(self, pattern: LayerPattern, source: str) -> None:
        """Publish the pattern in use."""
        if self._shown is not None:
            # A series cannot be removed in multi-process mode; 0 says that it is over.
            self._shown.set(0)
        self._shown = self._info.labels(**self._labels, pattern=str(pattern), source=source)
        self._shown.set(1)
        self._full.labels(**self._labels).set(pattern.num_full)
        self._shared.labels(**self._labels).set(pattern.num_shared)
        self._candidate.labels(**self._labels).set(pattern.num_candidate)

    def count(self, num_run: int, num_skipped: int) -> None:
        """Add the layer-passes of one forward pass."""
        self._run.inc(num_run)
        self._skipped.inc(num_skipped)
