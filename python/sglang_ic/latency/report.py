"""The report as Markdown, from the document alone. Pure."""

from __future__ import annotations

import shlex
from typing import Any

from sglang_ic.latency.kernel_tables import profiles
from sglang_ic.latency.tables import changes, head, line

METRICS = {"ttft_sec": ("TTFT", "s"), "itl_ms": ("inter-token latency", "ms")}
# U(-0.001, 0.001) is what upstream fills in; scores of the indexer are then all but equal.
DEGENERATE_MAX_ABS = 0.005


def markdown(document: dict[str, Any], chart: str | None) -> str:
    """The page.

    Args:
        chart: file name of the picture beside it, if there is one.
    """
    lines = [f"# {document['title']}", "", *_facts(document), ""]
    if chart:
        lines += [f"![{_pictured(document)}]({chart})", ""]
    for row in document["rows"]:
        lines += _row(row, document)
    if document["profiles"]:
        lines += profiles(document)
    if document["memory"]:
        lines += _memory(document)
    if document["left_out"]:
        lines += ["## Left out", ""]
        lines += [f"- {one['row']}, {one['arm']}: {one['reason']}" for one in document["left_out"]]
        lines.append("")
    lines += ["## Commands", ""]
    lines += [
        f"{number}. {run['run']}: `{run['command']}`"
        for number, run in enumerate(document["runs"], 1)
    ]
    lines += ["", "Servers, with the seconds that each start took:", "", *_servers(document)]
    return "\n".join(lines) + "\n"


def _pictured(document: dict[str, Any]) -> str:
    shown = ["medians and repeats of every arm"] if document["rows"] else []
    return " and ".join(shown + ["kernel time by category"] * bool(document["profiles"]))


def _facts(document: dict[str, Any]) -> list[str]:
    run = document["runs"][-1]
    hardware = run["hardware"]
    machine = "; ".join(hardware["gpus"]) or f"{hardware['cpu']}, {hardware['num_cores']} cores"
    lines = [f"{run['run'][:10]}, {machine}, Python {run['python']}. {weights_line(document)}"]
    versions = {server["engine"]: server["latency"]["versions"] for server in document["servers"]}
    for name, found in versions.items():
        lines.append(f"{name}: " + ", ".join(f"{key} {value}" for key, value in found.items()))
    if run["on_cpu"]:
        lines.append("Times of a CPU that others may use too: read the ratios alone.")
    if run["switch"]:
        text = (
            "Arms that differ by pattern alone share a server with indexers and index-K in every "
            "layer, whose roles are set between requests"
        )
        if document["profiles"] or any(row["metric"] == "itl_ms" for row in document["rows"]):
            text += (
                "; decode runs behind prompts that were computed with all layers Full, and on a "
                "GPU graphs are captured again for each arm"
            )
        lines.append(text + ".")
    if not run["together"]:
        lines.append("Servers ran one after another; arms that share one took turns.")
    return ["  \n".join(lines)]


def weights_line(document: dict[str, Any]) -> str:
    """Which kind of weights the servers held, as read from them."""
    run, found = document["runs"][-1], document["servers"][-1]["latency"]["weights"]
    measured = (
        f"in layer 0 a projection within {found['projection_max_abs']:.4f} (std "
        f"{found['projection_std']:.4f}) and norms of {found['norm_mean']:.3g}"
    )
    if run["weights"] == "checkpoint":
        return f"Weights of a checkpoint ({measured})."
    note = "realistic spread"
    if found["projection_max_abs"] < DEGENERATE_MAX_ABS:
        note = "all but zero, as upstream makes them: the indexer's scores are nearly equal"
    return f"Dummy weights: {measured}; {note}. They say nothing about quality."


def _row(row: dict[str, Any], document: dict[str, Any]) -> list[str]:
    name, unit = METRICS[row["metric"]]
    lines = [
        f"## {row['row']}: {name} ({row['part']})",
        "",
        f"| arm | Full layers | median {unit} | min-max {unit} | spread | repeats "
        f"| speed-up over {row['reference']} |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, one in row["arms"].items():
        lines.append(
            f"| {arm} | {one['num_full']} | {one['median']:.4g} | {one['min']:.4g}-"
            f"{one['max']:.4g} | {one['relative_spread']:.1%} | {one['num']} "
            f"| {one['speedup']:.3f} |"
        )
    for engine, one in row["no_indexer"].items():
        speedup = f"{one['speedup']:.3f}" if one["speedup"] else ""
        lines.append(
            f"| no indexer, line through {len(one['residuals'])} Full counts of {engine} | 0 "
            f"| {one['value']:.4g} | residual up to {one['worst_residual']:.2g} | | | {speedup} |"
        )
    lines.append("")
    lines += changes(row["arms"])
    lines += [_control(one) for one in row["controls"]]
    if row["num_runs"] > 1:
        lines.append(f"- Measured by {row['num_runs']} commands: see that it was one machine.")
    return [*lines, ""]


def _control(one: dict[str, Any]) -> str:
    text = (
        f"- Control, {'the same engine' if one['is_same_engine'] else 'the other engine'}: "
        f"{one['arm']} takes {one['ratio']:.3f}x the time of {one['over']} "
        f"({one['low']:.3f}-{one['high']:.3f} over repeats)"
    )
    if one["num_prompts_compared"]:
        text += (
            f"; both chose the same first token for {one['num_prompts_equal']} of "
            f"{one['num_prompts_compared']} prompts"
        )
    return text + "."


def _memory(document: dict[str, Any]) -> list[str]:
    keys = list(dict.fromkeys(k for one in document["memory"] for k in one if k.endswith("_bytes")))
    sizes = [key.removesuffix("_bytes").replace("_", " ") + ", GiB" for key in keys]
    lines = [
        "## Memory",
        "",
        *head("part", "command", "server", "KV dtype", "KV pool, tokens", *sizes),
    ]
    commands = [run["run"] for run in document["runs"]]
    for one in document["memory"]:
        server = one["server"] + (" (index-K everywhere)" if one["is_switched"] else "")
        bytes_ = [f"{one[key] / 2**30:.2f}" if key in one else "" for key in keys]
        cells = [one["part"], str(commands.index(one["run"]) + 1), server, one["kv_cache_dtype"]]
        lines.append(line([*cells, f"{one['kv_pool_tokens']:,}", *bytes_]))
    return [*lines, ""]


def _servers(document: dict[str, Any]) -> list[str]:
    """A line for each that differs from the others by more than its port."""
    arms = {run["run"]: run["arms"] for run in document["runs"]}
    starts: dict[str, list[str]] = {}
    for one in document["servers"]:
        words = list(one["command"])
        if "--port" in words:
            words[words.index("--port") + 1] = "PORT"
        own = arms[one["run"]][one["arms"][0]]["changes"]
        text = f"{one['name']}: `{shlex.join(words)}`" + (f" with `{own}`" if own else "")
        starts.setdefault(text, []).append(f"{one['start_sec']:.0f}")
    return [f"- {' and '.join(seconds)} s, {text}" for text, seconds in starts.items()]
