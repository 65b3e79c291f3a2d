"""The command line: a plan and a part in, a journal and a report out, one line for a mistake."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from sglang_ic.bench.servers import ServerError
from sglang_ic.command_line import EXIT_INTERRUPTED, EXIT_REFUSED, count
from sglang_ic.latency import plan_file
from sglang_ic.latency.journal import Journal, JournalError
from sglang_ic.latency.launch import LaunchError, Stock
from sglang_ic.latency.plan import PlanError

EXIT_FAILED, EXIT_UNFINISHED = 1, 3
GRACE_SEC = 15  # to stop servers and write the report in, at the time limit

EPILOG = """\
a part of a plan is measured by one command on one machine, and every number is in OUTPUT.jsonl as
soon as it is known: after a kill, or at the time limit (exit code 3), the same command goes on.
OUTPUT.json, OUTPUT.md and OUTPUT.png are made from that file alone.

  python -m sglang_ic.latency benchmark/latency/cpu-tiny.toml --part smoke --output out/smoke
  python -m sglang_ic.latency --report --output out/smoke
"""


class TimeUp(Exception):
    """The time limit passed in the middle of a request."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m sglang_ic.latency",
        description="Time to first token and between tokens, by layer pattern, on the fork and "
        "on upstream's SGLang.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("plan", nargs="?", type=Path, metavar="PLAN", help="a TOML file")
    made.add_argument("--part", metavar="NAME", help="of the plan: what this command measures")
    made.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="OUTPUT",
        help="path of the results, without suffix",
    )
    made.add_argument("--report", action="store_true", help="measure nothing, write the report")
    made.add_argument("--time-limit", type=count, metavar="SEC", help="then stop; default: none")
    made.add_argument("--stock-python", metavar="PATH", help="default: .venv-stock's interpreter")
    made.add_argument(
        "--stock-site", metavar="DIR", help="or a folder that holds upstream's sglang"
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0; 1 a server failed; 2 a mistake; 3 the time limit; 130."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = parser().parse_args(argv)
    try:
        journal = Journal(args.output.with_name(args.output.name + ".jsonl"))
        if args.report:
            return _report(journal, args.output)
        if args.plan is None or args.part is None:
            raise PlanError("give a PLAN and a --part of it, or --report")
        plan = plan_file.read(args.plan)
        part = plan.part(args.part)
        stock = Stock(args.stock_python, args.stock_site)
        return _measure(plan, part, journal, stock, args, argv)
    except (PlanError, JournalError, LaunchError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_REFUSED


def _measure(plan, part, journal, stock, args, argv) -> int:
    from sglang_ic.latency.client import RequestError
    from sglang_ic.latency.run import Budget, Run
    from sglang_ic.latency.timing import TimingError
    from sglang_ic.latency.trace import TraceError

    run = Run(plan, part, journal, stock, f"python -m sglang_ic.latency {shlex.join(argv)}")
    limit = args.time_limit and max(1, args.time_limit - GRACE_SEC)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGALRM, _time_up)
    signal.alarm(limit or 0)
    code, left = 0, 0
    try:
        left = run.measure(Budget(limit), lambda line: print(line, file=sys.stderr, flush=True))
    except TimeUp:
        left = 1
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except (RequestError, TimingError, TraceError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = EXIT_FAILED
    except ServerError as error:
        print(f"error: {error}\n{error.tail}", file=sys.stderr)
        code = EXIT_FAILED
    finally:
        signal.alarm(0)
        run.stop()
    if left:
        print("stopped at the time limit: run the same command again to go on", file=sys.stderr)
        code = code or EXIT_UNFINISHED
    if any(line["event"] in ("value", "profile") for line in journal.lines):
        _report(journal, args.output)
    return code


def _report(journal: Journal, output: Path) -> int:
    from sglang_ic.latency import write

    print(write.report(journal, output))
    return 0


def _time_up(_number, _frame) -> None:
    raise TimeUp
