"""The command line: arguments in, a report out, one line for a mistake."""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sglang_ic.bench import arms, launch, options, output, scenario_file
from sglang_ic.bench.interrupts import LastingStream, interruptible, uninterrupted
from sglang_ic.bench.scenario import Scenario
from sglang_ic.bench.scenario_file import ScenarioError
from sglang_ic.bench.servers import ServerError
from sglang_ic.command_line import (
    EXIT_INTERRUPTED,
    EXIT_REFUSED,
    command,
    masked,
    split_server_arguments,
)

# A link to benchmark/scenarios in a checkout, the files themselves in an installed package.
SCENARIOS = Path(__file__).with_name("scenarios")
NOTHING = "error: stopped before anything was measured"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0; 1 if a request failed or an arm was given up; 2 for a mistake; 130."""
    argv = list(sys.argv[1:] if argv is None else argv)
    own, flags = split_server_arguments(argv)
    args = options.parser().parse_args(own)
    from sglang_ic.bench.session import EXPECTED

    try:
        with interruptible():
            return _measure(args, flags, command("sglang_ic.bench", argv))
    except ServerError as error:
        print(f"error: {error}\n{error.tail}", file=sys.stderr)
    except (arms.ArmError, ScenarioError, output.OutputError, *EXPECTED) as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print(NOTHING, file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_REFUSED


def _measure(args: argparse.Namespace, flags: list[str], typed: str) -> int:
    from tqdm import tqdm

    from sglang_ic.bench import document
    from sglang_ic.bench.plan import Plan
    from sglang_ic.bench.session import Session

    compared = arms.parse_all(args.arm, control=not args.no_control)
    scenarios = _scenarios(args)
    if args.rounds < 1:
        raise ScenarioError(f"--rounds {args.rounds}: use 1 or more")
    on_cpu, start = launch.launcher(
        compared,
        model=args.model_path,
        stock_python=args.stock_python,
        flags=flags,
        logs=args.output / "logs",
    )
    output.prepare(args.output)
    plan = Plan(
        arms=tuple(compared),
        points=tuple(point for one in scenarios for point in one.points),
        rounds=args.rounds,
        seed=args.seed,
        together=args.servers == "together" if args.servers else on_cpu,
        tokenizer=args.tokenizer,
        launch=start,
    )
    with tqdm(
        total=plan.expected_tokens,
        file=LastingStream(sys.stderr),
        unit="tok",
        unit_scale=True,
        mininterval=0.5 if sys.stderr.isatty() else 30,
        dynamic_ncols=True,
        smoothing=0,  # blocks of different arms and lengths take turns
        bar_format="{l_bar}{bar:20}| {n_fmt}/{total_fmt} [{elapsed}, {remaining} left]",
    ) as bar:
        started = _now()
        result = Session(plan, bar).run()
    if not result.blocks:
        print(NOTHING, file=sys.stderr)
        return EXIT_INTERRUPTED if result.interrupted else EXIT_REFUSED
    with uninterrupted():
        output.save(
            args.output,
            result.blocks,
            lambda: document.build(
                plan,
                scenarios,
                result,
                command=typed,
                settings=_settings(args, flags, plan.together),
                started_at=started,
                finished_at=_now(),
            ),
        )
    return EXIT_INTERRUPTED if result.interrupted else int(not result.is_clean)


def _settings(args: argparse.Namespace, flags: list[str], together: bool) -> dict[str, Any]:
    """Every value of the command line, defaults included, without keys and private folders."""
    from sglang_ic.bench.document import shown

    told = {**vars(args), "output": str(args.output)}
    told["servers"] = "together" if together else "one-at-a-time"
    told = {key: shown(value) if isinstance(value, str) else value for key, value in told.items()}
    return {**told, "server_flags": masked(flags)}


def _scenarios(args: argparse.Namespace) -> list[Scenario]:
    bundled = {path.stem: path for path in sorted(SCENARIOS.glob("*.toml"))}
    if not 0 < args.scale <= 1:
        raise ScenarioError(f"--scale {args.scale:g}: use a number above 0, at most 1")
    if args.requests is not None and args.requests < 1:
        raise ScenarioError(f"--requests {args.requests}: use 1 or more")
    paths = []
    for name in args.scenario or bundled:
        if name not in bundled and not Path(name).is_file():
            raise ScenarioError(
                f"scenario {name!r} is neither a file nor one of {', '.join(bundled) or '(none)'}"
            )
        paths.append(bundled.get(name) or Path(name))
    if not paths:
        raise ScenarioError(f"no --scenario, and none in {SCENARIOS}: give a file")
    names = [path.stem for path in paths]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ScenarioError(f"two scenarios are called {twice[0]!r}: rename a file")
    return [scenario_file.read(path, scale=args.scale, requests=args.requests) for path in paths]


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
