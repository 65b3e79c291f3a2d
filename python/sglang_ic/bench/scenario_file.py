"""Scenario files: TOML that says what traffic to send, read into frozen values and scaled.

description = "Cold long prompts."
requests = 8                            # of each point and round; sessions if turns > 1; a closed
                                        # loop has as many as it keeps in flight at least
concurrency = [1, 4]                    # closed loop: this many requests at any time
rates = [0.5, "80%"]                    # open loop: Poisson arrivals, requests per second, or a
                                        # share of what the reference arm takes in closed loop
objective = { ttft_ms = 2000, itl_ms = "2x" }   # for goodput; "2x": times the reference
                                        # arm's median with one request at a time
[[traffic]]                             # several tables are mixed by weight
weight = 1.0
prefix_tokens = 0                       # shared by requests_per_prefix requests
requests_per_prefix = 1
prompt_tokens = [8000, 64000]           # new tokens of each turn; a list makes a point of each
output_tokens = 128                     # of each turn
turns = 1
range_ratio = 0.9                       # lengths are uniform between this share and all of it
"""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

from sglang_ic.bench.scenario import OBJECTIVES, Point, Scenario, Traffic

KEYS = ("description", "requests", "concurrency", "rates", "objective", "traffic")


class ScenarioError(ValueError):
    """A scenario that cannot be used; the message is one line for the user."""


def read(path: Path, *, scale: float = 1.0, requests: int | None = None) -> Scenario:
    """Read, check and scale a scenario file; `requests` overrides the file's own count.

    A closed loop has at least as many requests as it keeps in flight.

    Raises:
        ScenarioError: the file cannot be read, or says something that has no meaning.
    """
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ScenarioError(f"scenario {str(path)!r} cannot be read ({reason})") from error
    try:
        return _scenario(path.stem, table, scale, requests)
    except (TypeError, ValueError) as error:
        raise ScenarioError(f"scenario {str(path)!r}: {error}") from error


def share_or_number(value: object, suffix: str, what: str) -> float | str:
    """A positive number, or a text like "80%" or "2x" with a positive number before `suffix`."""
    number: object = value
    if isinstance(value, str) and value.endswith(suffix):
        try:
            number = float(value[: -len(suffix)])
        except ValueError:
            number = None
    if not _is_number(number) or not 0 < number < 1e9:
        raise ValueError(
            f"{what} {value!r}: use a positive number, or a text like {'1.5' + suffix!r}"
        )
    return value if isinstance(value, str) else float(number)


def _scenario(name: str, table: dict, scale: float, requests: int | None) -> Scenario:
    _known(table, KEYS, "key")
    rows = table.get("traffic") or []
    if not rows:
        raise ValueError("no [[traffic]] table: add one with prompt_tokens and output_tokens")
    requests = _count(requests or table.get("requests", 8), "requests")
    objective = table.get("objective", {})
    _known(objective, OBJECTIVES, "objective")
    goal = tuple((key, share_or_number(value, "x", key)) for key, value in objective.items())
    points = []
    for lengths, traffic in _variants(rows, scale):
        for count in _list(table, "concurrency"):
            count = _count(count, "concurrency")
            label = f"{lengths}{count} at a time"
            enough = max(requests, count)  # or fewer than the label says would be in flight
            points.append(Point(name, label, traffic, enough, concurrency=count, objective=goal))
        for rate in _list(table, "rates"):
            rate = share_or_number(rate, "%", "rate")
            told = f"{rate} of capacity" if isinstance(rate, str) else f"{rate:g} per second"
            points.append(
                Point(name, f"{lengths}{told}", traffic, requests, rate=rate, objective=goal)
            )
    if not points:
        raise ValueError("neither concurrency nor rates: give at least one")
    labels = [point.label for point in points]
    twice = [label for label in labels if labels.count(label) > 1]
    if twice:
        raise ValueError(
            f"two loads are called {twice[0]!r}: leave one out, or use a larger --scale if "
            "shortened lengths have met"
        )
    return Scenario(name, str(table.get("description", "")), tuple(points))


def _variants(rows: list[dict], scale: float) -> list[tuple[str, tuple[Traffic, ...]]]:
    """(label, mixture) of each length in a list of prompt_tokens, or the only mixture."""
    fields = [field.name for field in dataclasses.fields(Traffic)]
    for row in rows:
        _known(row, fields, "key of [[traffic]]")
    lengths = rows[0].get("prompt_tokens")
    if isinstance(lengths, list):
        if not lengths:
            raise ValueError("prompt_tokens is an empty list")
        if len(rows) > 1:
            raise ValueError("a list of prompt_tokens cannot be mixed with a second [[traffic]]")
        variants = [[{**rows[0], "prompt_tokens": length}] for length in lengths]
    else:
        variants = [rows]
    made = [tuple(_traffic(row).scaled(scale) for row in variant) for variant in variants]
    if len({traffic.turns > 1 for mixture in made for traffic in mixture}) > 1:
        raise ValueError("turns: sessions cannot be mixed with single requests")
    several = isinstance(lengths, list)
    return [(f"{mix[0].prompt_tokens} tokens, " if several else "", mix) for mix in made]


def _traffic(row: dict) -> Traffic:
    for key in ("prompt_tokens", "output_tokens"):
        if key not in row:
            raise ValueError(f"[[traffic]] without {key}")
    for key in ("prompt_tokens", "output_tokens", "requests_per_prefix", "turns"):
        if key in row:
            _count(row[key], key)
    if row.get("prefix_tokens", 0) != 0:
        _count(row["prefix_tokens"], "prefix_tokens")
    traffic = Traffic(**row)
    if not _is_number(traffic.weight) or not 0 < traffic.weight:
        raise ValueError(f"weight {traffic.weight!r}: use a number above 0")
    if not _is_number(traffic.range_ratio) or not 0 < traffic.range_ratio < 1:
        # At exactly 1 upstream reads prompts from a file of an earlier run, whatever its model.
        raise ValueError(f"range_ratio {traffic.range_ratio!r}: use a number above 0 and below 1")
    return traffic


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _list(table: dict, key: str) -> list:
    value = table.get(key, [])
    if not isinstance(value, list):
        raise ValueError(f"{key} {value!r}: use a list, such as [{value}]")
    return value


def _count(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{what} {value!r}: use an integer of 1 or more")
    return value


def _known(table: object, keys: tuple | list, what: str) -> None:
    if not isinstance(table, dict):
        raise ValueError(f"{table!r} is not a table of {', '.join(keys)}")
    unknown = [key for key in table if key not in keys]
    if unknown:
        raise ValueError(f"{what} {unknown[0]!r} is unknown: use {', '.join(keys)}")
