"""Seconds per candidate and memory of a search, on random tokens: `python -m search_report.speed`.

For a model's shape on a GPU, weights may be dummies (`-- --load-format dummy`): what is measured is
time, never a loss. A candidate of the exhaustive method is a whole pass over every sequence. One of
the fast method begins at its layer; a few layers are timed, and the whole search is projected from
their seconds per layer-token and the counts that bound it.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import psutil

from sglang_ic import command_line
from sglang_ic.bench.document import shown
from sglang_ic.checkpoint import read_config_json
from sglang_ic.command_line import count, masked, refuse, split_server_arguments
from sglang_ic.evaluate import environment
from sglang_ic.evaluate.in_process import InProcess
from sglang_ic.evaluate.model_facts import model_facts
from sglang_ic.evaluate.wire import EngineError
from sglang_ic.pattern import LayerPattern
from sglang_ic.search import plan, selfcheck
from sglang_ic.search.constraints import Constraints, convert
from sglang_ic.search.engine import EngineObjective

SCHEMA_VERSION = 1
GIB = 1 << 30
FIRST_TOKEN = 10  # below it are special ones


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m search_report.speed",
        description="Time candidates of a layer search on random tokens. What follows a lone -- "
        "goes to SGLang's engine.",
        allow_abbrev=False,
    )
    add = made.add_argument
    shape = Path(__file__).resolve().parents[1] / "latency" / "30b-a3b"
    add("--model-path", default=str(shape), help="default: a 30B DSA shape without weights")
    add("--sequences", type=count, default=32)
    add("--tokens", type=count, default=16384, help="of each sequence (default: %(default)s)")
    add("--full-layers", type=count, default=12, help="the search's goal (default: %(default)s)")
    add("--candidates", type=count, default=4, help="layers to time (default: %(default)s)")
    add("--cache-gib", type=float, help="as of the search")
    add("--output", type=Path, required=True, metavar="FILE")
    return made


def run(args: argparse.Namespace, server_argv: list[str], command: str) -> dict:
    facts = model_facts(args.model_path, server_argv)
    start = LayerPattern.full(facts.num_layers).text
    rules = Constraints.make(LayerPattern(start), args.full_layers, (), 1)
    vocabulary = read_config_json(args.model_path)["vocab_size"]
    generator = random.Random(0)
    sequences = [
        [generator.randrange(FIRST_TOKEN, vocabulary) for _ in range(args.tokens)]
        for _ in range(args.sequences)
    ]
    started = time.time()
    engine = InProcess(facts, server_argv, args.output.with_suffix(".log"))
    try:
        whole = EngineObjective(engine, sequences, ())
        whole.loss(start, 0)  # the first pass sets things up
        exhaustive = _timed(whole, start)
        before = memory()
        limit = None if args.cache_gib is None else int(args.cache_gib * GIB)
        host = psutil.virtual_memory().available // 2
        fast = EngineObjective(engine, sequences, rules.candidates(start), limit, host)
        noise = selfcheck.measure(fast, rules)
        fast.rebase(start)
        base = _timed(fast, start)
        layers = spread(rules.candidates(start), args.candidates)
        timed = [{"layer": layer, **_timed(fast, convert(start, layer))} for layer in layers]
        after = memory()
    finally:
        engine.close()
    lengths = [args.tokens] * args.sequences
    document = {
        "schema_version": SCHEMA_VERSION,
        "command": shown(command),
        "seconds": time.time() - started,
        "model": {"path": shown(args.model_path), "num_layers": facts.num_layers},
        "num_full": args.full_layers,
        "num_sequences": args.sequences,
        "tokens_per_sequence": args.tokens,
        **project(rules, lengths, exhaustive, base, timed, fast.kept_layers),
        "memory": {
            "kept_bytes": fast.kept_bytes,
            "kept_bytes_on_host": fast.host_bytes,
            "before": before,
            "after": after,
        },
        "noise": asdict(noise),
        "engine_arguments": [shown(word) for word in masked(server_argv)],
        "versions": environment.versions(),
        "hardware": environment.hardware(),
    }
    args.output.write_text(json.dumps(document, indent=1) + "\n")
    return document


def project(
    rules: Constraints,
    lengths: list[int],
    exhaustive: dict,
    base: dict,
    timed: list[dict],
    kept_layers: Sequence[int],
) -> dict:
    """What a whole search would take, from what candidates took.

    Args:
        exhaustive, base, timed: `seconds` and `layer_tokens` of a whole candidate, of the pass
            that keeps states, and of candidates that begin with them.
    """
    whole = plan.exhaustive_cost(rules, sum(lengths))
    bounds = plan.fast_cost(
        rules, lengths, lambda layer: max((x for x in kept_layers if x <= layer), default=0)
    )
    rate = sum(one["seconds"] for one in timed) / sum(one["layer_tokens"] for one in timed)
    return {
        "exhaustive": {
            "seconds_per_candidate": exhaustive["seconds"],
            "num_candidates": whole.num_evaluations,
            "layer_token_forwards": whole.at_most,
            "projected_seconds": (whole.num_evaluations + 1) * exhaustive["seconds"],
        },
        "fast": {
            "kept_layers": list(kept_layers),
            "seconds_of_the_pass_that_keeps_states": base["seconds"],
            "candidates": timed,
            "seconds_per_layer_token": rate,
            "layer_token_forwards": [bounds.at_least, bounds.at_most],
            "projected_seconds": [rate * bounds.at_least, rate * bounds.at_most],
        },
    }


def spread(candidates: Sequence[int], wanted: int) -> list[int]:
    """So many of the candidates, evenly over the layers, the highest one among them."""
    wanted = min(wanted, len(candidates))
    return [candidates[(i + 1) * len(candidates) // wanted - 1] for i in range(wanted)]


def _timed(objective: EngineObjective, pattern: str) -> dict:
    """Seconds and layer-token-forwards of one pattern on every sequence."""
    started, layer_tokens = time.perf_counter(), 0
    for sequence in range(len(objective.weights)):
        layer_tokens += objective.loss(pattern, sequence)[1]
    return {"seconds": time.perf_counter() - started, "layer_tokens": layer_tokens}


def memory() -> dict:
    """Bytes in use on this machine; the device's are those of all processes."""
    import torch

    device = None
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        device = total - free
    return {"device_bytes": device, "host_bytes": psutil.virtual_memory().used}


def main(argv: Sequence[str]) -> int:
    own, server_argv = split_server_arguments(list(argv))
    made = parser()
    made.error = refuse
    try:
        command = command_line.command("search_report.speed", argv)
        document = run(made.parse_args(own), server_argv, command)
    except (ValueError, EngineError, OSError) as error:
        refuse(" ".join(str(error).split()))
    print(json.dumps({name: document[name] for name in ("exhaustive", "fast", "memory")}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
