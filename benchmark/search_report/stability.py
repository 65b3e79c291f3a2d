"""The search on several calibration sets: do the orders agree, and the patterns' losses?

*Cross-loss*: the pattern found on set i, measured on set j, against the pattern found on set j.
"""

from itertools import combinations

import numpy as np

from search_report.results import FAST, Results, share_counts
from sglang_ic.evaluate.stats import clustered_mean
from sglang_ic.search.agreement import paired, rank_correlation


def measure(found: Results) -> dict | None:
    """The section, or None without at least two searches on different sets."""
    searches = {
        one["data"]["source"]: one for name in FAST if (one := found.searches.get(name)) is not None
    }
    if len(searches) < 2:
        return None
    return {
        "orders": {source: one["order"] for source, one in searches.items()},
        "spearman": [
            {
                "sets": [a, b],
                "correlation": rank_correlation(searches[a]["order"], searches[b]["order"]),
            }
            for a, b in combinations(searches, 2)
        ],
        "cross_loss": [] if found.losses is None else cross_loss(searches, found.losses),
    }


def cross_loss(searches: dict[str, dict], losses: dict) -> list[dict]:
    """One row for each share, set that a pattern was found on, and set that it is measured on."""
    num_layers = next(iter(searches.values()))["num_layers"]
    full = "F" * num_layers
    measured = {one["source"]: np.array(one["weights"]) for one in losses["data"]}
    rows = []
    for share, count in share_counts(num_layers).items():
        found = {
            source: one["patterns"][str(count)]
            for source, one in searches.items()
            if str(count) in one["patterns"] and source in measured
        }
        for on, own in found.items():
            table = {text: np.array(row) for text, row in losses["losses"][on].items()}
            for source, pattern in found.items():
                increase, error = clustered_mean(table[pattern] - table[full], measured[on])
                difference, gap_error, agrees = paired(table[pattern] - table[own], measured[on])
                rows.append(
                    {
                        "share": share,
                        "num_full": count,
                        "found_on": source,
                        "measured_on": on,
                        "pattern": pattern,
                        "increase": increase,
                        "increase_stderr": error,
                        "difference": difference,
                        "difference_stderr": gap_error,
                        "agrees": agrees or pattern == own,
                    }
                )
    return rows
