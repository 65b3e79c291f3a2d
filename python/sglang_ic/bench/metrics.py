"""What one arm did under one load: percentiles, rates, goodput, errors. Pure functions.

A failed request is counted by its kind and is in no average. Units are in the names; `None` is
unknown, never zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from sglang_ic.bench.record import Measured, Request

PERCENTILES = (50, 90, 95, 99)
NUM_EXAMPLES = 3  # error texts kept for each kind


def summarize(blocks: Sequence[Measured], objective: dict[str, float]) -> dict[str, Any]:
    """All metrics of an arm at a point.

    Args:
        blocks: its whole blocks.
        objective: `ttft_ms` and `itl_ms` limits, any of them; the mean ITL of a request counts.
    """
    sent = [request for block in blocks for request in block.requests]
    good = [request for request in sent if request.ok]
    window_sec = sum(block.window_sec for block in blocks)
    inputs = sum(request.prompt_tokens for request in good)
    return {
        "num_rounds": len(blocks),
        "num_sent": len(sent),
        "num_ok": len(good),
        "errors": errors(sent),
        "window_sec": window_sec,
        "ttft_ms": distribution([request.ttft_sec * 1e3 for request in good]),
        "itl_ms": distribution([itl * 1e3 for request in good for itl in request.itl_sec]),
        "mean_itl_ms": distribution(
            [one.mean_itl_sec * 1e3 for one in good if one.mean_itl_sec is not None]
        ),
        "e2e_ms": distribution([request.e2e_sec * 1e3 for request in good]),
        "requests_per_sec": _rate(len(good), window_sec),
        "input_tokens_per_sec": _rate(inputs, window_sec),
        "output_tokens_per_sec": _rate(sum(one.output_tokens for one in good), window_sec),
        "cache_hit_rate": sum(one.cached_tokens for one in good) / inputs if inputs else None,
        "goodput": goodput(sent, window_sec, objective) if objective else None,
        "indexer": indexer(blocks),
        "num_late_first_tokens": sum((request.first_tokens or 1) > 1 for request in good),
        "max_others_cpu_share": max(
            (one.others_cpu_share for one in blocks if one.others_cpu_share is not None),
            default=None,
        ),
    }


def distribution(values: Sequence[float]) -> dict[str, float | int] | None:
    """Number, mean, percentiles and extremes; None of nothing."""
    if not len(values):
        return None
    told = np.percentile(values, PERCENTILES)
    return {
        "num": len(values),
        "mean": float(np.mean(values)),
        "min": float(np.min(values)),
        **{f"p{p}": float(value) for p, value in zip(PERCENTILES, told, strict=True)},
        "max": float(np.max(values)),
    }


def errors(sent: Sequence[Request]) -> dict[str, dict[str, Any]]:
    """Failed requests by kind, most frequent first, with a few of their texts."""
    kinds = Counter(request.error for request in sent if not request.ok)
    return {
        kind: {
            "num": num,
            "examples": list(
                dict.fromkeys(
                    one.error_text for one in sent if one.error == kind and one.error_text
                )
            )[:NUM_EXAMPLES],
        }
        for kind, num in kinds.most_common()
    }


def goodput(
    sent: Sequence[Request], window_sec: float, objective: dict[str, float]
) -> dict[str, Any]:
    """Requests that succeeded within every limit, per second and as a share of those sent."""
    met = sum(request.meets(objective.get("ttft_ms"), objective.get("itl_ms")) for request in sent)
    return {
        "objective": objective,
        "num_met": met,
        "share": met / len(sent) if sent else None,
        "requests_per_sec": _rate(met, window_sec),
    }


def indexer(blocks: Sequence[Measured]) -> dict[str, Any] | None:
    """Indexer layer-passes run and skipped; None if the server does not count them."""
    counts = [block.indexer for block in blocks]
    if not counts or None in counts:
        return None
    run, skipped = (sum(column) for column in zip(*counts, strict=True))
    share = skipped / (run + skipped) if run + skipped else None
    return {"num_run": run, "num_skipped": skipped, "skipped_share": share}


def _rate(amount: float, window_sec: float) -> float | None:
    return amount / window_sec if window_sec > 0 else None
