"""Rows as panels of medians, repeats and no indexer; profiles as bars of kernels by category."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.figure import Figure

from sglang_ic.bench.charts import COLORS
from sglang_ic.latency.report import METRICS
from sglang_ic.latency.trace import INDEXER, SHOWN

DPI = 130
ENGINE_COLORS = {"stock": COLORS[4], "fork": COLORS[0]}
# The indexer in colours, what it leaves over in greys.
INDEXER_COLORS = dict(zip(INDEXER, (COLORS[0], COLORS[5], COLORS[2], COLORS[3]), strict=True))
REST_GREYS = ("0.35", "0.5", "0.62", "0.74", "0.86")
CATEGORY_COLORS = INDEXER_COLORS | dict(zip(SHOWN[len(INDEXER) :], REST_GREYS, strict=True))
COLUMNS = 2


def png(document: dict[str, Any]) -> bytes:
    """The picture of a document that has rows or profiles."""
    buffer = io.BytesIO()
    draw(document).savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def draw(document: dict[str, Any]) -> Figure:
    """See `png`."""
    rows, profiles = document["rows"], document["profiles"]
    profiled = [
        [one for one in profiles if one["row"] == row]
        for row in dict.fromkeys(one["row"] for one in profiles)
    ]
    num_lines = -(-(len(rows) + len(profiled)) // COLUMNS)
    most = max([len(row["arms"]) for row in rows] + [len(found) for found in profiled])
    figure = Figure(figsize=(12, num_lines * (1.3 + 0.36 * most) + 0.6), layout="constrained")
    panels = iter(figure.subplots(num_lines, COLUMNS, squeeze=False).flat)
    handles: list[Any] = []
    for row, axis in zip(rows, panels, strict=False):
        _panel(axis, row)
    for found in profiled:
        handles = _stack(axis := next(panels), found)
    for axis in panels:
        axis.axis("off")
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=len(handles), frameon=False
        )
    if rows:
        shown = {one["engine"] for row in rows for one in row["arms"].values()}
        handles = [
            figure.axes[0].barh([0], [0], color=color, label=engine)
            for engine, color in ENGINE_COLORS.items()
            if engine in shown
        ]
        if any(row["no_indexer"] for row in rows):
            handles += figure.axes[0].plot([], [], "k--", lw=1, label="no indexer (linear fit)")
        figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), frameon=False)
    return figure


def _panel(axis: Any, row: dict[str, Any]) -> None:
    name, unit = METRICS[row["metric"]]
    for place, one in enumerate(row["arms"].values()):
        axis.barh(place, one["median"], 0.7, color=ENGINE_COLORS[one["engine"]], alpha=0.75)
        axis.plot(one["values"], [place] * one["num"], "k.", ms=4)
        text = f" {one['median']:.3g} {unit}, {one['speedup']:.2f}x"
        axis.text(one["max"], place, text, va="center", fontsize=8)
    for line in row["no_indexer"].values():
        if line["value"] > 0:
            axis.axvline(line["value"], color="k", ls="--", lw=1)
    arms = [(arm, one["num_full"]) for arm, one in row["arms"].items()]
    _finish(axis, arms, max(one["max"] for one in row["arms"].values()))
    axis.set_title(f"{row['row']}: {name}, {unit} ({row['part']})", fontsize=10, loc="left")


def _stack(axis: Any, profiles: list[dict[str, Any]]) -> list[Any]:
    """One bar of categories for each arm; returns what a legend shows."""
    places = range(len(profiles))
    ends = [0.0] * len(profiles)
    handles = []
    for name in SHOWN:
        times = [one["category_ms"][name] for one in profiles]
        color = CATEGORY_COLORS[name]
        handles.append(axis.barh(places, times, 0.7, left=ends, color=color, label=name))
        ends = [end + time for end, time in zip(ends, times, strict=True)]
    for place, end in enumerate(ends):
        axis.text(end, place, f" {end:,.0f} ms", va="center", fontsize=8)
    _finish(axis, [(one["arm"], one["num_full"]) for one in profiles], max(ends))
    title = f"{profiles[0]['row']}: kernel time, ms ({profiles[0]['part']})"
    axis.set_title(title, fontsize=10, loc="left")
    return handles


def _finish(axis: Any, arms: list[tuple[str, int]], longest: float) -> None:
    labels = [f"{arm} ({num_full} Full)" for arm, num_full in arms]
    axis.set_yticks(range(len(labels)), labels, fontsize=8)
    axis.set_xlim(0, 1.3 * longest)
    axis.invert_yaxis()
    axis.grid(axis="x", color="0.9")
    axis.set_axisbelow(True)
