"""The report as one picture: losses, work, held-out documents, orders."""

from pathlib import Path

import matplotlib

from search_report.results import EXHAUSTIVE, FAST, Results

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
DPI = 130


def write(document: dict, found: Results, path: Path) -> None:
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(11, 7.5), layout="constrained")
        _losses(axes[0, 0], found)
        _work(axes[0, 1], document["fidelity"])
        _held_out(axes[1, 0], document["held_out"])
        _orders(axes[1, 1], document["stability"])
        figure.savefig(path, dpi=DPI)
        plt.close(figure)


def _absent(axis) -> None:
    axis.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axis.transAxes)
    axis.set(xticks=[], yticks=[])


def _losses(axis, found: Results) -> None:
    """Increase of the calibration loss by Full count, of both methods."""
    axis.set_title("calibration loss over all Full")
    styles = {EXHAUSTIVE: ("o", "tab:orange"), FAST[0]: (".", "tab:blue")}
    shown = [name for name in styles if name in found.searches]
    if not shown:
        return _absent(axis)
    for name in shown:
        search = found.searches[name]
        axis.errorbar(
            [int(count) for count in search["increase"]],
            list(search["increase"].values()),
            yerr=[error or 0 for error in search["increase_stderr"].values()],
            marker=styles[name][0],
            color=styles[name][1],
            mfc="none" if name == EXHAUSTIVE else None,
            capsize=2,
            label="exhaustive" if name == EXHAUSTIVE else "fast (bars: standard error)",
        )
    axis.set(xlabel="Full layers", ylabel="nats per token")
    axis.invert_xaxis()
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(frameon=False)


def _work(axis, fidelity: dict | None) -> None:
    axis.set_title("work of the fast method, in parts of the exhaustive one's")
    if fidelity is None:
        return _absent(axis)
    rows = fidelity["rows"]
    axis.bar([row["share"] for row in rows], [row["work"] for row in rows], color="tab:blue")
    for place, row in enumerate(rows):
        axis.text(place, row["work"], f"1/{1 / row['work']:.1f}", ha="center", va="bottom")
    axis.axhline(1 / 8, color="tab:red", linewidth=1, linestyle="--", label="target: 1/8")
    top = 1.3 * max(1 / 8, *(row["work"] for row in rows))  # room for the legend
    axis.set(xlabel="share of Full layers", ylabel="layer-token-forwards, counted", ylim=(0, top))
    axis.legend(frameon=False)


def _held_out(axis, held_out: dict | None) -> None:
    """Every arm in loss and accuracy; the searched one with its intervals."""
    axis.set_title("held-out documents")
    if held_out is None:
        return _absent(axis)
    for kind, marker, color, label in (
        ("random", "x", "0.6", "random"),
        ("uniform", "s", "tab:orange", "uniform"),
        ("pattern", "o", "tab:blue", "searched"),
    ):
        arms = [arm for arm in held_out["arms"] if arm["kind"] == kind]
        axis.errorbar(
            [arm["dnll"] for arm in arms],
            [100 * arm["accuracy"] for arm in arms],
            xerr=_bars(arms, "dnll", 1),
            yerr=_bars(arms, "accuracy", 100),
            fmt=marker,
            color=color,
            elinewidth=0.6,
            label=label,
        )
    full = held_out["full"]
    axis.plot(full["dnll"], 100 * full["accuracy"], "*", color="black", markersize=10)
    axis.annotate("all Full", (full["dnll"], 100 * full["accuracy"]), xytext=(8, -3),
                  textcoords="offset points")  # fmt: skip
    axis.set(xlabel="dNLL, nats per token (bars: 95%)", ylabel="answers right, %")
    axis.legend(frameon=False)


def _bars(arms: list[dict], name: str, factor: float) -> list[list[float]]:
    bounds = [arm[f"{name}_ci95"] or [arm[name], arm[name]] for arm in arms]
    return [
        [factor * (arm[name] - low) for arm, (low, _) in zip(arms, bounds, strict=True)],
        [factor * (high - arm[name]) for arm, (_, high) in zip(arms, bounds, strict=True)],
    ]


def _orders(axis, stability: dict | None) -> None:
    """The step in which each layer turned Shared, one line a calibration set."""
    axis.set_title("order of conversion by calibration set")
    if stability is None:
        return _absent(axis)
    sizes = range(4 * len(stability["orders"]), 0, -4)  # equal orders lie on one another
    for size, (name, order) in zip(sizes, stability["orders"].items(), strict=True):
        steps = {layer: step for step, layer in enumerate(order, start=1)}
        layers = sorted(steps)
        axis.plot(layers, [steps[layer] for layer in layers], marker="o", ms=size, label=name)
    axis.set(xlabel="layer", ylabel="step in which it turned Shared")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(frameon=False)
