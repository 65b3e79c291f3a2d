"""The training log as one picture: losses and answer accuracy over steps, stages marked."""

import json
from pathlib import Path

import matplotlib
from matplotlib import pyplot

matplotlib.use("Agg")

_SERIES = {
    "loss": "loss of all tokens, nats",
    "answer_loss": "loss of answers, nats",
    "indexer_kl": "indexer KL, nats",
    "answer_accuracy": "answer tokens right",
}


def draw(log: Path, picture: Path) -> None:
    """Read log.jsonl as the trainer writes it (a later row of a step replaces an earlier one)."""
    rows: dict[tuple[str, int], dict] = {}
    for line in log.read_text().splitlines():
        row = json.loads(line)
        rows[row["stage"], row["step"]] = row
    starts, steps, offset = {}, [], 0
    for stage in dict.fromkeys(stage for stage, _ in rows):
        starts[stage] = offset
        last = max(step for name, step in rows if name == stage)
        steps += [(offset + step, rows[name, step]) for name, step in rows if name == stage]
        offset += last
    figure, axes = pyplot.subplots(len(_SERIES), 1, figsize=(10, 9), sharex=True)
    for axis, (name, label) in zip(axes, _SERIES.items(), strict=True):
        points = [(step, row[name]) for step, row in steps if name in row]
        axis.plot(*zip(*points, strict=True), linewidth=0.8)
        axis.set_ylabel(label, fontsize=8)
        axis.grid(alpha=0.3)
        for stage, start in starts.items():
            axis.axvline(start, color="grey", linewidth=0.6)
            if axis is axes[0]:
                axis.text(start, axis.get_ylim()[1], stage, rotation=40, fontsize=7)
    axes[-1].set_xlabel("step")
    figure.savefig(picture, dpi=120, bbox_inches="tight")
    pyplot.close(figure)
