"""The results as pictures: overlap heatmap, accuracy by length, attention mass by layer."""

from pathlib import Path

import matplotlib
import numpy as np

from sglang_ic.evaluate.summary import ALL

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
DPI = 130


def write(document: dict, folder: Path) -> list[Path]:
    """Write what can be drawn; returns the files."""
    drawings = {
        "overlap.png": _overlap(document),
        "attention.png": _attention(document),
        "accuracy.png": _accuracy(document),
    }
    written = []
    for name, figure in drawings.items():
        if figure is not None:
            figure.savefig(folder / name, dpi=DPI)
            plt.close(figure)
            written.append(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)  # of an earlier run
    return written


def _overlap(document: dict):
    """Two heatmaps of the reference: overlap of sets, and attention mass found in them."""
    selections = document["selections"]
    if selections is None:
        return None
    overlap = np.array(selections["overlap"])
    mass = np.array(selections["mass"], dtype=float)  # None becomes NaN
    with plt.rc_context({"font.size": 9}):
        figure, axes = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
        titles = ("share of tokens that two layers both select", "attention mass found in the set")
        labels = (("layer", "layer"), ("layer that owns the set", "layer that attends"))
        for axis, matrix, title, (x, y) in zip(axes, (overlap, mass), titles, labels, strict=True):
            image = axis.imshow(matrix, vmin=0, vmax=1, cmap="viridis")
            axis.set(title=title, xlabel=x, ylabel=y)
            step = max(1, len(matrix) // 16)
            axis.set_xticks(range(0, len(matrix), step))
            axis.set_yticks(range(0, len(matrix), step))
            figure.colorbar(image, ax=axis, shrink=0.85)
            if len(matrix) <= 16:
                _write_cells(axis, matrix)
        figure.suptitle(
            f"reference {document['reference']}, index_topk {document['model']['index_topk']}, "
            f"{selections['num_rows']} query rows; two random sets would overlap by "
            f"{100 * selections['chance_overlap']:.1f}%"
        )
    return figure


def _write_cells(axis, matrix: np.ndarray) -> None:
    for (row, column), value in np.ndenumerate(matrix):
        if not np.isnan(value):
            color = "black" if value > 0.6 else "white"
            text = f"{100 * value:.0f}"
            axis.text(column, row, text, ha="center", va="center", color=color, fontsize=6)


def _arm_styles(document: dict) -> dict[str, dict]:
    """Colours for the arms that were asked for, grey for random ones, black for the reference."""
    colors = iter(plt.get_cmap("tab10").colors * 9)
    styles = {}
    for arm in document["arms"]:
        if arm["kind"] == "reference":
            styles[arm["name"]] = {"color": "black", "zorder": 3}
        elif arm["kind"] == "random":
            styles[arm["name"]] = {"color": "0.65", "linestyle": ":", "zorder": 1}
        else:
            style = "--" if arm["kind"] == "uniform" else "-"
            styles[arm["name"]] = {"color": next(colors), "linestyle": style, "zorder": 2}
    return styles


def _attention(document: dict):
    """Attention mass by layer: in the own set, and in the set that each arm reuses."""
    arms = [arm for arm in document["arms"] if arm["attention"] and "S" in arm["pattern"]]
    if not arms:
        return None
    styles = _arm_styles(document)
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(9, 4), layout="constrained")
        own = [np.nan if x is None else x for x in arms[0]["attention"]["own_set"]]
        layers = range(len(own))
        axis.plot(layers, own, color="black", marker=".", label="own set", zorder=3)
        for arm in arms:
            reused = arm["attention"]["reused_set"]
            axis.plot(layers, reused, marker=".", label=arm["name"], **styles[arm["name"]])
        axis.set(
            xlabel="layer",
            ylabel="share of attention mass",
            title=f"attention mass in reused sets (reference {document['reference']})",
        )
        axis.set_ylim(0, min(1.02, 1.2 * axis.get_ylim()[1]))
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def _accuracy(document: dict):
    """A panel per task, a line per arm; bars are 95% intervals."""
    rows = document["arms"][0]["accuracy"]
    tasks = [ALL, *sorted({row["task"] for row in rows} - {ALL})]
    lengths = sorted({row["length"] for row in rows if row["length"] is not None})
    if not lengths:
        return None
    styles = _arm_styles(document)
    columns = min(len(tasks), 4)
    num_rows = -(-len(tasks) // columns)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            num_rows,
            columns,
            figsize=(3.2 * columns + 1.5, 2.8 * num_rows),
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for axis, task in zip(axes.flat, tasks, strict=False):
            for number, arm in enumerate(document["arms"]):
                _accuracy_line(axis, arm, task, lengths, number, styles[arm["name"]])
            axis.set_title("all tasks" if task == ALL else task)
            axis.set_xticks(range(len(lengths)), map(str, lengths))
            axis.set_ylim(-0.03, 1.03)
            axis.grid(axis="y", alpha=0.3)
        for axis in axes.flat[len(tasks) :]:
            axis.set_visible(False)
        for axis in axes[:, 0]:
            axis.set_ylabel("accuracy")
        figure.supxlabel("context length, tokens", fontsize=9)
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", frameon=False)
    return figure


def _accuracy_line(axis, arm: dict, task: str, lengths: list[int], number: int, style: dict):
    found = {row["length"]: row for row in arm["accuracy"] if row["task"] == task}
    shown = [length for length in lengths if length in found]
    values = np.array([found[length]["accuracy"] for length in shown])
    bounds = [found[length]["ci95"] for length in shown]
    # Arms side by side, or their bars would hide each other.
    at = np.array([lengths.index(length) for length in shown]) + 0.03 * number
    errors = None
    if arm["kind"] != "random" and all(bound is not None for bound in bounds):
        low, high = np.array(bounds).T if bounds else (values, values)
        errors = [np.maximum(values - low, 0), np.maximum(high - values, 0)]
    axis.errorbar(at, values, yerr=errors, marker=".", capsize=2, label=arm["name"], **style)
