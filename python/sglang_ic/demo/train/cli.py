"""The command line of training: train or continue, then write the model and its curves."""

import argparse
import math
import sys
from pathlib import Path

import torch

from sglang_ic.demo.documents.bpe import VOCAB_SIZE
from sglang_ic.demo.train import curves, export
from sglang_ic.demo.train.recipe import RECIPE, SHAPE
from sglang_ic.demo.train.trainer import LOG, Trainer


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sglang_ic.demo.train",
        description="Train the bundled model: 15 minutes on one H200. Run the same command again "
        "to continue where it stopped.",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="where the checkpoint, the log, and in the end model/ and curves.png go",
    )
    parser.add_argument(
        "--time-limit",
        type=float,
        default=math.inf,
        metavar="SECONDS",
        help="stop with a checkpoint after this long",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=14, help="processes that write documents")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    torch.set_float32_matmul_precision("high")
    try:
        trainer = Trainer(
            args.output,
            shape=SHAPE,
            vocab_size=VOCAB_SIZE,
            stages=RECIPE,
            seed=args.seed,
            device=args.device,
            workers=args.workers,
        )
        resumed = trainer.resume()
    except (ValueError, OSError, RuntimeError) as error:
        # RuntimeError: torch's word for a device that is not there, or a file that is no checkpoint
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    if resumed:
        print(f"continuing {args.output} at stage {trainer.stage}, step {trainer.step}")
    if not trainer.run(time_limit=args.time_limit):
        print(f"stopped after {trainer.seconds:.0f} s of training; the same command continues")
        return 0
    export.write_model(args.output / "model", trainer.model.state_dict(), SHAPE)
    curves.draw(args.output / LOG, args.output / "curves.png")
    print(f"{args.output / 'model'} after {trainer.seconds:.0f} s of training")
    return 0
