"""The report as Markdown, from the document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sglang_ic.bench.arms import control_name
from sglang_ic.bench.compare import CONFIDENCE

# Ratios that a reader sees: key, heading.
RATIOS = (
    ("ttft_p50", "TTFT p50"),
    ("itl_p50", "mean ITL p50"),
    ("e2e_p50", "end to end p50"),
    ("output_tokens_per_sec", "output throughput"),
)
# A percentile bootstrap over so few rounds covers less than it says.
FEW_ROUNDS = 8
ABSOLUTE = (
    "arm",
    "ok / sent",
    "TTFT p50 / p90 / p99 ms",
    "mean ITL p50 ms",
    "ITL p50 / p90 / p99 ms",
    "end to end p50 / p99 ms",
    "in / out tok/s",
    "cache hits",
    "indexer skipped",
    "goodput",
)


def report(document: dict[str, Any]) -> str:
    """The page; tables hold everything that the HTML report's tables hold."""
    lines = ["# IndexCache under load", "", *_lead(document), ""]
    for note in notes(document):
        lines += [f"**{note}**", ""]
    lines += ["## Arms", "", *table(*arm_rows(document)), ""]
    lines += ["## Speed-up over " + f"`{document['reference']}`", "", ratio_caption(document), ""]
    lines += [*table(*ratio_rows(document)), ""]
    for name, description in document["scenarios"].items():
        points = [point for point in document["points"] if point["scenario"] == name]
        if points:
            lines += [f"## {name}", "", description, ""]
        for point in points:
            lines += [f"### {point['label']}", "", point_caption(point), ""]
            lines += [*table(*absolute_rows(point)), ""]
            lines += [f"- {line}" for line in error_lines(point)]
            lines += [""] if error_lines(point) else []
    if document["left_out"]:
        lines += ["## Left out", ""]
        lines += [f"- {point}: {why}" for point, why in document["left_out"].items()]
        lines += [""]
    lines += ["## How", "", f"`{document['command']}`", "", versions_line(document), ""]
    return "\n".join(lines)


def _lead(document: dict[str, Any]) -> list[str]:
    settings = document["settings"]
    return [
        f"{document['started_at']} to {document['finished_at']}, {hardware_line(document)}. "
        f"{settings['rounds']} interleaved rounds, lengths times {settings['scale']:g}, "
        f"seed {settings['seed']}."
    ]


def notes(document: dict[str, Any]) -> list[str]:
    """What a reader must know before any number."""
    found = []
    if document["is_interrupted"]:
        found.append("Interrupted: blocks that were not finished are in the JSON, not in a table.")
    found += [
        f"Arm {arm['name']} was given up: {arm['given_up']}."
        for arm in document["arms"]
        if arm["given_up"]
    ]
    late = sum(
        one["num_late_first_tokens"]
        for point in document["points"]
        for one in point["arms"].values()
    )
    if late:
        found.append(
            f"{late} answers showed their first text only after several tokens: their TTFT holds "
            "decode steps."
        )
    if not document["hardware"]["gpus"] and not _has_running_servers(document):
        found.append("Measured without a GPU: read the ratios, not the milliseconds.")
    return found


def _has_running_servers(document: dict[str, Any]) -> bool:
    """Whether an arm is a URL: nobody knows here what machine serves it."""
    return any(arm["url"] for arm in document["arms"])


def hardware_line(document: dict[str, Any]) -> str:
    """The machine of the client, which is the servers' too if it started them."""
    hardware = document["hardware"]
    memory = f"{hardware['memory_bytes'] / 2**30:.0f} GiB"
    parts = [f"{hardware['num_cores']} cores of {hardware['cpu']}", memory, *hardware["gpus"]]
    where = "client on " if _has_running_servers(document) else ""
    return where + ", ".join(parts)


def versions_line(document: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in document["versions"].items() if value)


