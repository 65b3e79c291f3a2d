"""The client's command-line flags, with their defaults in the help of each."""

from __future__ import annotations

import argparse
from pathlib import Path

EPILOG = """\
arms:
  full                    our server, every layer Full      (the first arm is the reference)
  1/4=FILE                our server with --index-cache-pattern FILE
  preset:glm-5-1/4        the same, any pattern text; it is its own name
  stock                   upstream's server (see --stock-python)
  NAME=http://HOST:PORT   a server that already runs; its prefix cache is flushed before each block

everything after -- goes to every server that is started:
  python -m sglang_ic.bench --arm full --arm 1/4=preset:glm-5-1/4 \\
      --model-path zai-org/GLM-5 --scenario cold-long -- --tp 8
  python -m sglang_ic.bench --arm full --arm 1/4=pattern.json --scale 0.02 --rounds 2

servers that want a key get the one in OPENAI_API_KEY (or API_KEY, sent as it is)
"""


def parser() -> argparse.ArgumentParser:
    """Everything before a lone `--`."""
    made = argparse.ArgumentParser(
        prog="python -m sglang_ic.bench",
        description="What does IndexCache do for my traffic? Compares servers under the same load.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
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
    add(
        "--requests",
        type=int,
        help="of each load and round, instead of the scenario's own; at least as many as are in "
        "flight",
    )
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
        help="folder of the report, made before the first request; default: %(default)s",
    )
    return made
