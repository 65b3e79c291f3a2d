"""From arguments to a checked search: what can be refused before an engine is started."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from sglang_ic.config import describe_layers
from sglang_ic.evaluate.documents import DataError
from sglang_ic.evaluate.model_facts import ModelFacts, model_facts
from sglang_ic.evaluate.samples import Sample
from sglang_ic.evaluate.suites import DataRequest, gather, tokenizer_encoder
from sglang_ic.pattern import LayerPattern, PatternError
from sglang_ic.search import fingerprint
from sglang_ic.search.constraints import Constraints, parse_retention, refuse_candidates
from sglang_ic.search.controls import Controls
from sglang_ic.server.arguments import value_of, with_model

DEFAULT_RETENTION = "1/4"


@dataclass(frozen=True)
class Setup:
    """One search, before anything was measured."""

    facts: ModelFacts
    constraints: Constraints
    controls: Controls
    samples: list[Sample]
    notes: tuple[str, ...]  # for the user
    model: dict  # JSON-ready, for the results
    data: dict

    @property
    def lengths(self) -> list[int]:
        """[Q] tokens of each sequence."""
        return [len(sample.input_ids) for sample in self.samples]


def make_setup(args: argparse.Namespace, server_argv: list[str]) -> Setup:
    """Check everything that can be checked without an engine.

    Raises:
        ValueError, OSError: anything that the user has to change first.
    """
    model_path = args.model_path or value_of(with_model([]), "--model-path")
    facts = model_facts(model_path, server_argv)
    controls = Controls.parse(args.control)
    start, notes = _start(args.start_pattern, facts)
    num_full = args.full_layers or parse_retention(
        args.retention or DEFAULT_RETENTION, facts.num_layers
    )
    constraints = Constraints.make(start, num_full, args.keep_full, args.pipeline_blocks)
    asked = DataRequest(args.data, args.context_lengths, args.documents)
    samples = gather(asked, facts.index_topk, facts.context_length, tokenizer_encoder(model_path))
    tokens = [sample.input_ids for sample in samples]
    if len(tokens) < 2:
        raise DataError(
            f"--data {args.data!r} gives one sequence, whose loss says nothing about its own "
            "error: give data for two or more"
        )
    return Setup(
        facts=facts,
        constraints=constraints,
        controls=controls,
        samples=samples,
        notes=notes,
        model={
            "path": model_path,
            "architecture": facts.architecture,
            "index_topk": facts.index_topk,
            "fingerprint": fingerprint.of_model(checkpoint_folder(model_path)),
        },
        data={
            "source": args.data,
            "num_sequences": len(tokens),
            "num_tokens": sum(map(len, tokens)),
            "weights": [len(ids) - 1 for ids in tokens],
            "fingerprint": fingerprint.of_tokens(tokens),
        },
    )


def _start(given: str | None, facts: ModelFacts) -> tuple[LayerPattern, tuple[str, ...]]:
    """The pattern to start from; a checkpoint with trained sharing has some roles decided."""
    if facts.own_pattern is None:
        return refuse_candidates(LayerPattern.parse(given or "full", facts.num_layers)), ()
    own = facts.own_pattern
    missing = [layer for layer in range(own.num_layers) if not own.is_full(layer)]
    note = (
        f"this checkpoint has trained sharing: {describe_layers(missing)} have no indexer and stay "
        f"Shared; the search is about the other {own.num_full}"
    )
    if given is None:
        return own, (note,)
    start = refuse_candidates(LayerPattern.parse(given, facts.num_layers))
    wrong = sorted(set(start.full_layers) - set(own.full_layers))
    if wrong:
        raise PatternError(
            f"--start-pattern has {describe_layers(wrong)} Full, for which this checkpoint has no "
            f"indexer weights: start from {own.text} or from one with fewer Full layers"
        )
    return start, (note,)


def checkpoint_folder(model_path: str) -> Path:
    """Where a checkpoint's files are; a hub id is in the cache by now, its config.json at least."""
    if Path(model_path).is_dir():
        return Path(model_path)
    from transformers.utils.hub import cached_file

    return Path(cached_file(model_path, "config.json")).parent