def ratio_caption(document: dict[str, Any]) -> str:
    again = control_name(document["reference"])
    control = (
        f"; {again} is the reference's own configuration, measured a second time, so what it "
        "differs from 1 is noise."
    )
    num_rounds = document["settings"]["rounds"]
    few = (
        f" {num_rounds} rounds are few for an interval, which is then too narrow: believe what is "
        "well outside the control's."
    )
    return (
        "Above 1 the arm is better than the reference; mean ITL is that of a request. In brackets "
        f"the {CONFIDENCE:.0%} bootstrap interval"
        + (control if again in {arm["name"] for arm in document["arms"]} else ".")
        + (few if num_rounds < FEW_ROUNDS else "")
    )


def arm_rows(document: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    heading = ["arm", "serves", "pattern", "Full layers", "SGLang"]
    rows = []
    for arm in document["arms"]:
        pattern = arm.get("pattern")
        full = f"{pattern.count('F')} of {len(pattern)}" if pattern else ""
        serves = arm["url"] or ("upstream's server" if arm["kind"] == "stock" else "our server")
        rows.append([arm["name"], serves, pattern or "not told", full, arm.get("version") or ""])
    return heading, rows


def ratio_rows(document: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = [
        [point["key"], arm, *(ratio_text(ratios.get(key)) for key, _ in RATIOS)]
        for point in document["points"]
        for arm, ratios in point["ratios"].items()
    ]
    return ["load", "arm", *(name for _, name in RATIOS)], rows


def ratio_text(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return ""
    if entry["low"] is None:
        return f"{entry['ratio']:.2f}"
    return f"{entry['ratio']:.2f} [{entry['low']:.2f}, {entry['high']:.2f}]"


def point_caption(point: dict[str, Any]) -> str:
    """The load in words."""
    limits = " and ".join(
        f"{name.removesuffix('_ms').upper()} at most {value:,.0f} ms"
        for name, value in point["objective"].items()
    )
    rate = point["rate_per_sec"]
    told = [f"{point['requests']} requests a round"]
    if point["traffic"][0]["turns"] > 1:
        told = [
            f"{point['requests']} sessions of {point['traffic'][0]['turns']} turns a round",
            "later turns hold the arm's own answers",
        ]
    if isinstance(rate, float):
        told.append(f"Poisson arrivals at {rate:.3g} per second")
    told += [f"goodput counts {limits}"] if limits else []
    return ", ".join(told) + "."


def absolute_rows(point: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = [[arm, *_absolute(one)] for arm, one in point["arms"].items()]
    return list(ABSOLUTE), rows


def _absolute(one: dict[str, Any]) -> list[str]:
    def of(name: str, *keys: str) -> str:
        found = one[name]
        return " / ".join(_number(found[key]) for key in keys) if found else "none"

    goodput, indexer = one["goodput"], one["indexer"]
    per_sec = [one["input_tokens_per_sec"], one["output_tokens_per_sec"]]
    return [
        f"{one['num_ok']} / {one['num_sent']}",
        of("ttft_ms", "p50", "p90", "p99"),
        of("mean_itl_ms", "p50"),
        of("itl_ms", "p50", "p90", "p99"),
        of("e2e_ms", "p50", "p99"),
        " / ".join(_number(value) for value in per_sec) if None not in per_sec else "none",
        _share(one["cache_hit_rate"]),
        _share(indexer["skipped_share"]) if indexer else "not told",
        f"{goodput['requests_per_sec']:.3g}/s, {goodput['share']:.0%}" if goodput else "",
    ]


def error_lines(point: dict[str, Any]) -> list[str]:
    """One line for each kind of failure of each arm."""
    return [
        f"{arm}: {entry['num']} requests failed, {kind}"
        + (f" ({' '.join(entry['examples'][0].split())[-160:]})" if entry["examples"] else "")
        for arm, one in point["arms"].items()
        for kind, entry in one["errors"].items()
    ]


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, one line an entry."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return [line(heading), "|" + "---|" * len(heading), *(line(row) for row in rows)]


def _number(value: float) -> str:
    """Three digits that matter, without exponents."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "not told" if value is None else f"{value:.0%}"
