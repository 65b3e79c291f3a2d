"""The results as text: a table for the terminal, and a page."""

from collections.abc import Sequence

from sglang_ic.evaluate.summary import ALL

KL_NOTE = (
    "KL is a lower bound on KL(reference || arm) per token, from the true token and the {num_top} "
    "best tokens of both; what they leave open (at most {unresolved} of the reference's "
    "probability in the mean of an arm) is taken in the arm's favour."
)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a Markdown table that also reads well in a terminal; the first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        f"| {' | '.join(_pad(cell, widths[i], i) for i, cell in enumerate(row))} |" for row in rows
    ]
    rule = "|" + "|".join(
        "-" * (width + 1) + ("-" if i == 0 else ":") for i, width in enumerate(widths)
    )
    return "\n".join([lines[0], rule + "|", *lines[1:]])


def _pad(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column == 0 else cell.rjust(width)


def number(value: float | None, digits: int = 4) -> str:
    if value is None:
        return "-"
    if value and abs(value) < 10**-digits:
        return f"{value:.1e}"
    return f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def interval(value: float, bounds: Sequence[float] | None) -> str:
    """A rate with its interval, in percent."""
    if bounds is None:
        return percent(value)
    return f"{percent(value)} [{percent(bounds[0])}, {percent(bounds[1])}]"


def loss_table(document: dict) -> str:
    head = ["pattern", "Full", "dNLL", "+/- se", "KL mean", "median", "99.9%", "same top-1 %"]
    rows = [[*head, "accuracy %", "difference"]]
    for arm in document["arms"]:
        overall = arm["overall"]
        total = next((row for row in arm["accuracy"] if row["length"] is None), None)
        compared = total if arm["name"] != document["reference"] else None
        compared = total and arm["kind"] != "reference"
        rows.append(
            [
                arm["name"],
                _num_full(arm),
                number(overall["dnll"]),
                number(overall["dnll_se"]),
                number(overall["kl_mean"]),
                number(overall["kl_median"]),
                number(overall["kl_p99_9"]),
                percent(overall["same_top1"]),
                interval(total["accuracy"], total["ci95"]) if total else "-",
                interval(total["difference"], total["difference_ci95"]) if compared else "-",
            ]
        )
    return table(rows)


def _num_full(arm: dict) -> str:
    """Full layers of an arm, and its candidate layers (C), which are approximate."""
    candidates = f" + {arm['num_candidate']} C" if arm["num_candidate"] else ""
    return f"{arm['num_full'] or '-'}{candidates}"


def accuracy_table(document: dict, task: str) -> str | None:
    """Accuracy of one task, arms by lengths; None when no sample has it."""
    lengths = sorted(
        {
            row["length"]
            for arm in document["arms"]
            for row in arm["accuracy"]
            if row["task"] == task and row["length"] is not None
        }
    )
    if not lengths:
        return None
    rows = [["pattern", *map(str, lengths)]]
    for arm in document["arms"]:
        found = {row["length"]: row for row in arm["accuracy"] if row["task"] == task}
        rows.append(
            [
                arm["name"],
                *(
                    interval(found[n]["accuracy"], found[n]["ci95"]) if n in found else "-"
                    for n in lengths
                ),
            ]
        )
    return table(rows)


def attention_table(document: dict) -> str | None:
    """Attention mass of the reused sets, averaged over the Shared layers of each arm."""
    rows = [["pattern", "own set", "reused set", "in use", "lowest layer"]]
    for arm in document["arms"]:
        shared = [i for i, letter in enumerate(arm["pattern"] or "") if letter == "S"]
        if not arm["attention"] or not shared:
            continue
        own, reused, in_use = (
            [arm["attention"][name][layer] for layer in shared]
            for name in ("own_set", "reused_set", "set_in_use")
        )
        lowest = min(range(len(shared)), key=lambda i: reused[i])
        means = [percent(sum(v) / len(v)) if None not in v else "-" for v in (own, reused, in_use)]
        rows.append([arm["name"], *means, f"{shared[lowest]}: {percent(reused[lowest])}"])
    return table(rows) if len(rows) > 1 else None


def terminal(document: dict) -> str:
    """What is printed at the end."""
    parts = [_header(document), loss_table(document)]
    by_length = accuracy_table(document, ALL)
    if by_length:
        parts += ["Accuracy % by length, all tasks", by_length]
    attention = attention_table(document)
    if attention:
        parts += ["Attention mass % held, mean over Shared layers", attention]
    if document["not_probed"]:
        parts.append(f"Overlap and attention mass: not measured ({document['not_probed']}).")
    return "\n\n".join(parts)


def _header(document: dict) -> str:
    data, model = document["data"], document["model"]
    lengths = ", ".join(f"{count} x {length}" for length, count in data["num_samples"].items())
    stopped = "; stopped before the end" if document["interrupted"] else ""
    return (
        f"{model['path']} (index_topk {model['index_topk']}), data {data['source']}: {lengths} "
        f"tokens{stopped}. Reference: {document['reference']}. dNLL in nats per token, paired; "
        "intervals of 95% resample documents."
    )


def markdown(document: dict) -> str:
    """The page."""
    unresolved = max(arm["overall"]["kl_unresolved_mass"] for arm in document["arms"])
    hardware = ", ".join(document["hardware"]["gpus"]) or document["hardware"]["cpu"]
    software = ", ".join(f"{k} {v}" for k, v in document["software"].items() if v)
    parts = [
        "# What patterns cost",
        _header(document),
        f"`{document['command']}`",
        f"{hardware}, {document['hardware']['num_cores']} cores; {software}; "
        f"{document['seconds']:.0f} s.",
        "## Losses",
        loss_table(document),
        KL_NOTE.format(num_top=document["settings"]["num_top"], unresolved=f"{unresolved:.2%}"),
        table(
            [["pattern", "layers", "seed"]]
            + [
                [arm["name"], arm["pattern"] or "not told by its server", _seed(arm)]
                for arm in document["arms"]
            ]
        ),
    ]
    tasks = sorted({row["task"] for row in document["arms"][0]["accuracy"]} - {ALL})
    if tasks:
        parts += [
            "## Retrieval accuracy",
            "Share of answers, in %, of which every token is on top given the true text before it: "
            "greedy generation's exact match. Intervals resample documents; where all documents "
            "agree, they are what that many documents can exclude.",
            "![accuracy](accuracy.png)",
        ]
        for task in [ALL, *tasks]:
            title = "All tasks" if task == ALL else f"`{task}`"
            parts += [f"### {title}", accuracy_table(document, task)]
    parts.append("## Selections")
    if document["not_probed"]:
        parts.append(f"Not measured: {document['not_probed']}.")
    else:
        probed = document["selections"]
        parts += [
            f"{probed['num_rows']} query rows of {probed['num_documents']} documents, in the "
            "reference's passes; `in use` in the arm's own. Two random sets would overlap by "
            f"{percent(probed['chance_overlap'])}%.",
            "![overlap](overlap.png)",
            "![attention mass](attention.png)",
        ]
        attention = attention_table(document)
        if attention:
            parts += ["Attention mass held, in %, mean over Shared layers:", attention]
    return "\n\n".join(parts) + "\n"


def _seed(arm: dict) -> str:
    return "-" if arm["seed"] is None else str(arm["seed"])
