"""Patterns by name: the published ones in presets.json, and the JSON files that a search writes.

A pattern file holds `num_layers` (int), and `patterns` (an object from the number of Full
layers, as a text, to F/S text), or `pattern` (one F/S text, the default), or both. Other keys
are provenance and are not read here:

    {"num_layers": 4, "patterns": {"2": "FSFS", "1": "FSSS"}, "model": "...", "versions": {}}
"""

import json
from functools import cache
from importlib import resources
from pathlib import Path

from sglang_ic.pattern_text import ACCEPTED, PatternError, check_text, parse_count, show


@cache
def presets() -> dict[str, dict]:
    """Published patterns by name: num_layers, num_full, pattern, source."""
    return json.loads(resources.files("sglang_ic").joinpath("presets.json").read_text())["presets"]


def preset_text(given: str, num_layers: int) -> str:
    """F/S text of `preset:NAME`.

    Raises:
        PatternError: no such preset, or one for a model with another number of layers.
    """
    name = given.removeprefix("preset:")
    known = ", ".join(f"{key} ({entry['num_layers']} layers)" for key, entry in presets().items())
    if name not in presets():
        raise PatternError(f"preset {show(name)} is unknown: use one of {known}")
    entry = presets()[name]
    if entry["num_layers"] != num_layers:
        raise PatternError(
            f"preset {show(name)} is for {entry['num_layers']} layers, the model has {num_layers}: "
            f"use F/S text, freq:N, or a preset of the right size out of {known}"
        )
    return entry["pattern"]


def is_file_reference(given: str) -> bool:
    """Whether a pattern text names a file: no other form holds '/' (but preset:) or '.json'."""
    return "/" in given or ".json" in given


def file_text(given: str, num_layers: int) -> str:
    """F/S text from `FILE` or `FILE@FULL_COUNT`.

    Raises:
        PatternError: the file cannot be read, is not a pattern file, is for another number of
            layers, or holds several patterns and none is selected.
    """
    path, full_count = _split(given)
    singles, by_count = _read(path, num_layers)
    counts = ", ".join(map(str, sorted(by_count))) or "none"
    if full_count is not None:
        if full_count not in by_count:
            raise PatternError(
                f"pattern file {show(path)} has no pattern with {full_count} Full layers: "
                f"select one of {counts} with FILE@FULL_COUNT"
            )
        return by_count[full_count]
    if singles:
        return singles[0]
    if len(by_count) != 1:
        raise PatternError(
            f"pattern file {show(path)} holds {len(by_count)} patterns and none is selected: "
            f"select one of {counts} Full layers with FILE@FULL_COUNT"
        )
    return next(iter(by_count.values()))


def _split(given: str) -> tuple[str, int | None]:
    path, at, tail = given.rpartition("@")
    # An '@' inside a folder or a file name is part of the path.
    if not at or "/" in tail or given.endswith(".json"):
        return given, None
    return path, parse_count(tail, "Full count", given)


def _read(path: str, num_layers: int) -> tuple[list[str], dict[int, str]]:
    """Default pattern (a list of none or one) and all patterns by number of Full layers."""
    document = _load(path)
    if "num_layers" not in document:
        raise PatternError(
            f"pattern file {show(path)} has no num_layers: add the model's layer count"
        )
    declared = document["num_layers"]
    if not isinstance(declared, int) or isinstance(declared, bool) or declared < 1:
        raise PatternError(
            f"pattern file {show(path)} has num_layers {show(declared)}: "
            "write an integer of 1 or more"
        )
    if declared != num_layers:
        raise PatternError(
            f"pattern file {show(path)} is for {declared} layers but the model has {num_layers}: "
            "use the file that was searched on this model"
        )
    if "pattern" not in document and "patterns" not in document:
        raise PatternError(
            f"pattern file {show(path)} has neither pattern nor patterns: "
            f"add one; its keys are {', '.join(sorted(document))}"
        )
    if "pattern" not in document and document["patterns"] == {}:
        raise PatternError(
            f"pattern file {show(path)} has empty patterns: run the search to its end"
        )
    by_count = _by_count(path, document.get("patterns", {}), num_layers)
    singles = []
    if "pattern" in document:
        text = check_text(document["pattern"], num_layers, f"pattern in file {show(path)}:")
        singles.append(text)
        by_count.setdefault(text.count("F"), text)
    return singles, by_count


def _by_count(path: str, patterns: object, num_layers: int) -> dict[int, str]:
    if not isinstance(patterns, dict):
        raise PatternError(
            f"pattern file {show(path)} has a {type(patterns).__name__} as patterns, "
            f"{show(patterns)}: "
            'write an object from Full count to text, such as {"2": "FSFS"}'
        )
    by_count = {}
    for key, value in patterns.items():
        text = check_text(value, num_layers, f"patterns[{show(key)}] in file {show(path)}:")
        if key != str(text.count("F")):
            raise PatternError(
                f"pattern file {show(path)} lists {show(text)} under {show(key)} "
                f"but it has {text.count('F')} Full layers: correct the key"
            )
        by_count[int(key)] = text
    return by_count


def _load(path: str) -> dict:
    try:
        raw = Path(path).expanduser().read_bytes()
    except (OSError, ValueError, RuntimeError) as error:  # no such file, NUL in a path, ~nobody
        reason = getattr(error, "strerror", None) or error
        raise PatternError(
            f"pattern file {show(path)} cannot be read ({reason}): check the path; {ACCEPTED}"
        ) from error
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested without end
        raise PatternError(
            f"pattern file {show(path)} is not valid JSON ({str(error).splitlines()[0]}): "
            "write it again with the search, or repair it"
        ) from error
    if not isinstance(document, dict):
        raise PatternError(
            f"pattern file {show(path)} holds a {type(document).__name__}, not an object: "
            "write num_layers and patterns"
        )
    return document
