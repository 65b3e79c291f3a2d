"""Kernel time by category, as tables with a column for each arm."""

from __future__ import annotations

from typing import Any

from sglang_ic.latency.tables import changes, head, line
from sglang_ic.latency.trace import INDEXER, SHOWN


def profiles(document: dict[str, Any]) -> list[str]:
    lines = ["## Kernel time", ""]
    for row in dict.fromkeys(one["row"] for one in document["profiles"]):
        found = [one for one in document["profiles"] if one["row"] == row]
        lines += [f"### {row}", "", _profiled(found[0]), "", *_times(found), "", *_alone(found)]
        lines += changes({one["arm"]: one for one in found})
        lines.append("")
    lines += [
        "Milliseconds are durations of kernels, added up. Kernels that run side by side, on two "
        "streams or because one was launched before the end of the one before it, count in full "
        "each: a sum can be more than the time that passed.",
        "",
    ]
    told = [one for one in document["profiles"] if one["launches_per_run"] is not None]
    if told:
        whole = [one for one in told if one["launches_per_run"] % 1 == 0]
        lines += [
            "Launches per run are scoring kernels in the trace for each indexer run that the "
            f"server counted (stock counts none): a whole number, as it must be, in {len(whole)} "
            f"of {len(told)} profiles.",
            "",
        ]
    return lines


def _profiled(one: dict[str, Any]) -> str:
    """What ran under the profiler."""
    context = int(one["row"].split()[-1])
    if one["row"].startswith("profile decode"):
        return f"{one['num_new_tokens']} decode steps behind {context:,} tokens."
    num_prefilled = one["num_prefilled_tokens"]
    return f"The last {num_prefilled:,} of {context:,} prompt tokens, the others in the cache."


def _times(profiles: list[dict[str, Any]]) -> list[str]:
    """A table of categories by arm."""
    times = [one["category_ms"] for one in profiles]
    sums = [sum(one.values()) for one in times]
    shares = [
        sum(one[name] for name in INDEXER) / total for one, total in zip(times, sums, strict=True)
    ]
    ratios = [one["launches_per_run"] for one in profiles]
    rows = [
        ["Full layers", *(str(one["num_full"]) for one in profiles)],
        *([name, *(f"{one[name]:.2f}" for one in times)] for name in SHOWN),
        ["all kernels", *(f"{total:.2f}" for total in sums)],
        [f"indexer's share ({', '.join(INDEXER)})", *(f"{share:.0%}" for share in shares)],
        ["launches per run", *("" if ratio is None else f"{ratio:g}" for ratio in ratios)],
    ]
    return [*head("ms on the GPU", *(one["arm"] for one in profiles)), *map(line, rows)]


def _alone(profiles: list[dict[str, Any]]) -> list[str]:
    """The time in which kernels of one kind ran and none of another, where the journal has it."""
    found = [one for one in profiles if "alone_ms" in one]
    if not found:
        return []
    rows = [[name, *(f"{one['alone_ms'][name]:.2f}" for one in found)] for name in SHOWN]
    rows.append(["any kernel", *(f"{one['busy_ms']:.2f}" for one in found)])
    return [
        *head("ms, no other kind running", *(one["arm"] for one in found)),
        *map(line, rows),
        "",
    ]
