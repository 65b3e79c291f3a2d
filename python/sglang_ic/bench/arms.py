"""Arms: what is compared, as the user wrote it, and the command that serves each of them.

full                  sglang_ic's server with --index-cache-pattern full
1/4=FILE              named: any value that --index-cache-pattern takes
preset:glm-5-1/4      unnamed: the value is the name
stock                 upstream's own server, from another interpreter
NAME=http://...       a server that already runs
"""

from __future__ import annotations

import re
from dataclasses import dataclass

STOCK = "stock"
URL = re.compile(r"https?://")


class ArmError(ValueError):
    """An arm that cannot be used; the message is one line for the user."""


@dataclass(frozen=True)
class Arm:
    """One side of the comparison: a pattern to launch with, upstream's server, or a URL."""

    name: str
    pattern: str | None = None
    url: str | None = None

    @property
    def kind(self) -> str:
        if self.url is not None:
            return "url"
        return "stock" if self.pattern is None else "launched"


def parse(text: str) -> Arm:
    """An arm from what was typed after `--arm`.

    Raises:
        ArmError: no name or no value.
    """
    name, equals, value = text.partition("=")
    if URL.match(text):
        raise ArmError(f"arm {text!r} has no name: write NAME={text}")
    if not name or (equals and not value):
        raise ArmError(f"arm {text!r}: use full, stock, PATTERN, NAME=PATTERN or NAME=http://...")
    if not equals:
        return Arm(name, pattern=None if name == STOCK else name)
    if URL.match(value):
        return Arm(name, url=value.rstrip("/"))
    return Arm(name, pattern=None if value == STOCK else value)


def parse_all(texts: list[str], *, control: bool) -> list[Arm]:
    """Arms in the order typed; the first is the reference, and `control` repeats it at the end.

    Raises:
        ArmError: none, or two with one name.
    """
    if not texts:
        raise ArmError("no --arm: give at least one, for example --arm full --arm 1/4=FILE")
    arms = [parse(text) for text in texts]
    if control:
        first = arms[0]
        arms.append(Arm(control_name(first.name), first.pattern, first.url))
    names = [arm.name for arm in arms]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ArmError(f"two arms are called {twice[0]!r}: give NAME=VALUE with another name")
    return arms


def control_name(reference: str) -> str:
    return f"{reference} (again)"


def command(
    arm: Arm,
    *,
    python: str,
    stock_python: str | None,
    model: str,
    port: int,
    flags: list[str],
    stock_flags: list[str],
) -> list[str]:
    """The command line that serves `arm`; loopback only.

    Args:
        flags: what the user gives to every server.
        stock_flags: what upstream's own server needs here; ours adds them itself.

    Raises:
        ArmError: `stock` without an interpreter that has upstream's SGLang.
    """
    assert arm.url is None, "a URL is not launched"
    where = ["--model-path", model, "--host", "127.0.0.1", "--port", str(port)]
    if arm.pattern is not None:
        pattern = ["--index-cache-pattern", arm.pattern]
        return [python, "-m", "sglang_ic.launch_server", *where, *pattern, *flags]
    if stock_python is None:
        raise ArmError("arm 'stock' needs an interpreter: run `make stock` or give --stock-python")
    return [stock_python, "-m", "sglang.launch_server", *where, *flags, *stock_flags]
