"""The fast method against the exhaustive one, on the data that both searched.

Two patterns agree if they are the same, or if their paired loss difference on the calibration set
is within one standard error of that difference. Random patterns take the same test, against the
exhaustive pattern, and should fail it.
"""

import numpy as np

from search_report.results import EXHAUSTIVE, FAST, Results, share_counts, work
from sglang_ic.search.agreement import paired, rank_correlation

MAX_WORK = 1 / 8  # of the exhaustive method's layer-token-forwards
MIN_TOKENS = 200_000  # of the calibration set


def measure(found: Results) -> dict | None:
    """The section, or None without both searches and their losses."""
    searches, losses = found.searches, found.losses
    if losses is None or EXHAUSTIVE not in searches or FAST[0] not in searches:
        return None
    exhaustive, fast = searches[EXHAUSTIVE], searches[FAST[0]]
    data = next(x for x in losses["data"] if x["source"] == exhaustive["data"]["source"])
    prints = {one["data"]["fingerprint"] for one in (exhaustive, fast)} | {data["fingerprint"]}
    if len(prints) > 1:
        raise ValueError("the searches and losses/ are of different calibration data")
    table = losses["losses"][data["source"]]
    weights = np.array(data["weights"])

    def compare(pattern: str, reference: str) -> dict:
        gap = np.array(table[pattern]) - np.array(table[reference])
        mean, error, agrees = paired(gap, weights)
        return {"difference": mean, "stderr": error, "agrees": agrees or pattern == reference}

    rows = []
    for share, count in share_counts(exhaustive["num_layers"]).items():
        if not all(str(count) in one["patterns"] for one in (exhaustive, fast)):
            continue
        reference, pattern = (one["patterns"][str(count)] for one in (exhaustive, fast))
        controls = [
            {"kind": entry["kind"], **compare(entry["pattern"], reference)}
            for entry in losses["patterns"]
            if entry["num_full"] == count and entry["kind"] in ("uniform", "random")
        ]
        random = [control for control in controls if control["kind"] == "random"]
        spent = work(exhaustive, count), work(fast, count)
        rows.append(
            {
                "share": share,
                "num_full": count,
                "exhaustive": reference,
                "fast": pattern,
                "same": pattern == reference,
                **compare(pattern, reference),
                "num_random": len(random),
                "num_random_that_fail": sum(not control["agrees"] for control in random),
                "uniform_agrees": next(
                    (x["agrees"] for x in controls if x["kind"] == "uniform"), None
                ),
                "layer_token_forwards": {"exhaustive": spent[0], "fast": spent[1]},
                "work": spent[1] / spent[0],
            }
        )
    if not rows:
        return None
    num_random = sum(row["num_random"] for row in rows)
    return {
        "data": data["source"],
        "num_sequences": len(weights),
        "num_tokens": data["num_tokens"],
        "rows": rows,
        "order_spearman": rank_correlation(exhaustive["order"], fast["order"]),
        "noise": {"exhaustive": exhaustive["noise"], "fast": fast["noise"]},
        "same_answer": all(row["agrees"] for row in rows),
        "random_fails": num_random > 0
        and num_random == sum(row["num_random_that_fail"] for row in rows),
        "work_within_target": all(row["work"] <= MAX_WORK for row in rows),
        "enough_tokens": data["num_tokens"] >= MIN_TOKENS,
    }
