"""Which patterns `losses` measures, and its losses by data set: pure."""

from collections.abc import Sequence

import numpy as np

from sglang_ic.evaluate import arms
from sglang_ic.evaluate.report import number, table
from sglang_ic.evaluate.stats import clustered_mean
from sglang_ic.pattern import LayerPattern
from sglang_ic.search.constraints import refuse_candidates

REFERENCE = "full"


def named_patterns(given: Sequence[str], control: Sequence[str], num_layers: int) -> list[dict]:
    """What to measure, the reference first; several names may stand for one pattern.

    Raises:
        PatternError: one that is none.
    """
    names: dict[str, list[str]] = {}
    for text in given:
        pattern = refuse_candidates(LayerPattern.parse(text, num_layers))
        names.setdefault(pattern.text, []).append(text)
    unique = [found[0] for text, found in names.items() if "S" in text]
    planned, _ = arms.plan(REFERENCE, unique, arms.Controls.parse(control), num_layers)
    return [
        {
            "names": names.get(arm.pattern.text, [arm.name]),
            "kind": arm.kind,
            "pattern": arm.pattern.text,
            "num_full": arm.pattern.num_full,
            "seed": arm.seed,
        }
        for arm in planned
    ]


def split(losses: dict[str, np.ndarray], data: list[dict]) -> dict[str, dict[str, list[float]]]:
    """By data set and pattern, from losses over the sequences of all sets in a row."""
    found, begin = {}, 0
    for one in data:
        end = begin + len(one["weights"])
        found[one["source"]] = {text: row[begin:end].tolist() for text, row in losses.items()}
        begin = end
    return found


def terminal(document: dict) -> str:
    """Mean increases over all Full, nats per token."""
    rows = [["pattern", "Full", *(f"{one['source']} +/- se" for one in document["data"])]]
    for entry in document["patterns"][1:]:
        row = [entry["names"][0], str(entry["num_full"])]
        for one in document["data"]:
            losses = document["losses"][one["source"]]
            full = np.array(losses[document["patterns"][0]["pattern"]])
            gap = np.array(losses[entry["pattern"]]) - full
            mean, error = clustered_mean(gap, one["weights"])
            row.append(f"{number(mean)} {number(error)}")
        rows.append(row)
    return table(rows)
