"""`python -m sglang_ic.search.losses`: what given patterns lose on given data, and nothing else.

One engine, every pattern on every sequence of every data set, paired by sequence: how a pattern
found on one set does on another, and how controls do on all of them. No probe, no distributions;
`python -m sglang_ic.evaluate` has those.

losses.json: {"data": [{"source", "weights", ...}], "patterns": [{"names", "kind", "pattern"}],
"losses": {source: {pattern: [Q] sums of nats}}, "noise", ...}.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sglang_ic.command_line import (
    EXIT_INTERRUPTED,
    command,
    count,
    counts,
    refuse,
    split_server_arguments,
)
from sglang_ic.evaluate import environment, suites
from sglang_ic.evaluate.documents import DataError
from sglang_ic.evaluate.in_process import InProcess
from sglang_ic.evaluate.model_facts import ModelFacts, model_facts
from sglang_ic.evaluate.wire import EngineError
from sglang_ic.pattern import LayerPattern
from sglang_ic.search import fingerprint, loss_tables, selfcheck
from sglang_ic.search.constraints import Constraints
from sglang_ic.search.engine import EngineObjective
from sglang_ic.search.journal import Journal, Journaled
from sglang_ic.search.objective import LossTable
from sglang_ic.search.setup import checkpoint_folder
from sglang_ic.server.arguments import value_of, with_model

SCHEMA_VERSION = 1
LOSSES, JOURNAL, LOG = "losses.json", "journal.jsonl", "engine.log"
LOG_INTERVAL_SEC = 30  # between progress lines when nobody watches


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m sglang_ic.search.losses",
        description="Losses of patterns on data sets, sequence by sequence, through one engine. "
        "All Full is measured first. What follows a lone -- goes to SGLang's engine.",
        allow_abbrev=False,
    )
    add = made.add_argument
    add("--model-path", metavar="MODEL", help="a DSA checkpoint (default: the bundled model)")
    add("--data", action="append", required=True, help="as of the search; repeatable")
    add("--context-lengths", type=counts, metavar="N[,N...]", help="tokens, as of the search")
    add("--documents", type=count, metavar="N", help="sequences of each length")
    add(
        "--pattern",
        action="append",
        default=[],
        help="what to measure, as --index-cache-pattern takes it; repeatable",
    )
    add(
        "--control",
        action="append",
        default=[],
        metavar="uniform|random:N",
        help="also evenly spread, or N random, Full layers, as many as each pattern has",
    )
    add("--output", type=Path, required=True, metavar="DIR")
    add("--resume", action="store_true", help="go on with the losses in the output folder")
    return made


def run(args: argparse.Namespace, server_argv: list[str], command: str) -> None:
    """Check everything, then measure and write.

    Raises:
        ValueError, OSError, EngineError: bad input, or an engine that failed.
        KeyboardInterrupt: Ctrl-C; what was measured is in the journal.
    """
    started = time.time()
    path = args.model_path or value_of(with_model([]), "--model-path")
    facts = model_facts(path, server_argv)
    if facts.own_pattern is not None:
        raise DataError(f"{path!r} ships trained sharing: its pattern cannot be changed")
    patterns = loss_tables.named_patterns(args.pattern, args.control, facts.num_layers)
    if len(set(args.data)) < len(args.data):
        raise DataError("a --data is given twice: keep one")
    encode = suites.tokenizer_encoder(path)
    data, sequences = [], []
    for source in args.data:
        asked = suites.DataRequest(source, args.context_lengths, args.documents)
        samples = suites.gather(asked, facts.index_topk, facts.context_length, encode)
        tokens = [sample.input_ids for sample in samples]
        data.append(
            {
                "source": source,
                "num_tokens": sum(map(len, tokens)),
                "weights": [len(ids) - 1 for ids in tokens],
                "fingerprint": fingerprint.of_tokens(tokens),
            }
        )
        sequences += tokens
    model = {"path": path, "fingerprint": fingerprint.of_model(checkpoint_folder(path))}
    header = {
        "model": model["fingerprint"],
        "data": [one["fingerprint"] for one in data],
        "engine_arguments": server_argv,
    }
    args.output.mkdir(parents=True, exist_ok=True)
    journal = Journal(args.output / JOURNAL, header, args.resume)
    try:
        losses, noise = _measure(facts, server_argv, args.output, sequences, patterns, journal)
    finally:
        journal.close()
    document = {
        "schema_version": SCHEMA_VERSION,
        "command": command,
        "seconds": time.time() - started,
        "model": model,
        "data": data,
        "patterns": patterns,
        "losses": loss_tables.split(losses, data),
        "noise": noise,
        "engine_arguments": server_argv,
        "versions": environment.versions(),
        "hardware": environment.hardware(),
    }
    scratch = args.output / f".{LOSSES}"
    scratch.write_text(json.dumps(document) + "\n")
    os.replace(scratch, args.output / LOSSES)
    print(loss_tables.terminal(document))


def _measure(
    facts: ModelFacts,
    server_argv: list[str],
    folder: Path,
    sequences: list[Sequence[int]],
    patterns: list[dict],
    journal: Journal,
) -> tuple[dict[str, np.ndarray], dict]:
    """Losses over all sequences by pattern, and the engine's noise."""
    print("starting the engine", file=sys.stderr)
    engine = InProcess(facts, server_argv, folder / LOG)
    try:
        objective = EngineObjective(engine, sequences, ())
        rules = Constraints.make(LayerPattern.full(facts.num_layers), 1, (), 1)
        noise = asdict(selfcheck.measure(objective, rules))
        total = len(patterns) * facts.num_layers * sum(map(len, sequences))
        interval = 0.2 if sys.stderr.isatty() else LOG_INTERVAL_SEC
        with tqdm(total=total, unit="lt", unit_scale=True, mininterval=interval) as progress:
            objective.advance = progress.update
            table = LossTable(
                Journaled(
                    objective.loss, objective.rebase, objective.weights, journal, progress.update
                )
            )
            return {one["pattern"]: table.all(one["pattern"]) for one in patterns}, noise
    finally:
        engine.close()


def main(argv: Sequence[str]) -> int:
    own, server_argv = split_server_arguments(list(argv))
    made = parser()
    made.error = refuse
    args = made.parse_args(own)
    try:
        run(args, server_argv, command("sglang_ic.search.losses", argv))
        return 0
    except (ValueError, EngineError, OSError) as error:
        refuse(" ".join(str(error).split()))
    except KeyboardInterrupt:
        print(f"stopped; --resume goes on with {args.output}/", file=sys.stderr)
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
