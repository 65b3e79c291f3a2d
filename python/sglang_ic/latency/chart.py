"""Every row as a panel: medians as bars, repeats as points, no indexer as a line."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.figure import Figure

from sglang_ic.bench.charts import COLORS
from sglang_ic.latency.report import METRICS

DPI = 130
ENGINE_COLORS = {"stock": COLORS[4], "fork": COLORS[0]}
COLUMNS = 2


def png(document: dict[str, Any]) -> bytes:
    """The picture of a document that has rows."""
    rows = document["rows"]
    num_lines = -(-len(rows) // COLUMNS)
    most = max(len(row["arms"]) for row in rows)
    figure = Figure(figsize=(12, num_lines * (1.3 + 0.36 * most) + 0.4), layout="constrained")
    panels = figure.subplots(num_lines, COLUMNS, squeeze=False).flat
    for axis, row in zip(panels, rows, strict=False):
        _panel(axis, row)
    for axis in list(panels):
        axis.axis("off")
    handles = [
        figure.axes[0].barh([0], [0], color=color, label=engine)
        for engine, color in ENGINE_COLORS.items()
    ]
    handles += figure.axes[0].plot([], [], "k--", lw=1, label="no indexer (linear fit)")
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


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
    labels = [f"{arm} ({one['num_full']} Full)" for arm, one in row["arms"].items()]
    axis.set_yticks(range(len(labels)), labels, fontsize=8)
    axis.set_xlim(0, 1.3 * max(one["max"] for one in row["arms"].values()))
    axis.invert_yaxis()
    axis.set_title(f"{row['row']}: {name}, {unit} ({row['part']})", fontsize=10, loc="left")
    axis.grid(axis="x", color="0.9")
    axis.set_axisbelow(True)
