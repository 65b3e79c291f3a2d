"""The report's sections as text, each from its part of the document."""

from sglang_ic.evaluate.report import interval, number, percent, table
from sglang_ic.search.selfcheck import Noise

NOT_MEASURED = "Not measured."


def yes(value: bool) -> str:
    return "yes" if value else "no"


def fidelity(found: dict | None) -> str:
    if found is None:
        return NOT_MEASURED
    rows = [
        ["share", "Full", "exhaustive", "fast", "difference +/- se", "agree", "random that fail"]
    ]
    rows[0].append("work")
    for row in found["rows"]:
        agree = "same" if row["same"] else yes(row["agrees"])
        rows.append(
            [
                row["share"],
                str(row["num_full"]),
                f"`{row['exhaustive']}`",
                f"`{row['fast']}`",
                f"{number(row['difference'], 5)} +/- {number(row['stderr'], 5)}",
                agree,
                f"{row['num_random_that_fail']} of {row['num_random']}",
                f"1/{1 / row['work']:.1f}",
            ]
        )
    work = ", ".join(
        f"{row['share']}: {row['layer_token_forwards']['fast']:,} of "
        f"{row['layer_token_forwards']['exhaustive']:,}"
        for row in found["rows"]
    )
    return "\n\n".join(
        [
            f"{found['data']}, {found['num_sequences']} sequences, {found['num_tokens']:,} tokens. "
            "The difference is fast minus exhaustive on that set; they agree within one standard "
            "error of the difference.",
            table(rows),
            f"Layer-token-forwards, both counted: {work}. Spearman correlation of the two orders: "
            f"{number(found['order_spearman'], 3)}.",
            Noise(**found["noise"]["fast"]).sentence,
        ]
    )


def held_out(found: dict | None) -> str:
    if found is None:
        return NOT_MEASURED
    rows = [["pattern", "dNLL [95%]", "accuracy % [95%]"]]
    random = [arm for arm in found["arms"] if arm["kind"] == "random"]
    for arm in (found["full"], *(arm for arm in found["arms"] if arm["kind"] != "random")):
        name = {"pattern": "searched", "reference": "all Full"}.get(arm["kind"], arm["kind"])
        rows.append([f"{name} `{arm['pattern']}`", _loss(arm), _accuracy(arm)])
    for arm in sorted(random, key=lambda x: x["dnll"]):
        rows.append([f"random `{arm['pattern']}`", _loss(arm), _accuracy(arm)])
    lines = []
    for against in ("uniform", "random"):
        compared = found[f"against_{against}"]
        if compared is None:
            continue
        dnll, right = compared["dnll"], compared["accuracy"]
        others = "uniform" if against == "uniform" else f"the median of {dnll['num_others']} random"
        lines.append(
            f"- Searched minus {others}: dNLL {number(dnll['difference'])} "
            f"[{number(dnll['ci95'][0])}, {number(dnll['ci95'][1])}], {dnll['verdict']}; accuracy "
            f"{interval(right['difference'], right['ci95'])} points, {right['verdict']}."
            + ("" if against == "uniform" else _range(dnll, right))
        )
    stopped = " The run was stopped early." if found["interrupted"] else ""
    return "\n\n".join(
        [
            f"{found['data']['source']}: {found['num_documents']} documents, "
            f"{found['num_tokens']:,} tokens. Intervals of 95% resample documents.{stopped}",
            "\n".join(lines),
            table(rows),
        ]
    )


def _loss(arm: dict) -> str:
    bounds = arm["dnll_ci95"]
    if arm["kind"] == "reference" or bounds is None:
        return number(arm["dnll"])
    return f"{number(arm['dnll'])} [{number(bounds[0])}, {number(bounds[1])}]"


def _accuracy(arm: dict) -> str:
    return interval(arm["accuracy"], arm["accuracy_ci95"])


def _range(dnll: dict, right: dict) -> str:
    low, high = right["range"]
    return (
        f" It beats {dnll['num_beaten']} of {dnll['num_others']} in dNLL (they range from "
        f"{number(dnll['range'][0])} to {number(dnll['range'][1])}) and {right['num_beaten']} in "
        f"accuracy ({percent(low)} to {percent(high)})."
    )


