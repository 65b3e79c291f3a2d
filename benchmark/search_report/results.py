"""What the steps wrote, by folder; each of them may be missing, and the report then says so.

exhaustive/ fast-1/ fast-2/ fast-3/   python -m sglang_ic.search
losses*/                              python -m sglang_ic.search.losses, of one or more sets each
test/                                 python -m sglang_ic.evaluate
speed.json                            python -m search_report.speed
"""

import json
from dataclasses import dataclass
from pathlib import Path

EXHAUSTIVE, FAST = "exhaustive", ("fast-1", "fast-2", "fast-3")


@dataclass(frozen=True)
class Results:
    """Documents as they were written; None or absent: not there."""

    searches: dict[str, dict]  # by folder name
    loss_runs: tuple[dict, ...]  # of the same patterns, on different calibration sets
    held_out: dict | None
    speed: dict | None

    @property
    def losses(self) -> dict | None:
        """`data`, `patterns` and `losses` of all loss_runs, as one run of them all writes them."""
        if not self.loss_runs:
            return None
        return {
            "data": [data for run in self.loss_runs for data in run["data"]],
            "patterns": self.loss_runs[0]["patterns"],
            "losses": {key: rows for run in self.loss_runs for key, rows in run["losses"].items()},
        }


def read(folder: Path) -> Results:
    """Read what is there.

    Raises:
        ValueError: nothing is, a search is not complete, or losses do not belong together.
        OSError: a file cannot be read.
    """
    searches = {}
    for name in (EXHAUSTIVE, *FAST):
        document = _load(folder / name / "pattern.json")
        if document is not None and not document["complete"]:
            raise ValueError(f"{folder / name} is not complete: go on with --resume first")
        if document is not None:
            searches[name] = document
    found = Results(
        searches=searches,
        loss_runs=_loss_runs(folder),
        held_out=_load(folder / "test" / "results.json"),
        speed=_load(folder / "speed.json"),
    )
    if not searches and not any((found.loss_runs, found.held_out, found.speed)):
        raise ValueError(f"{folder} holds no results: see run_offline.sh for the steps")
    return found


def _loss_runs(folder: Path) -> tuple[dict, ...]:
    runs = tuple(map(_load, sorted(folder.glob("losses*/losses.json"))))
    sources = [source for run in runs for source in run["losses"]]
    patterns = {tuple(one["pattern"] for one in run["patterns"]) for run in runs}
    if len(set(sources)) < len(sources) or len(patterns) > 1:
        raise ValueError(
            f"{folder}: its losses*/ must be of the same patterns, each of other calibration sets: "
            "measure them again in one step"
        )
    return runs


def _load(path: Path) -> dict | None:
    return json.loads(path.read_text()) if path.exists() else None


def share_counts(num_layers: int) -> dict[str, int]:
    """Full layers at the shares that are reported, rounded up as published patterns are."""
    return {f"1/{divisor}": -(-num_layers // divisor) for divisor in (2, 4, 8)}


def work(search: dict, count: int) -> int:
    """Layer-token-forwards that led to the pattern with `count` Full layers, counted."""
    return next(
        step["layer_token_forwards"]
        for step in search["steps"]
        if step["pattern"].count("F") == count
    )
