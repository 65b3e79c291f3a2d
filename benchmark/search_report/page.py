"""The report as a page, from the document; what was to be reached comes first, reached or not."""

from search_report import sections
from search_report.sections import NOT_MEASURED, yes
from sglang_ic.evaluate.report import table

REACHED = {"better": "yes", "worse": "no: it is worse", "not told apart": "no: not told apart"}


def markdown(document: dict) -> str:
    parts = [
        "# Layer search: the fast method, held-out documents, stability, speed",
        "Made by `python -m search_report` from the results of the commands at the end. Losses are "
        "nats per token, paired by sequence; an increase is over all Full.",
        verdicts(document),
        "![results](search.png)",
        "## Fast against exhaustive",
        sections.fidelity(document["fidelity"]),
        "## Held-out documents",
        sections.held_out(document["held_out"]),
        "## Stability over calibration sets",
        sections.stability(document["stability"]),
        "## Speed at the shape of a large model",
        sections.speed(document["speed"], document["fidelity"]),
        "## Commands, hardware, versions",
        sources(document["sources"]),
    ]
    return "\n\n".join(parts) + "\n"


def verdicts(document: dict) -> str:
    """What was to be reached, and whether it was: said first, whatever it is."""
    rows = [["aim", "reached"]]
    found = document["fidelity"]
    if found is not None:
        tokens = f"{found['num_tokens']:,} tokens"
        sums = [sum(row[f"num_random{end}"] for row in found["rows"]) for end in ("_that_fail", "")]
        failed = f"{sums[0]} of {sums[1]}"
        rows += [
            ["fast equals exhaustive, or within one standard error", yes(found["same_answer"])],
            ["random patterns fail the same test", f"{yes(found['random_fails'])} ({failed})"],
            ["fast takes at most 1/8 of the work", yes(found["work_within_target"])],
            [
                "at least 200,000 calibration tokens",
                f"{yes(found['enough_tokens'])} ({tokens})",
            ],
        ]
    held = document["held_out"]
    for against in ("uniform", "random"):
        for name in ("dnll", "accuracy"):
            compared = held and held[f"against_{against}"]
            if compared:
                other = "the median of random" if against == "random" else "uniform"
                measure = "dNLL" if name == "dnll" else "retrieval accuracy"
                reached = REACHED[compared[name]["verdict"]]
                rows.append([f"searched beats {other} in {measure}, held out", reached])
    return table(rows) if len(rows) > 1 else NOT_MEASURED


def sources(found: list[dict]) -> str:
    lines = []
    for one in found:
        gpus = one["hardware"]["gpus"]
        where = f"{len(gpus)} x {gpus[0]}" if gpus else one["hardware"]["cpu"]
        versions = ", ".join(f"{name} {value}" for name, value in one["versions"].items() if value)
        seconds = "" if one["seconds"] is None else f", {one['seconds']:.0f} s"
        lines.append(f"- `{one['command']}`: {where}{seconds}; {versions}")
    return "\n".join(lines)