def stability(found: dict | None) -> str:
    if found is None:
        return NOT_MEASURED
    orders = [["set", "order of conversion"]]
    orders += [[name, ", ".join(map(str, order))] for name, order in found["orders"].items()]
    pairs = [["sets", "Spearman correlation"]]
    pairs += [
        [" and ".join(one["sets"]), number(one["correlation"], 3)] for one in found["spearman"]
    ]
    parts = [table(orders), table(pairs)]
    if found["cross_loss"]:
        names = list(found["orders"])
        rows = [["share", "found on", *(f"on {name}" for name in names), "pattern"]]
        cells = {
            (row["num_full"], row["found_on"], row["measured_on"]): row
            for row in found["cross_loss"]
        }
        for count in dict.fromkeys(row["num_full"] for row in found["cross_loss"]):
            for name in names:
                line = [cells[count, name, on] for on in names]
                rows.append([line[0]["share"], name, *map(_cell, line), f"`{line[0]['pattern']}`"])
        parts += [
            "Cross-loss: increase of a pattern on each set; in brackets its difference to the "
            "pattern found there, +/- the standard error of that difference.",
            table(rows),
        ]
    return "\n\n".join(parts)


def _cell(row: dict) -> str:
    if row["found_on"] == row["measured_on"]:
        return number(row["increase"])
    gap = f"{number(row['difference'])} +/- {number(row['difference_stderr'])}"
    return f"{number(row['increase'])} ({gap})"


def speed(found: dict | None, fidelity: dict | None) -> str:
    if found is None:
        return NOT_MEASURED
    exhaustive, fast = found["exhaustive"], found["fast"]
    tokens = found["num_sequences"] * found["tokens_per_sequence"]
    whole = f"{found['model']['num_layers'] * tokens:,}"
    keeping = fast["seconds_of_the_pass_that_keeps_states"]
    rows = [["candidate", "layer-tokens", "seconds"]]
    rows.append(["exhaustive, any layer", whole, f"{exhaustive['seconds_per_candidate']:.1f}"])
    rows += [
        [f"fast, layer {one['layer']}", f"{one['layer_tokens']:,}", f"{one['seconds']:.1f}"]
        for one in fast["candidates"]
    ]
    rows.append(["fast, the start, which keeps states", whole, f"{keeping:.1f}"])
    low, high = fast["projected_seconds"]
    lines = [
        f"- Exhaustive: {_hours(exhaustive['projected_seconds'])}, for "
        f"{exhaustive['num_candidates']:,} candidates and the start.",
        f"- Fast, bounds: {_hours(low)} if in every step only the highest layer runs on all "
        f"sequences, {_hours(high)} if all candidates do, at their seconds per layer-token.",
    ]
    if fidelity is not None:
        lines.append(_estimate(found, fidelity))
    noise = Noise(**found["noise"]).sentence
    if "dummy" in found["engine_arguments"]:
        noise += " The weights are dummies: trained ones may repeat themselves better or worse."
    return "\n\n".join(
        [
            f"{found['model']['num_layers']} layers to {found['num_full']} Full, "
            f"{found['num_sequences']} x {found['tokens_per_sequence']:,} random tokens; engine "
            f"arguments `{' '.join(found['engine_arguments']) or 'none'}`. Layers that passes can "
            f"begin with: {', '.join(map(str, fast['kept_layers'])) or 'none'}.",
            "Seconds are of one candidate on all sequences; the fast method drops many after a "
            "few. At most one layer was Shared: later in a search more skip their indexer, which "
            "was not timed.",
            table(rows),
            "Time of a whole search, projected:",
            "\n".join(lines),
            _memory(found["memory"]),
            noise,
        ]
    )


def _estimate(found: dict, fidelity: dict) -> str:
    """The fast method's time if it takes the share of the work that it took on another model."""
    exhaustive, fast, num_layers = found["exhaustive"], found["fast"], found["model"]["num_layers"]
    goal = found["num_full"] / num_layers
    like = min(fidelity["rows"], key=lambda row: abs(row["num_full"] / len(row["fast"]) - goal))
    layer_tokens = like["work"] * exhaustive["layer_token_forwards"]
    whole = num_layers * found["num_sequences"] * found["tokens_per_sequence"]
    start = fast["seconds_of_the_pass_that_keeps_states"] / whole
    return (
        f"- Fast, estimated: {_hours(layer_tokens * fast['seconds_per_layer_token'])} at the "
        f"candidates' seconds per layer-token, {_hours(layer_tokens * start)} at the start's. The "
        f"work is the share that it took above at {like['share']}, 1/{1 / like['work']:.1f}, "
        f"measured on {len(like['fast'])} layers and {fidelity['num_sequences']} sequences; here "
        f"are {num_layers} and {found['num_sequences']}."
    )


def _memory(found: dict) -> str:
    """What states take, and what the machine had in use without and with them."""
    lines = [
        f"Memory: at most {_gib(found['kept_bytes'])} for states, "
        f"{_gib(found['kept_bytes_on_host'])} of it on the host."
    ]
    for name, where in (("device_bytes", "device"), ("host_bytes", "host")):
        before, after = (found[when][name] for when in ("before", "after"))
        if before is not None:
            lines.append(
                f"In use on the {where}: {_gib(before)} before states were kept, "
                f"{_gib(after)} after."
            )
    return " ".join(lines)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _hours(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"
