"""`python -m sglang_ic.search`: arguments in, a pattern file and a report out."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sglang_ic.command_line import (
    EXIT_INTERRUPTED,
    command,
    count,
    counts,
    refuse,
    split_server_arguments,
)
from sglang_ic.evaluate.suites import SUITES
from sglang_ic.evaluate.wire import EngineError
from sglang_ic.search.run import run

DESCRIPTION = """\
Find the layers of a DSA model that may share their top-k indices: convert one Full layer after
the other to Shared, each time the one that raises the language-model loss on calibration data
least. Runs in SGLang's own engine, on CPU or GPU, without training and without a reload. One run
gives a pattern for every number of Full layers on the way."""

EPILOG = """\
examples:
  python -m sglang_ic.search --retention 1/4 --output search/
  python -m sglang_ic.search --model-path zai-org/GLM-5 --data calibration.jsonl \\
      --context-lengths 16384 --documents 32 --full-layers 20 --output search/ -- --tp 8
  python -m sglang_ic.launch_server --model-path zai-org/GLM-5 --tp 8 \\
      --index-cache-pattern search/pattern.json@20

What follows a lone `--` goes to SGLang's engine. Written to the output folder: pattern.json (with
its losses and where they come from), report.md, loss.png, order.png, overlap.png, journal.jsonl
(every loss, for --resume), engine.log."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m sglang_ic.search",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add(
        "--model-path",
        metavar="MODEL",
        help="a DSA checkpoint, folder or hub id (default: the bundled model)",
    )
    add(
        "--data",
        default="calibration-1",
        help=f"calibration data: a .jsonl file, a text file, or a built-in suite "
        f"({', '.join(SUITES)}) (default: %(default)s)",
    )
    add(
        "--context-lengths",
        type=counts,
        metavar="N[,N...]",
        help="tokens; at least 8 x index_topk (default: 2048,4096,8192 for a suite; a file's own "
        "lengths; 16 x index_topk for text)",
    )
    add(
        "--documents",
        type=count,
        metavar="N",
        help="sequences of each length (default: 16; all of a file with answers)",
    )
    add("--output", type=Path, metavar="DIR", default=Path("search"), help="default: search/")
    goal = made.add_mutually_exclusive_group()
    goal.add_argument("--full-layers", type=count, metavar="K", help="stop at K Full layers")
    goal.add_argument(
        "--retention", metavar="SHARE", help="stop at this share of Full layers (default: 1/4)"
    )
    add(
        "--method",
        choices=("fast", "exhaustive"),
        default="fast",
        help="fast: begin passes at the changed layer, skip candidates that cannot win, drop "
        "hopeless ones early. exhaustive: every candidate, whole, on everything (default: fast)",
    )
    add(
        "--keep-full",
        type=_layers,
        default=(),
        metavar="L[,L...]",
        help="layers that stay Full; layer 0 always does",
    )
    add(
        "--pipeline-blocks",
        type=count,
        default=1,
        metavar="P",
        help="split the layers as P pipeline stages, keep the first layer of each Full, and let "
        "the stages take turns",
    )
    add(
        "--start-pattern",
        metavar="PATTERN",
        help="start from this, as --index-cache-pattern takes it (default: full)",
    )
    add(
        "--swaps",
        type=count,
        default=0,
        metavar="N",
        help="afterwards, exchange a Full and a Shared layer while that lowers the loss, at most N "
        "times",
    )
    add(
        "--control",
        action="append",
        default=[],
        metavar="uniform|similarity|random:N",
        help="also measure other patterns with as many Full layers, at 1/2, 1/4, 1/8 and the goal; "
        "repeatable",
    )
    add(
        "--cache-gib",
        type=_size,
        metavar="GIB",
        help="memory for kept hidden states on each rank, on the device while it has room, then on "
        "the host (default: what the device has room for and half of the free host memory); "
        "less is slower, never different",
    )
    add("--dry-run", action="store_true", help="time one pass, print plan and cost, and stop")
    add("--resume", action="store_true", help="go on with the search in the output folder")
    return made


def _layers(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: give layer numbers, as in 0,1,46")
    return tuple(sorted({int(part) for part in parts}))


def _size(text: str) -> float:
    try:
        size = float(text)
    except ValueError:
        size = -1.0
    if not 0 <= size < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: give a number of GiB, 0 for none")
    return size


def main(argv: Sequence[str]) -> int:
    own, server_argv = split_server_arguments(list(argv))
    made = parser()
    # argparse, too, would otherwise print its usage before the one line that matters.
    made.error = refuse
    args = made.parse_args(own)
    try:
        run(args, server_argv, command("sglang_ic.search", argv))
        return 0
    except (ValueError, EngineError, OSError) as error:
        refuse(" ".join(str(error).split()))
    except KeyboardInterrupt:
        print(f"stopped; --resume goes on with {args.output}/", file=sys.stderr)
        return EXIT_INTERRUPTED
