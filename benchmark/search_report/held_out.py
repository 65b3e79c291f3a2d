"""The searched pattern against uniform and random ones, on documents that no search has seen.

Everything is paired by document. The random patterns are a sample of their own: the median of them
is compared, in each resample of the documents anew, and their whole range is shown beside it.
"""

import numpy as np
from scipy import stats

from search_report.results import Results
from sglang_ic.evaluate.stats import CONFIDENCE, NUM_RESAMPLES, SEED

MEASURES = ("dnll", "accuracy")  # nats per token, lower is better; share of answers, higher is


def measure(found: Results) -> dict | None:
    """The section, or None without an evaluation that has a searched pattern."""
    document = found.held_out
    searched = [] if document is None else _of_kind(document, "pattern")
    if not searched:
        return None
    arm, random = searched[0], _of_kind(document, "random", searched[0]["num_full"])
    uniform = _of_kind(document, "uniform", arm["num_full"])
    return {
        "data": document["data"],
        "model": document["model"]["path"],
        "interrupted": document["interrupted"],
        "num_documents": arm["overall"]["num_documents"],
        "num_tokens": arm["overall"]["num_tokens"],
        "full": _row(document["arms"][0]),
        "arms": [_row(one) for one in (arm, *uniform, *random)],
        "against_uniform": compare(document, arm, uniform),
        "against_random": compare(document, arm, random),
    }


def _of_kind(document: dict, kind: str, num_full: int | None = None) -> list[dict]:
    return [
        arm
        for arm in document["arms"]
        if arm["kind"] == kind and num_full in (None, arm["num_full"])
    ]


def _row(arm: dict) -> dict:
    total = next(row for row in arm["accuracy"] if (row["task"], row["length"]) == ("all", None))
    return {
        "name": arm["name"],
        "kind": arm["kind"],
        "pattern": arm["pattern"],
        "dnll": arm["overall"]["dnll"],
        "dnll_ci95": arm["overall"]["dnll_ci95"],
        "accuracy": total["accuracy"],
        "accuracy_ci95": total["ci95"],
    }


def compare(document: dict, arm: dict, others: list[dict]) -> dict | None:
    """The arm minus the median of the others, by measure; None without others."""
    if not others:
        return None
    found = {}
    for name in MEASURES:
        mine = _by_document(document, arm, name)
        theirs = [_by_document(document, other, name) for other in others]
        better = -1 if name == "dnll" else 1
        difference, interval = median_difference(mine, theirs)
        ends = [better * end for end in interval]
        verdict = "better" if min(ends) > 0 else "worse" if max(ends) < 0 else "not told apart"
        values = [float(sums.sum() / counts.sum()) for sums, counts in theirs]
        value = float(mine[0].sum() / mine[1].sum())
        found[name] = {
            "difference": difference,
            "ci95": interval,
            "verdict": verdict,
            "num_beaten": sum(better * (value - other) > 0 for other in values),
            "num_others": len(values),
            "range": [min(values), max(values)],
        }
    return found


def _by_document(document: dict, arm: dict, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts, [G] each, over documents in order."""
    records = document["documents"][arm["name"]]
    if name == "dnll":
        pairs = [(one["dnll_sum"], one["num_tokens"]) for one in records]
    else:
        pairs = [
            (sum(answer["right"] for answer in one["answers"]), len(one["answers"]))
            for one in records
        ]
    sums, counts = np.array(pairs, dtype=float).T
    return sums, counts


def median_difference(
    mine: tuple[np.ndarray, np.ndarray], theirs: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[float, list[float]]:
    """Rate of one arm minus the median of the others' rates, and its 95% interval.

    Args:
        mine, theirs: sums and counts over the same documents, [G] each.
    """

    def difference(chosen: np.ndarray) -> float:
        at = chosen.astype(int)
        rates = [sums[at].sum() / counts[at].sum() for sums, counts in theirs]
        return mine[0][at].sum() / mine[1][at].sum() - np.median(rates)

    documents = np.arange(len(mine[0]))
    interval = stats.bootstrap(
        (documents,),
        difference,
        vectorized=False,
        n_resamples=NUM_RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return float(difference(documents)), [float(interval.low), float(interval.high)]
