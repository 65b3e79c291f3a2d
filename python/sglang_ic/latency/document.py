"""A journal as one JSON document: rows with every repeat, medians, ratios, fits, memory. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from statistics import median
from typing import Any

from sglang_ic.latency import fit, trace
from sglang_ic.latency.journal import JournalError

SCHEMA_VERSION = 2


def build(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The document of a whole journal.

    Raises:
        JournalError: nothing was measured yet.
    """
    runs = [line for line in lines if line["event"] == "run"]
    measured = [line for line in lines if line["event"] in ("value", "profile")]
    if not measured:
        raise JournalError("the journal holds no measurement yet: measure a part of a plan first")
    rows = []
    for part in dict.fromkeys(run["part"] for run in runs):
        arms = _arms(runs, part)
        names = dict.fromkeys(row for run in runs if run["part"] == part for row in run["rows"])
        for name in names:
            values = [
                line
                for line in measured
                if line["event"] == "value" and (line["part"], line["row"]) == (part, name)
            ]
            if values:
                rows.append(_row(part, name, values, arms))
    return {
        "schema_version": SCHEMA_VERSION,
        "what": "sglang_ic.latency",
        "title": runs[-1]["title"],
        "runs": [_without_event(run) for run in runs],
        "servers": [_without_event(one) for one in lines if one["event"] == "server"],
        "rows": rows,
        "memory": _memory(lines, runs),
        "profiles": [
            {
                **_without_event(one),
                **_arms(runs, one["part"])[one["arm"]],
                "category_ms": trace.refiled(one["category_ms"], one["longest"]),
            }
            for one in measured
            if one["event"] == "profile"
        ],
        "left_out": [_without_event(one) for one in lines if one["event"] == "skipped"],
    }


def _arms(runs: Sequence[dict[str, Any]], part: str) -> dict[str, dict[str, Any]]:
    """Arms of a part by name, in the plan's order."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        if run["part"] == part:
            found |= run["arms"]
    return {name: {**arm, "num_full": arm["pattern"].count("F")} for name, arm in found.items()}


def _row(
    part: str, name: str, values: Sequence[dict[str, Any]], arms: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    by_arm = {
        arm: [line for line in values if line["arm"] == arm]
        for arm in arms
        if any(line["arm"] == arm for line in values)
    }
    spreads = {arm: fit.spread([one["value"] for one in found]) for arm, found in by_arm.items()}
    reference = next(iter(by_arm))
    return {
        "part": part,
        "row": name,
        "metric": values[0]["metric"],
        "reference": reference,
        "num_runs": len({line["run"] for line in values}),
        "arms": {
            arm: {
                **arms[arm],
                "values": [line["value"] for line in by_arm[arm]],
                "rounds": [line["round"] for line in by_arm[arm]],
                **dataclasses.asdict(spread),
                "relative_spread": spread.relative,
                "speedup": spreads[reference].median / spread.median,
            }
            for arm, spread in spreads.items()
        },
        "no_indexer": _fits(by_arm, arms, spreads[reference].median),
        "controls": _controls(by_arm, spreads, arms),
    }


def _fits(
    by_arm: dict[str, list[dict[str, Any]]], arms: dict[str, dict[str, Any]], reference: float
) -> dict[str, Any]:
    """For each engine with enough Full counts: the line at zero Full layers.

    Arms with flags or variables of their own are on another line.
    """
    found = {}
    for engine in dict.fromkeys(arm["engine"] for arm in arms.values()):
        times: dict[int, list[float]] = {}
        for arm, values in by_arm.items():
            # Candidate layers are neither Full nor free.
            if (
                arms[arm]["engine"] == engine
                and not arms[arm]["changes"]
                and "C" not in arms[arm]["pattern"]
            ):
                times.setdefault(arms[arm]["num_full"], []).extend(one["value"] for one in values)
        line = fit.no_indexer({count: median(values) for count, values in times.items()})
        if line is not None:
            found[engine] = {
                "value": line.no_indexer,
                "per_layer": line.per_layer,
                "residuals": {str(count): one for count, one in line.residuals.items()},
                "worst_residual": line.worst_residual,
                "r_squared": line.r_squared,
                "speedup": reference / line.no_indexer if line.no_indexer > 0 else None,
            }
    return found


def _controls(
    by_arm: dict[str, list[dict[str, Any]]],
    spreads: dict[str, fit.Spread],
    arms: dict[str, dict[str, Any]],
) -> list[dict[str, Any]]:
    """One pattern in one way, measured twice: 1 is no difference.

    The fork over upstream's own SGLang is what the fork costs; an engine over itself is noise, in
    times and in tokens, that the first is to be read beside.
    """
    alike: dict[tuple[str, str], dict[str, list[str]]] = {}
    for arm in by_arm:
        engines = alike.setdefault((arms[arm]["pattern"], arms[arm]["changes"]), {})
        engines.setdefault(arms[arm]["engine"], []).append(arm)
    found = []
    for engines in alike.values():
        pairs = [(engines["fork"][0], engines["stock"][0])] if len(engines) == 2 else []
        pairs += [(again, same[0]) for same in engines.values() for again in same[1:]]
        for arm, over in pairs:
            ours = {one["round"]: one.get("last_ids") for one in by_arm[arm]}
            theirs = {one["round"]: one.get("last_ids") for one in by_arm[over]}
            both = [one for one in ours if ours[one] and theirs.get(one)]
            found.append(
                {
                    "arm": arm,
                    "over": over,
                    "is_same_engine": arms[arm]["engine"] == arms[over]["engine"],
                    "ratio": spreads[arm].median / spreads[over].median,
                    "low": spreads[arm].min / spreads[over].max,
                    "high": spreads[arm].max / spreads[over].min,
                    "num_prompts_compared": len(both),
                    "num_prompts_equal": sum(ours[one] == theirs[one] for one in both),
                }
            )
    return found


def _memory(lines: Sequence[dict[str, Any]], runs: Sequence[dict[str, Any]]) -> list[dict]:
    """KV pool and peak of every server, by arm where it had its own server."""
    switched = {run["run"]: run["switch"] for run in runs}
    found = []
    for server in (line for line in lines if line["event"] == "server"):
        peaks = [
            line["memory"]
            for line in lines
            if line["event"] in ("value", "profile")
            and (line["run"], line["part"]) == (server["run"], server["part"])
            and line["arm"] in server["arms"]
        ]
        keys = dict.fromkeys(key for one in peaks for key in one)
        found.append(
            {
                "part": server["part"],
                "run": server["run"],
                "server": server["name"],
                "is_switched": switched[server["run"]],
                "kv_pool_tokens": server["info"]["max_total_num_tokens"],
                "kv_cache_dtype": server["info"]["kv_cache_dtype"],
                **{key: max(one[key] for one in peaks) for key in keys},
            }
        )
    return found


def _without_event(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key != "event"}
