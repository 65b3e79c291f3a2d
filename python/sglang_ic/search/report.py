"""A search as a page to read: report.md."""

from statistics import median

from sglang_ic.evaluate.report import number, table
from sglang_ic.search.selfcheck import Noise


def markdown(document: dict) -> str:
    """The page."""
    model, data, settings = document["model"], document["data"], document["settings"]
    goal = min(map(int, document["patterns"]))
    parts = [
        f"# Layer search: {goal} Full of {document['num_layers']} layers",
        f"`{document['command']}`",
        _state(document),
        f"Model {model['path']} ({model['architecture']}, index_topk {model['index_topk']}, "
        f"fingerprint {model['fingerprint']}). Calibration data {data['source']}: "
        f"{data['num_sequences']} sequences, {data['num_tokens']:,} tokens (fingerprint "
        f"{data['fingerprint']}).",
        f"Method {settings['method']}. {work(document)} {document['seconds']:.0f} s on "
        f"{_hardware(document['hardware'])}{_since(settings)}.",
        Noise(**document["noise"]).sentence,
        "## Loss by number of Full layers",
        "Mean loss per token on the calibration set, nats. An increase is over the first row, "
        "paired by sequence, with its standard error; controls have as many Full layers.",
        curve(document),
        "These are the sequences on which the patterns were chosen: a searched pattern looks "
        "better here than on text it has not seen, a control does not. Judge it with "
        f"`python -m sglang_ic.evaluate --pattern pattern.json@{goal} --control uniform`.",
        "![loss](loss.png)",
        "## Order of conversion",
        ", ".join(map(str, document["order"])) or "nothing was converted yet",
        "![order](order.png)",
    ]
    if document["swaps"]:
        swaps = "; ".join(
            f"layer {swap['to_shared']} Shared and {swap['to_full']} Full: {swap['loss']:.5f}"
            for swap in document["swaps"]
        )
        parts += ["## Swaps after the search", f"Loss after each: {swaps}."]
    if document["overlap"] is not None:
        parts += [
            "## Overlap of selections",
            "Share of tokens that two layers both select under the start pattern.",
            "![overlap](overlap.png)",
        ]
    versions = ", ".join(f"{name} {value}" for name, value in document["versions"].items())
    return "\n\n".join([*parts, f"Versions: {versions}."]) + "\n"


def work(document: dict) -> str:
    """What the search took, against what the exhaustive method takes on the same data."""
    spent, whole = document["layer_token_forwards"], document["exhaustive_layer_token_forwards"]
    counted = f"{spent:,} layer-token-forwards were counted for the search"
    if document["settings"]["method"] == "exhaustive" or not document["complete"]:
        return f"{counted}."
    return f"{counted}, {spent / whole:.1%} of the {whole:,} that the exhaustive method takes."


def _since(settings: dict) -> str:
    return " since it was resumed" if settings["resumed"] else ""


def _state(document: dict) -> str:
    if document["complete"]:
        return "The search is complete."
    return "**The search is not complete**: add `--resume` to the command to go on."


def _hardware(hardware: dict) -> str:
    gpus = hardware["gpus"]
    return f"{len(gpus)} x {gpus[0]}" if gpus else f"{hardware['cpu']} ({hardware['num_cores']})"


def curve(document: dict) -> str:
    """The table of losses, also for the terminal."""
    kinds = list(dict.fromkeys(control["kind"] for control in document["controls"]))
    rows = [["Full", "loss", "increase", "+/- se", *kinds, "pattern"]]
    for count, text in document["patterns"].items():
        found = [x for x in document["controls"] if x["num_full"] == int(count)]
        rows.append(
            [
                count,
                number(document["loss"][count]),
                number(document["increase"][count]),
                number(document["increase_stderr"][count]),
                *(_controls([x["increase"] for x in found if x["kind"] == kind]) for kind in kinds),
                f"`{text}`",
            ]
        )
    return table(rows)


def _controls(increases: list[float]) -> str:
    """One increase, or the median of several with the smallest and the largest."""
    if len(increases) < 2:
        return number(increases[0]) if increases else "-"
    low, high = number(min(increases)), number(max(increases))
    return f"{number(median(increases))} [{low}, {high}]"
