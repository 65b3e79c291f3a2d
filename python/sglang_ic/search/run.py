"""One search from arguments to files."""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil

from sglang_ic.evaluate.in_process import InProcess
from sglang_ic.evaluate.wire import EngineError
from sglang_ic.search import dry_run, greedy, plan, selfcheck, swap
from sglang_ic.search.engine import EngineObjective
from sglang_ic.search.journal import Journal, Journaled
from sglang_ic.search.objective import LossTable
from sglang_ic.search.output import LOG, Output
from sglang_ic.search.progress import Progress
from sglang_ic.search.result import Found, control_counts
from sglang_ic.search.setup import Setup, make_setup
from sglang_ic.server.arguments import value_of

JOURNAL = "journal.jsonl"
GIB = 1 << 30
TENSOR_PARALLEL_FLAGS = ("--tensor-parallel-size", "--tp-size", "--tp")


def run(args: argparse.Namespace, server_argv: list[str], command: str) -> None:
    """Plan, search, write. Everything that can be refused is refused before the engine starts.

    Raises:
        ValueError, OSError, EngineError: bad input, or an engine that failed.
        KeyboardInterrupt: Ctrl-C; what was measured is in the journal.
    """
    setup = make_setup(args, server_argv)
    for note in setup.notes:
        _note(note)
    if args.dry_run:
        with tempfile.TemporaryDirectory(prefix="sglang-ic-search-") as folder:
            objective = _objective(args, setup, server_argv, Path(folder) / LOG)
            try:
                print(dry_run.describe(setup, objective, args.method))
            finally:
                objective.close()
        return
    args.output.mkdir(parents=True, exist_ok=True)
    journal = Journal(args.output / JOURNAL, _header(args, setup, server_argv), args.resume)
    try:
        objective = _objective(args, setup, server_argv, args.output / LOG)
        try:
            noise = selfcheck.measure(objective, setup.constraints)
            output = Output(args, setup, objective, noise, server_argv, command)
            _search(args, setup, objective, journal, output)
        finally:
            objective.close()
    finally:
        journal.close()


def _header(args: argparse.Namespace, setup: Setup, server_argv: list[str]) -> dict:
    """What a resumed search must share with the one that was stopped; the goal may be farther."""
    return {
        "model": setup.model["fingerprint"],
        "data": setup.data["fingerprint"],
        "method": args.method,
        "start_pattern": setup.constraints.start.text,
        "keep_full": sorted(setup.constraints.fixed),
        "pipeline_blocks": args.pipeline_blocks,
        "engine_arguments": server_argv,
    }


def _objective(
    args: argparse.Namespace, setup: Setup, server_argv: list[str], log: Path
) -> EngineObjective:
    """Start the engine; half a minute for a small model on CPU.

    Raises:
        EngineError: it did not start, cannot be searched, or the states do not fit.
    """
    _note("starting the engine")
    engine = InProcess(setup.facts, server_argv, log)
    try:
        given = [value_of(server_argv, name) for name in TENSOR_PARALLEL_FLAGS]
        num_ranks = int(next(filter(None, given), 1))
        free = psutil.virtual_memory().available
        limit = None if args.cache_gib is None else int(args.cache_gib * GIB)
        layers = sorted(set(setup.constraints.start.full_layers) - setup.constraints.fixed)
        objective = EngineObjective(
            engine,
            [sample.input_ids for sample in setup.samples],
            layers if args.method == "fast" else (),
            limit,
            free // 2 // num_ranks,
        )
        if args.cache_gib is not None and objective.host_bytes * num_ranks > free:
            raise EngineError(
                f"--cache-gib {args.cache_gib:g} lets {num_ranks} ranks keep "
                f"{objective.host_bytes / GIB:.1f} GiB each on the host, and {free / GIB:.1f} GiB "
                "of its memory are free: give a smaller --cache-gib"
            )
    except BaseException:
        engine.close()
        raise
    return objective


def _search(
    args: argparse.Namespace,
    setup: Setup,
    objective: EngineObjective,
    journal: Journal,
    output: Output,
) -> None:
    constraints = setup.constraints
    exhaustive = args.method == "exhaustive"
    total = plan.exhaustive_cost(constraints, sum(setup.lengths)).at_most
    progress = Progress(constraints.num_steps, total if exhaustive else total // 8, exhaustive)
    objective.advance = progress.advance
    table = LossTable(
        Journaled(objective.loss, objective.rebase, objective.weights, journal, progress.advance)
    )
    found = Found(constraints.start.text)
    method = greedy.EXHAUSTIVE if exhaustive else greedy.FAST
    try:
        for step in greedy.search(table, constraints, method, progress.look_at_layer):
            found.steps.append(step)
            output.write(found, table, complete=False)
            progress.step_done(step.pattern, step.loss)
        if args.swaps:
            progress.phase("swaps")
            swaps = swap.refine(
                table,
                found.pattern,
                constraints,
                args.swaps,
                method.racing,
                progress.look_at_swap,
            )
            for one in swaps:
                found.swaps.append(one)
                output.write(found, table, complete=False)
                progress.note(f"swapped   {one.pattern}  loss {one.loss:.5f}")
        progress.phase("overlap")
        found.overlap = objective.overlap(found.start, setup.facts.index_topk)
        _measure_controls(setup, found, table, progress.phase)
    finally:
        progress.close()
    output.write(found, table, complete=True)
    output.draw()
    print(output.summary())


def _measure_controls(
    setup: Setup, found: Found, table: LossTable, phase: Callable[..., None]
) -> None:
    counts = [step.pattern.count("F") for step in found.steps]
    controls = [
        control
        for count in control_counts(setup.facts.num_layers, counts)
        for control in setup.controls.patterns(setup.constraints.start, count, found.overlap)
    ]
    phase("controls", len(controls) * setup.facts.num_layers * sum(setup.lengths))
    for kind, text in controls:
        table.all(text)
        found.controls.append((kind, text))


def _note(text: str) -> None:
    print(text, file=sys.stderr)
