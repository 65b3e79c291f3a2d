"""The command line: arguments in, a report out, one line for a mistake."""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sglang_ic.bench import arms, launch, scenario_file
from sglang_ic.bench.scenario import Scenario
from sglang_ic.bench.scenario_file import ScenarioError
from sglang_ic.bench.servers import ServerError, uninterrupted
from sglang_ic.fork.files import write_atomic

# A link to benchmark/scenarios in a checkout, the files themselves in an installed package.
SCENARIOS = Path(__file__).with_name("scenarios")
INTERRUPTED = 130  # what a shell gives a process that Ctrl-C ended

EPILOG = """\
arms:
  full                    our server, every layer Full      (the first arm is the reference)
  1/4=FILE                our server with --index-cache-pattern FILE
  preset:glm-5-1/4        the same, any pattern text; it is its own name
  stock                   upstream's server (see --stock-python)
  NAME=http://HOST:PORT   a server that already runs

everything after -- goes to every server that is started:
  python -m sglang_ic.bench --arm full --arm 1/4=preset:glm-5-1/4 \\
      --model-path zai-org/GLM-5 --scenario cold-long -- --tp 8
  python -m sglang_ic.bench --arm full --arm 1/4=pattern.json --scale 0.02 --rounds 2
"""


def parser() -> argparse.ArgumentParser:
    """Defaults are in the help of each flag."""
    made = argparse.ArgumentParser(
        prog="python -m sglang_ic.bench",
        description="What does IndexCache do for my traffic? Compares servers under the same load.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = functools.partial(made.add_argument)
    add("--arm", action="append", default=[], metavar="ARM", help="what to compare, see below")
    add(
        "--no-control",
        action="store_true",
        help="leave out the second measurement of the first arm",
    )
    add(
        "--scenario",
        action="append",
        default=[],
        metavar="NAME|FILE",
        help="default: every bundled one",
    )
    add(
        "--scale",
        type=float,
        default=1.0,
        help="times every length in tokens; default: %(default)g",
    )
    add("--requests", type=int, help="of each load and round, instead of the scenario's own")
    add("--rounds", type=int, default=3, help="of all arms, interleaved; default: %(default)s")
    add("--seed", type=int, default=1, help="of prompts and arrivals; default: %(default)s")
    add("--model-path", help="for servers that are started; default: the bundled model")
    add("--tokenizer", metavar="PATH", help="default: what the first arm's server names")
    add("--stock-python", metavar="PATH", help="interpreter of arm stock; default: .venv-stock")
    add(
        "--servers",
        choices=("together", "one-at-a-time"),
        help="keep all up, or one; default: together on a CPU, else one-at-a-time",
    )
    add(
        "--output",
        type=Path,
        default=Path("bench-report"),
        metavar="DIR",
        help="default: %(default)s",
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0; 1 if a request failed or an arm was given up; 2 for a mistake; 130."""
    argv = list(sys.argv[1:] if argv is None else argv)
    own, flags = _split(argv)
    made = parser()
    args = made.parse_args(own)
    from sglang_ic.bench.endpoint import EndpointError
    from sglang_ic.bench.fleet import SessionError

    # A SIGTERM must stop the servers and keep what was measured, as a Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _measure(args, flags, f"python -m sglang_ic.bench {shlex.join(argv)}")
    except (arms.ArmError, ScenarioError, SessionError, EndpointError) as error:
        print(f"error: {error}", file=sys.stderr)
    except ServerError as error:
        print(f"error: {error}\n{error.tail}", file=sys.stderr)
    except KeyboardInterrupt:
        print("error: stopped before anything was measured", file=sys.stderr)
        return INTERRUPTED
    return 2


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Our arguments, and what follows -- for the servers."""
    place = argv.index("--") if "--" in argv else len(argv)
    return argv[:place], argv[place + 1 :]


def _measure(args: argparse.Namespace, flags: list[str], command: str) -> int:
    from tqdm import tqdm

    from sglang_ic.bench import document
    from sglang_ic.bench.session import Plan, Session

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
    together = args.servers == "together" if args.servers else on_cpu
    plan = Plan(
        arms=tuple(compared),
        points=tuple(point for one in scenarios for point in one.points),
        rounds=args.rounds,
        seed=args.seed,
        together=together,
        tokenizer=args.tokenizer,
        launch=start,
    )
    with tqdm(
        total=plan.expected_tokens,
        unit="tok",
        unit_scale=True,
        mininterval=0.5 if sys.stderr.isatty() else 30,
        dynamic_ncols=True,
        smoothing=0,  # blocks of different arms and lengths take turns
        bar_format="{l_bar}{bar:20}| {n_fmt}/{total_fmt} [{elapsed}, {remaining} left]",
    ) as bar:
        started = _now()
        result = Session(plan, bar).run()
    if not any(block.is_whole for block in result.blocks):
        print("error: stopped before anything was measured", file=sys.stderr)
        return INTERRUPTED if result.interrupted else 2
    with uninterrupted():
        settings = {**vars(args), "output": str(args.output), "server_flags": flags}
        settings["servers"] = "together" if together else "one-at-a-time"
        told = document.build(
            plan,
            scenarios,
            result,
            command=command,
            settings={
                key: document.shown(value) if isinstance(value, str) else value
                for key, value in settings.items()
            },
            started_at=started,
            finished_at=_now(),
        )
        _write(args.output, told)
    if result.interrupted:
        return INTERRUPTED
    return int(bool(result.retired) or any(r.error for b in result.blocks for r in b.requests))


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
    return [scenario_file.read(path, scale=args.scale, requests=args.requests) for path in paths]


def _write(folder: Path, told: dict[str, Any]) -> None:
    from sglang_ic.bench import charts, html, markdown

    images = charts.charts(told)
    files = {
        "report.json": json.dumps(told) + "\n",
        "report.md": markdown.report(told),
        "report.html": html.report(told, images),
    }
    for name, text in files.items():
        write_atomic(folder / name, text.encode())
    for name, data in images.items():
        write_atomic(folder / f"{name}.png", data)
    print("\n".join(markdown.table(*markdown.ratio_rows(told))))
    for point in told["points"]:
        for line in markdown.error_lines(point):
            print(f"{point['key']}: {line}", file=sys.stderr)
    print(f"report: {folder / 'report.html'} (and .md, .json, {len(images)} PNG)")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
