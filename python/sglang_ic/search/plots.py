"""A search as pictures: loss by Full count, order of conversion, overlap of selections."""

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
DPI = 130
MARKERS = {"uniform": ("s", "tab:orange"), "similarity": ("^", "tab:green"), "random": ("x", "0.6")}


def write(document: dict, folder: Path) -> None:
    """Write what can be drawn, and remove what cannot: it would be of an earlier run."""
    drawings = {
        "loss.png": _loss(document),
        "order.png": _order(document),
        "overlap.png": _overlap(document),
    }
    for name, figure in drawings.items():
        if figure is None:
            (folder / name).unlink(missing_ok=True)
        else:
            figure.savefig(folder / name, dpi=DPI)
            plt.close(figure)


def _loss(document: dict):
    """Increase of the loss by number of Full layers, with the controls."""
    counts = [int(count) for count in document["increase"]]
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
        errors = [error or 0 for error in document["increase_stderr"].values()]
        axis.errorbar(
            counts,
            list(document["increase"].values()),
            yerr=errors,
            marker=".",
            capsize=2,
            color="tab:blue",
            label="searched (bars: standard error)",
            zorder=3,
        )
        for kind, (marker, color) in MARKERS.items():
            found = [control for control in document["controls"] if control["kind"] == kind]
            axis.plot(
                [control["num_full"] for control in found],
                [control["increase"] for control in found],
                marker,
                color=color,
                label=kind if found else None,
            )
        axis.axhline(0, color="0.8", linewidth=0.8, zorder=0)
        axis.set(
            xlabel=f"Full layers (of {document['num_layers']})",
            ylabel="increase of the loss, nats per token",
            title="calibration loss over the start pattern",
        )
        axis.invert_xaxis()
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(frameon=False)
    return figure


def _order(document: dict):
    """The step in which each layer turned Shared, as bars over the layers."""
    num_layers, order = document["num_layers"], document["order"]
    if not order:
        return None
    start = next(iter(document["patterns"].values()))
    goal = len(order)
    heights = [0 if start[x] == "S" else goal + 1 for x in range(num_layers)]
    for step, layer in enumerate(order, start=1):
        heights[layer] = step
    colors = ["tab:blue" if height > goal else "0.7" for height in heights]
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(max(6, num_layers / 6), 3.2), layout="constrained")
        axis.bar(range(num_layers), heights, color=colors)
        axis.set(
            xlabel="layer",
            ylabel="step in which it turned Shared",
            title="importance of layers: the later, the more it is needed; blue stays Full",
        )
        axis.set_xticks(range(0, num_layers, max(1, num_layers // 24)))
        axis.yaxis.get_major_locator().set_params(integer=True)
    return figure


def _overlap(document: dict):
    """Heatmap of the selections' overlap."""
    if document["overlap"] is None:
        return None
    matrix = np.array(document["overlap"])
    with plt.rc_context({"font.size": 9}):
        figure, axis = plt.subplots(figsize=(5.8, 4.8), layout="constrained")
        image = axis.imshow(matrix, vmin=0, vmax=1, cmap="viridis")
        axis.set(
            title="share of tokens that two layers both select", xlabel="layer", ylabel="layer"
        )
        step = max(1, len(matrix) // 16)
        axis.set_xticks(range(0, len(matrix), step))
        axis.set_yticks(range(0, len(matrix), step))
        figure.colorbar(image, ax=axis, shrink=0.85)
    return figure
