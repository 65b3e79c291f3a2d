"""What the command lines of our tools share: counts, SGLang's own arguments, one-line refusals."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import NoReturn

EXIT_REFUSED, EXIT_INTERRUPTED = 2, 130

# SGLang's flags whose value nobody else may read; commands go into reports that people share.
SECRET_FLAGS = ("--api-key", "--admin-api-key", "--ssl-keyfile-password")
MASK = "***"


def count(text: str) -> int:
    """An argparse type: an integer of 1 or more."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give an integer of 1 or more")
    return int(text)


def counts(text: str) -> tuple[int, ...]:
    """An argparse type: counts with commas between them, each one once."""
    return tuple(dict.fromkeys(count(part) for part in text.split(",")))


def refuse(message: str) -> NoReturn:
    """One line on stderr and exit code 2; argparse would print its usage before it."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(EXIT_REFUSED)


def split_server_arguments(argv: list[str]) -> tuple[list[str], list[str]]:
    """Our arguments, and SGLang's: what follows a lone `--`."""
    if "--" not in argv:
        return argv, []
    at = argv.index("--")
    return argv[:at], argv[at + 1 :]


def command(module: str, argv: Sequence[str]) -> str:
    """What was typed, as one line for a report, without secrets."""
    return shlex.join(masked(["python", "-m", module, *argv]))


def masked(words: Sequence[str]) -> list[str]:
    """A command's words with `***` for the value of every secret flag."""
    shown, is_secret = [], False
    for word in words:
        flag, equals, _ = word.partition("=")
        if is_secret:
            word = MASK
        elif equals and flag in SECRET_FLAGS:
            word = f"{flag}={MASK}"
        is_secret = not is_secret and word in SECRET_FLAGS
        shown.append(word)
    return shown
