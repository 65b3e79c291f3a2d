"""What the steps wrote, by folder; each of them may be missing, and the report then says so.

exhaustive/ fast-1/ fast-2/ fast-3/   python -m sglang_ic.search
losses/                               python -m sglang_ic.search.losses
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
    losses: dict | None
    held_out: dict | None
    speed: dict | None


def read(folder: Path) -> Results:
    """Read what is there.

    Raises:
        ValueError: nothing is, or a search is not complete.
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
        losses=_load(folder / "losses" / "losses.json"),
        held_out=_load(folder / "test" / "results.json"),
        speed=_load(folder / "speed.json"),
    )
    if not searches and not any((found.losses, found.held_out, found.speed)):
        raise ValueError(f"{folder} holds no results: see run_offline.sh for the steps")
    return found


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
