"""`python -m sglang_ic.evaluate`: arguments in, tables and files out; or one line and code 2."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sglang_ic.command_line import EXIT_INTERRUPTED, count, counts, refuse, split_server_arguments
from sglang_ic.evaluate import environment
from sglang_ic.evaluate.run import run
from sglang_ic.evaluate.suites import SUITES
from sglang_ic.evaluate.wire import EngineError

DESCRIPTION = """\
Measure what an IndexCache pattern costs in quality, on a real engine: loss, KL divergence and
retrieval accuracy against a reference, paired on the same documents; which tokens the layers
select, and how much of their attention those hold."""

EPILOG = """\
examples:
  python -m sglang_ic.evaluate --pattern freq:4 --control uniform --control random:3
  python -m sglang_ic.evaluate --model-path zai-org/GLM-5 --pattern preset:glm-5-1/4 \\
      --data my.jsonl --context-lengths 32768 -- --tp 8
  python -m sglang_ic.evaluate --url full=http://127.0.0.1:30000 --url half=http://127.0.0.1:30001

What follows a lone `--` goes to SGLang's engine. Written to the output folder: results.json (every
number, with settings, hardware and versions), report.md, accuracy.png, overlap.png, attention.png,
engine.log."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m sglang_ic.evaluate",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "--model-path",
        metavar="MODEL",
        help="a DSA checkpoint, folder or hub id (default: the bundled model); with --url, where "
        "its tokenizer is",
    )
    made.add_argument(
        "--url",
        action="append",
        default=[],
        metavar="[NAME=]URL",
        help="measure a running server instead; repeat it to compare several",
    )
    made.add_argument(
        "--pattern",
        action="append",
        default=[],
        help="what to measure, as --index-cache-pattern takes it; repeatable",
    )
    made.add_argument(
        "--reference",
        default="full",
        help="what the others are compared with: a pattern, or the name of a --url "
        "(default: %(default)s)",
    )
    made.add_argument(
        "--data",
        default="test",
        help=f"a built-in suite ({', '.join(SUITES)}), a .jsonl file with answers, or a text file "
        "(default: %(default)s)",
    )
    made.add_argument(
        "--context-lengths",
        type=counts,
        metavar="N[,N...]",
        help="tokens; at least 8 x index_topk (default: 2048,4096,8192 for a suite; a file's own "
        "lengths; 16 x index_topk for text)",
    )
    made.add_argument(
        "--documents",
        type=count,
        metavar="N",
        help="documents of each length (default: 16; all of a file with answers)",
    )
    made.add_argument(
        "--control",
        action="append",
        default=[],
        metavar="uniform|random:N",
        help="also measure evenly spread, or N random, Full layers, as many as each pattern has",
    )
    made.add_argument(
        "--output", type=Path, metavar="DIR", help="default: evaluation-DATE-TIME, here"
    )
    return made


def main(argv: Sequence[str]) -> int:
    own, server_argv = split_server_arguments(list(argv))
    made = parser()
    # argparse, too, would otherwise print its usage before the one line that matters.
    made.error = refuse
    args = made.parse_args(own)
    try:
        finished = run(args, server_argv, environment.command(argv))
        return 0 if finished else EXIT_INTERRUPTED
    except (ValueError, EngineError, OSError) as error:
        refuse(" ".join(str(error).split()))
    except KeyboardInterrupt:
        print("stopped before anything was measured", file=sys.stderr)
        return EXIT_INTERRUPTED
