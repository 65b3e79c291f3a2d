"""Did two searches find the same? `python -m sglang_ic.search.agreement DIR DIR`

The first folder is the reference, an exhaustive search as a rule. On the same data the patterns of
each Full count are compared sequence by sequence, from the losses in the journals: nothing is run
again. Two patterns agree if they are the same, or if their losses differ by at most one standard
error of the difference. Controls of the second search go through the same test, which they should
fail.
"""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from sglang_ic.evaluate.report import number, table
from sglang_ic.evaluate.stats import clustered_mean


class Search:
    """A finished search's folder."""

    def __init__(self, folder: Path) -> None:
        """Read the folder.

        Raises:
            OSError, ValueError: there is no search in it.
        """
        self.folder = folder
        self.document = json.loads((folder / "pattern.json").read_text())
        lines = (folder / "journal.jsonl").read_text().split("\n")[1:-1]
        self.losses: dict[str, dict[int, float]] = {}
        for record in map(json.loads, lines):
            self.losses.setdefault(record["pattern"], {})[record["sequence"]] = record["loss"]

    def all_losses(self, pattern: str) -> np.ndarray:
        """[Q] float64, nats; the pattern was evaluated on every sequence."""
        found = self.losses[pattern]
        return np.array([found[sequence] for sequence in range(len(found))])

    def work(self, count: str) -> int:
        """Layer-token-forwards that led to the pattern of a Full count."""
        found = {str(s["pattern"].count("F")): s for s in self.document["steps"]}
        return found[count]["layer_token_forwards"]


def common_counts(reference: Search, other: Search) -> list[str]:
    """Full counts below the start that both searches reached, descending."""
    counts = [set(list(one.document["patterns"])[1:]) for one in (reference, other)]
    return sorted(counts[0] & counts[1], key=int, reverse=True)


def paired(gap: np.ndarray, weights: np.ndarray) -> tuple[float, float | None, bool]:
    """Mean difference per token, its standard error, and whether the two patterns agree.

    Args:
        gap: [Q] differences of a sequence's losses, nats.
        weights: [Q] predictions of each sequence, in tokens.
    """
    mean, error = clustered_mean(gap, weights)
    return mean, error, abs(mean) <= (math.inf if error is None else error)


def rows(reference: Search, other: Search) -> list[list[str]]:
    """A table: for each Full count both patterns, and whether they agree."""
    weights = np.array(reference.document["data"]["weights"])
    found = [["Full", "kind", "difference", "+/- se", "agrees", "pattern"]]
    for count in common_counts(reference, other):
        text = reference.document["patterns"][count]
        controls = [x for x in other.document["controls"] if x["num_full"] == int(count)]
        found.append([count, "reference", "-", "-", "-", f"`{text}`"])
        others = [("searched", other.document["patterns"][count])]
        others += [(control["kind"], control["pattern"]) for control in controls]
        for kind, pattern in others:
            gap = other.all_losses(pattern) - reference.all_losses(text)
            mean, error, agrees = paired(gap, weights)
            verdict = "same" if pattern == text else "yes" if agrees else "no"
            found.append([count, kind, number(mean), number(error), verdict, f"`{pattern}`"])
    return found


def rank_correlation(first: Sequence[int], second: Sequence[int]) -> float | None:
    """Spearman correlation of the steps in which layers were converted, of those in both orders."""
    both = sorted(set(first) & set(second))
    if len(both) < 3:  # too few for an order
        return None
    return float(
        stats.spearmanr([first.index(x) for x in both], [second.index(x) for x in both]).statistic
    )


def describe(reference: Search, other: Search) -> str:
    """The page."""
    first, second = reference.document, other.document
    order = rank_correlation(first["order"], second["order"])
    parts = [
        f"Order of conversion, Spearman correlation: {number(order, 3)}",
    ]
    for count in common_counts(reference, other)[-1:]:
        work = reference.work(count), other.work(count)
        parts.append(
            f"Work to {count} Full layers, layer-token-forwards: {work[0]:,} and {work[1]:,}, "
            f"{work[1] / work[0]:.1%} of it"
        )
    if first["data"]["fingerprint"] == second["data"]["fingerprint"]:
        parts.append(table(rows(reference, other)))
    else:
        parts.append("The calibration data differ, so losses cannot be compared here.")
    return "\n\n".join(parts)


def main(argv: Sequence[str]) -> int:
    if len(argv) != 2:
        print(__doc__.splitlines()[0], file=sys.stderr)
        return 2
    try:
        print(describe(*(Search(Path(folder)) for folder in argv)))
    except (OSError, ValueError, KeyError) as error:
        print(f"error: {error}: give two folders of finished searches", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
