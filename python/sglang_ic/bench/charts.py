"""Charts as PNG bytes, from the document (matplotlib, without a display)."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sglang_ic.bench.markdown import RATIOS

# Okabe and Ito: told apart with every common kind of colour vision.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DPI = 130


def charts(document: dict[str, Any]) -> dict[str, bytes]:
    """PNG by name: `speedup`, and for each scenario `<scenario>-latency`, `<scenario>-goodput`."""
    arms = [arm["name"] for arm in document["arms"]]
    colors = {arm: COLORS[i % len(COLORS)] for i, arm in enumerate(arms)}
    result = {}
    if any(point["ratios"] for point in document["points"]):
        result["speedup"] = _png(speedup(document, colors))
    for name in document["scenarios"]:
        points = [one for one in document["points"] if one["scenario"] == name and one["arms"]]
        if points:
            result[f"{name}-latency"] = _png(latency(document, points, colors))
        aimed = [one for one in points if one["objective"]]
        if aimed:
            result[f"{name}-goodput"] = _png(goodput(aimed, colors))
    return result


def speedup(document: dict[str, Any], colors: dict[str, str]) -> Figure:
    """Ratio and interval of every arm under every load; the line at 1 is the reference."""
    points = [point for point in document["points"] if point["ratios"]]
    arms = [arm for arm in colors if any(arm in point["ratios"] for point in points)]
    step = len(arms) + 1
    figure = Figure(figsize=(13, 1.6 + 0.21 * step * len(points)), layout="constrained")
    axes = figure.subplots(1, len(RATIOS), sharey=True)
    for axis, (key, title) in zip(axes, RATIOS, strict=True):
        for number, arm in enumerate(arms):
            for place, point in enumerate(points):
                entry = point["ratios"].get(arm, {}).get(key)
                if entry is None:
                    continue
                y = place * step + number
                if entry["low"] is not None:
                    axis.plot([entry["low"], entry["high"]], [y, y], color=colors[arm], lw=2)
                axis.plot(entry["ratio"], y, "o", color=colors[arm], ms=5)
        told = [one[key]["ratio"] for p in points for one in p["ratios"].values() if key in one]
        # By the ratios: one interval without end would press all others into a line.
        axis.set_xlim(0.8 * min([1, *told]), 1.25 * max([1, *told]))
        axis.axvline(1, color="0.4", lw=1, ls="--", zorder=0)
        axis.set_title(title, fontsize=10)
        axis.grid(axis="x", color="0.9")
    middle = (len(arms) - 1) / 2
    axes[0].set_yticks([place * step + middle for place in range(len(points))])
    axes[0].set_yticklabels([point["key"] for point in points], fontsize=8)
    axes[0].invert_yaxis()
    handles = [axes[0].plot([], [], "o-", color=colors[arm], label=arm)[0] for arm in arms]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(arms), frameon=False)
    figure.suptitle(f"Speed-up over {document['reference']}", x=0.01, ha="left")
    return figure


def latency(
    document: dict[str, Any], points: list[dict[str, Any]], colors: dict[str, str]
) -> Figure:
    """Share of requests within a time, TTFT and mean ITL, a row for each load."""
    figure = Figure(figsize=(11, 2.6 * len(points) + 0.5), layout="constrained")
    rows = figure.subplots(len(points), 2, squeeze=False)
    for axes, point in zip(rows, points, strict=True):
        for arm in point["arms"]:
            ttft, itl = _request_times(document, point["key"], arm)
            for axis, values in zip(axes, (ttft, itl), strict=True):
                if values:
                    axis.ecdf(values, color=colors[arm], label=arm, lw=1.6)
        for axis, name in zip(axes, ("TTFT, ms", "mean ITL of a request, ms"), strict=True):
            axis.set_xlabel(name, fontsize=9)
            axis.set_ylim(0, 1)
            axis.set_xlim(left=0)
            axis.grid(color="0.9")
        axes[0].set_ylabel("share of requests", fontsize=9)
        axes[0].set_title(point["label"], fontsize=10, loc="left")
    handles, labels = rows[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False)
    return figure


def goodput(points: list[dict[str, Any]], colors: dict[str, str]) -> Figure:
    """Share of requests that kept the objective, by arm and load."""
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    axis = figure.subplots()
    arms = [arm for arm in colors if any(arm in point["arms"] for point in points)]
    width = 0.8 / len(arms)
    for number, arm in enumerate(arms):
        at = [place for place, point in enumerate(points) if arm in point["arms"]]
        shares = [points[place]["arms"][arm]["goodput"]["share"] or 0 for place in at]
        left = np.array(at) - 0.4 + width * (number + 0.5)
        axis.bar(left, shares, width * 0.92, color=colors[arm], label=arm)
    axis.set_xticks(range(len(points)), [point["label"] for point in points], fontsize=8)
    axis.set_ylim(0, 1.02)
    axis.set_ylabel("share within the objective", fontsize=9)
    axis.grid(axis="y", color="0.9")
    figure.legend(loc="outside upper right", ncols=len(arms), frameon=False)
    return figure


def _request_times(document: dict[str, Any], key: str, arm: str) -> tuple[list[float], list[float]]:
    """TTFT and mean ITL in ms of every request of whole blocks that succeeded."""
    good = [
        request
        for block in document["blocks"]
        if block["point"] == key
        and block["arm"] == arm
        and len(block["requests"]) == block["num_planned"]
        for request in block["requests"]
        if request["error"] is None
    ]
    ttft = [request["ttft_sec"] * 1e3 for request in good]
    itl = [request["mean_itl_sec"] for request in good]
    return ttft, [1e3 * value for value in itl if value is not None]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
