"""Measurements as one JSON-ready document.

Every number says what it is over: all tokens or answers of an arm, those of one length, or those
of one task. Unknown is None.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sglang_ic.evaluate import overlap, stats
from sglang_ic.evaluate.arms import Arm
from sglang_ic.evaluate.overlap import Probed
from sglang_ic.evaluate.samples import Sample
from sglang_ic.evaluate.scores import TokenScores, answers_right, differences
from sglang_ic.pattern import LayerPattern

SCHEMA_VERSION = 1
ALL = "all"  # the name of the row over all tasks


@dataclass(frozen=True)
class Measured:
    """One arm on one sample, against the reference on the same sample."""

    sample: Sample
    nll: float  # sum over the sample's predictions, nats
    right: np.ndarray  # [answers] bool
    dnll: float  # sum, nats
    kl: np.ndarray  # [P] float32, nats
    unresolved: float  # sum of the reference's mass that the KL bound does not resolve
    same_top1: int  # predictions

    @classmethod
    def of(cls, sample: Sample, reference: TokenScores, arm: TokenScores) -> "Measured":
        found = differences(reference, arm)
        return cls(
            sample=sample,
            nll=float(-arm.logprobs.sum()),
            right=answers_right(sample, arm),
            dnll=float(found.dnll.sum()),
            kl=found.kl.astype(np.float32),
            unresolved=float(found.unresolved.sum()),
            same_top1=int(found.same_top1.sum()),
        )


def losses(measured: Sequence[Measured]) -> dict:
    """Language-loss measures over some samples of one arm."""
    clusters = _by_cluster(measured)
    counts = [sum(m.sample.num_predictions for m in group) for group in clusters]
    nll, nll_error = stats.clustered_mean([sum(m.nll for m in g) for g in clusters], counts)
    dnll, dnll_error = stats.clustered_mean([sum(m.dnll for m in g) for g in clusters], counts)
    kl = np.concatenate([m.kl for m in measured])
    num_tokens = sum(counts)
    return {
        "num_documents": len(clusters),
        "num_tokens": num_tokens,
        "nll": nll,
        "nll_se": nll_error,
        "dnll": dnll,
        "dnll_se": dnll_error,
        "dnll_ci95": stats.mean_interval(dnll, dnll_error, len(clusters)),
        "kl_mean": float(kl.mean(dtype=np.float64)),
        "kl_median": float(np.median(kl)),
        "kl_p99_9": float(np.quantile(kl, 0.999)),
        "kl_unresolved_mass": sum(m.unresolved for m in measured) / num_tokens,
        "same_top1": sum(m.same_top1 for m in measured) / num_tokens,
    }


def accuracy(measured: Sequence[Measured], reference: Sequence[Measured]) -> list[dict]:
    """Retrieval accuracy by task and length, `all` and None standing for all of them.

    Args:
        measured, reference: the same samples in the same order.
    """
    tasks = sorted({span.task for m in measured for span in m.sample.answers})
    lengths = sorted({m.sample.length for m in measured if m.sample.answers})
    rows = []
    for length in [None, *lengths]:
        for task in [ALL, *tasks]:
            row = _accuracy(measured, reference, task, length)
            if row is not None:
                rows.append(row)
    return rows


def _accuracy(
    measured: Sequence[Measured], reference: Sequence[Measured], task: str, length: int | None
) -> dict | None:
    table: dict[str, list[int]] = {}  # cluster -> [right, right in the reference, answers]
    for mine, other in zip(measured, reference, strict=True):
        if length is not None and mine.sample.length != length:
            continue
        for number, span in enumerate(mine.sample.answers):
            if task in (ALL, span.task):
                row = table.setdefault(mine.sample.cluster, [0, 0, 0])
                row[0] += int(mine.right[number])
                row[1] += int(other.right[number])
                row[2] += 1
    if not table:
        return None
    right, reference_right, counts = np.array(list(table.values())).T
    return {
        "task": task,
        "length": length,
        "num_answers": int(counts.sum()),
        "num_documents": len(table),
        "accuracy": float(right.sum() / counts.sum()),
        "ci95": stats.rate_interval(right, counts),
        "difference": float((right - reference_right).sum() / counts.sum()),
        "difference_ci95": stats.rate_interval(right - reference_right, counts, low=-1.0),
    }


def arm_summary(
    arm: Arm,
    reference_pattern: LayerPattern | None,
    measured: Sequence[Measured],
    reference: Sequence[Measured],
    reference_probed: Sequence[Probed],
    arm_probed: Sequence[Probed],
) -> dict:
    """Everything about one arm; it has at least one sample."""
    lengths = sorted({m.sample.length for m in measured})
    return {
        "name": arm.name,
        "kind": arm.kind,
        "pattern": None if arm.pattern is None else arm.pattern.text,
        "num_full": None if arm.pattern is None else arm.pattern.num_full,
        "num_candidate": None if arm.pattern is None else arm.pattern.num_candidate,
        "seed": arm.seed,
        "url": arm.url,
        "overall": losses(measured),
        "by_length": [
            {"length": length, **losses([m for m in measured if m.sample.length == length])}
            for length in lengths
        ],
        "accuracy": accuracy(measured, reference),
        "attention": _attention(arm, reference_pattern, reference_probed, arm_probed),
    }


def _attention(
    arm: Arm,
    reference_pattern: LayerPattern | None,
    reference_probed: Sequence[Probed],
    arm_probed: Sequence[Probed],
) -> dict | None:
    """[layers] attention mass: what the reused and the own set hold in the reference's passes,
    and what the set in use held in the arm's own passes."""
    if not reference_probed or not arm_probed:
        return None
    mass = overlap.mean_mass(list(reference_probed))
    in_use = np.diagonal(overlap.mean_mass(list(arm_probed)))
    return {
        # A layer that is Shared in the reference, too, has shown no set of its own.
        "own_set": [
            float(value) if reference_pattern.runs_indexer(layer) else None
            for layer, value in enumerate(np.diagonal(mass))
        ],
        "reused_set": overlap.recalled(mass, arm.pattern).tolist(),
        "set_in_use": in_use.tolist(),
    }


def selections(reference_probed: Sequence[Probed]) -> dict | None:
    """Overlap and mass matrices of the reference; None when nothing was probed."""
    if not reference_probed:
        return None
    mass = overlap.mean_mass(list(reference_probed))
    return {
        "num_documents": len(reference_probed),
        "num_rows": sum(one.topk.shape[1] for one in reference_probed),
        "chance_overlap": overlap.chance_overlap(list(reference_probed)),
        "overlap": overlap.mean_overlap(list(reference_probed)).tolist(),
        "mass": [[None if np.isnan(x) else float(x) for x in row] for row in mass],
    }


def per_document(measured: Iterable[Measured]) -> list[dict]:
    """What later analyses need to pair documents again."""
    return [
        {
            "id": m.sample.id,
            "length": m.sample.length,
            "num_tokens": m.sample.num_predictions,
            "nll_sum": m.nll,
            "dnll_sum": m.dnll,
            "kl_sum": float(m.kl.sum(dtype=np.float64)),
            "answers": [
                {"task": span.task, "right": bool(right)}
                for span, right in zip(m.sample.answers, m.right, strict=True)
            ],
        }
        for m in measured
    ]


def _by_cluster(measured: Iterable[Measured]) -> list[list[Measured]]:
    groups: dict[str, list[Measured]] = {}
    for one in measured:
        groups.setdefault(one.sample.cluster, []).append(one)
    return list(groups.values())
