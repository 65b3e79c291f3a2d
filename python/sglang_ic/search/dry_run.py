"""The plan of a search in words: how much work, how long, how much memory."""

from sglang_ic.search import plan
from sglang_ic.search.constraints import convert
from sglang_ic.search.engine import EngineObjective
from sglang_ic.search.setup import Setup

GIB = 1 << 30


def describe(setup: Setup, objective: EngineObjective, method: str) -> str:
    """Two passes over the longest sequence are run; the second one is timed."""
    constraints, lengths = setup.constraints, setup.lengths
    start = constraints.start
    longest = max(range(len(lengths)), key=lambda at: lengths[at])
    objective.loss(start.text, longest)  # the first pass sets things up
    before = objective.seconds
    lowest = constraints.candidates(start.text)[0]
    _, layer_tokens = objective.loss(convert(start.text, lowest), longest)
    rate = layer_tokens / (objective.seconds - before)
    whole = plan.exhaustive_cost(constraints, sum(lengths))
    lines = [
        f"model       {setup.model['path']}: {start.num_layers} layers, "
        f"index_topk {setup.model['index_topk']}",
        f"data        {len(lengths)} sequences, {sum(lengths):,} tokens, longest {max(lengths):,}",
        f"search      {start.num_full} -> {constraints.num_full} Full layers, "
        f"{constraints.num_steps} steps, {whole.num_evaluations} candidates in all",
        f"speed       {rate:,.0f} layer-tokens/s, measured on the longest sequence",
        f"exhaustive  {whole.at_most:.3g} layer-token-forwards, {_time(whole.at_most / rate)}",
    ]
    if method == "fast":
        kept = objective.kept_layers
        fast = plan.fast_cost(
            constraints, lengths, lambda layer: max((x for x in kept if x <= layer), default=0)
        )
        lines += [
            f"fast        {fast.at_least:.3g} to {fast.at_most:.3g} layer-token-forwards, "
            f"{_time(fast.at_least / rate)} to {_time(fast.at_most / rate)}",
            f"memory      {objective.kept_bytes / GIB:.2f} GiB per rank for states that "
            f"{len(kept)} layers start from",
        ]
    return "\n".join(lines)


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
