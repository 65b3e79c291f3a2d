"""One evaluation from arguments to files: plan, measure, write."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sglang_ic.candidates.switch import candidate_pages
from sglang_ic.checkpoint import read_config_json
from sglang_ic.command_line import masked
from sglang_ic.evaluate import environment, over_http, report
from sglang_ic.evaluate.arms import Arm, Controls
from sglang_ic.evaluate.arms import plan as plan_arms
from sglang_ic.evaluate.documents import DataError
from sglang_ic.evaluate.in_process import InProcess
from sglang_ic.evaluate.measure import Engine, measure, results
from sglang_ic.evaluate.model_facts import model_facts
from sglang_ic.evaluate.samples import Sample
from sglang_ic.evaluate.suites import DataRequest, gather, tokenizer_encoder
from sglang_ic.evaluate.summary import SCHEMA_VERSION
from sglang_ic.evaluate.wire import NUM_TOP, EngineError
from sglang_ic.server.arguments import value_of, with_model

RESULTS, REPORT, LOG = "results.json", "report.md", "engine.log"


@dataclass(frozen=True)
class Plan:
    """What will be measured, checked, before an engine is started."""

    arms: tuple[Arm, ...]
    samples: list[Sample]
    model: dict[str, Any]  # JSON-ready facts for the results
    start_engine: Callable[[Path], Engine]  # from the path of a log file


def run(args: argparse.Namespace, server_argv: list[str], command: str) -> bool:
    """Plan, measure, write. Everything that can be refused is refused before the engine starts.

    Returns:
        Whether all was measured; False after Ctrl-C, with what there was by then.
    Raises:
        ValueError, OSError, EngineError: bad input, or an engine that failed; what it had measured
            is written all the same.
        KeyboardInterrupt: Ctrl-C before anything was measured.
    """
    started = time.time()
    asked = DataRequest(args.data, args.context_lengths, args.documents)
    plan = (_plan_servers if args.url else _plan_engine)(args, server_argv, asked)
    folder = args.output or Path(f"evaluation-{datetime.now():%Y%m%d-%H%M%S}")
    folder.mkdir(parents=True, exist_ok=True)
    names = ", ".join(arm.name for arm in plan.arms)
    _note(f"{len(plan.samples)} documents, {len(plan.arms)} arms: {names}")
    engine = plan.start_engine(folder / LOG)
    try:
        found = measure(engine, plan.arms, plan.samples, plan.model["index_topk"])
    finally:
        engine.close()
    if not found.num_samples:
        raise KeyboardInterrupt
    document = {
        "schema_version": SCHEMA_VERSION,
        "command": command,
        "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        "seconds": time.time() - started,
        "hardware": environment.hardware(),
        "software": environment.versions(),
        "model": plan.model,
        "settings": {
            "patterns": args.pattern,
            "controls": args.control,
            "num_top": NUM_TOP,
            "engine_arguments": masked(server_argv),
        },
        **results(found, args.data),
    }
    write(document, folder)
    print(report.terminal(document))
    _note(f"written to {folder}/: {RESULTS}, {REPORT} and pictures")
    if found.failure is not None:
        raise EngineError(f"stopped early, what was measured is in {folder}/: {found.failure}")
    return not found.interrupted


def _plan_engine(args: argparse.Namespace, server_argv: list[str], asked: DataRequest) -> Plan:
    """Arms of one engine that is still to be started."""
    model_path = args.model_path or value_of(with_model([]), "--model-path")
    facts = model_facts(model_path, server_argv)
    reference = args.reference
    if facts.own_pattern is not None:
        reference = _own_reference(args, facts.own_pattern.text)
    arms, notes = plan_arms(reference, args.pattern, Controls.parse(args.control), facts.num_layers)
    for note in notes:
        _note(note)
    settings = {candidate_pages(arm.pattern.text, facts.index_topk) for arm in arms} - {None}
    samples = gather(asked, facts.index_topk, facts.context_length, tokenizer_encoder(model_path))
    model = {
        "path": model_path,
        "architecture": facts.architecture,
        "num_layers": facts.num_layers,
        "index_topk": facts.index_topk,
        "candidate_pages": next(iter(settings), None),
    }
    longest = max(len(sample.input_ids) for sample in samples)

    def start(log: Path) -> InProcess:
        engine = InProcess(facts, server_argv, log)
        try:
            engine.check_room(longest)
        except ValueError:
            engine.close()
            raise
        return engine

    return Plan(arms, samples, model, start)


def _own_reference(args: argparse.Namespace, own: str) -> str:
    """The reference of a checkpoint that ships trained sharing; its pattern cannot be switched."""
    why = f"this checkpoint has indexer weights on the Full layers of {own} only"
    if args.pattern or args.control or args.reference not in ("full", own):
        raise DataError(
            f"{why}: patterns cannot be switched in a running engine; leave --pattern, --control "
            "and --reference out, or serve each pattern and give --url"
        )
    _note(f"{why}, so all Full is impossible; the reference is its own pattern")
    return own


def _plan_servers(args: argparse.Namespace, server_argv: list[str], asked: DataRequest) -> Plan:
    """Arms that are running servers."""
    if args.pattern or args.control or server_argv:
        raise DataError(
            "--pattern, --control and arguments after -- do not go with --url: "
            "a server runs the one pattern it was started with"
        )
    servers = [over_http.connect(url) for url in args.url]
    reference = over_http.choose_reference(servers, args.reference)
    folder = args.model_path or reference.tokenizer_path
    config = read_config_json(folder)
    # A server with dense attention, index_topk at the context length or above, is a control: the
    # data must be long enough for the others.
    topks = [s.index_topk or config.get("index_topk") for s in servers]
    if None in topks:
        raise DataError(
            f"--url {servers[topks.index(None)].url!r} does not tell its index_topk, and "
            f"{folder!r} has none either: give --model-path the folder of the model"
        )
    samples = gather(
        asked, min(topks), config.get("max_position_embeddings"), tokenizer_encoder(folder)
    )
    model = {
        "path": reference.model_path,
        "architecture": (config.get("architectures") or [None])[0],
        "num_layers": config.get("num_hidden_layers"),
        "index_topk": min(topks),
    }
    arms = over_http.arms(servers, reference)
    return Plan(arms, samples, model, lambda log: over_http.OverHttp())


def write(document: dict, folder: Path) -> None:
    """Files whole: the old ones or the new ones, never a part."""
    from sglang_ic.evaluate import plots

    for name, text in (
        (RESULTS, json.dumps(document, indent=1) + "\n"),
        (REPORT, report.markdown(document)),
    ):
        scratch = folder / f".{name}"
        scratch.write_text(text)
        os.replace(scratch, folder / name)
    plots.write(document, folder)


def _note(text: str) -> None:
    print(text, file=sys.stderr)
