"""The command line: arguments in, one line out; a refusal is one line on stderr and exit code 2."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from . import ForkError, maintain
from .fetch import (
    any_upstream_wheel,
    default_cache,
    given_wheel,
    pinned_name,
    running_python,
    upstream_wheel,
)
from .install import apply_in_place
from .series import default_patches, load_series
from .upstream import Pin, load_pin
from .verify import installed_fork, status_lines, verify_installed, verify_series
from .wheel import build_wheel

_ABOUT = "Build the patched SGLang wheel, patch an installed SGLang, and keep the patch series."
_WORKFLOW = """\
writing patches:
  python -m sglang_ic.fork unpack --out TREE        # upstream + series
  $EDITOR TREE/sglang/...                           # edit in place
  python -m sglang_ic.fork diff --tree TREE --name dsa-carry-topk.patch
A new NAME is appended to patches/series with a header to fill in; a listed one keeps its header.
To change a patch in the middle: `unpack --through NAME`, edit, `diff --name NAME`, `refresh`.

exit code: 0 done, 1 verify found a fault, 2 refused (one line says why; nothing was written).
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = _parser().parse_args(argv)
    try:
        pin = load_pin(args.patches)
        return args.run(args, pin)
    except (ForkError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _build(args: argparse.Namespace, pin: Pin) -> int:
    began = time.perf_counter()
    series = load_series(args.patches, pin)
    cache = default_cache(args.patches)
    if args.wheel:
        wheel = given_wheel(pin, args.wheel)
    else:
        wheel = upstream_wheel(pin, cache, args.python_version)
    path = build_wheel(pin, series, wheel, pinned_name(pin, wheel), args.out)
    took = time.perf_counter() - began
    print(f"{path}: {len(series)} patches, {path.stat().st_size / 1e6:.1f} MB, {took:.1f} s")
    return 0


def _apply(args: argparse.Namespace, pin: Pin) -> int:
    series = load_series(args.patches, pin)
    done = apply_in_place(pin, series, args.target)
    what = f"{len(series)} patches applied" if done else f"already applied, {len(series)} patches"
    print(f"{args.target}: {pin.package} {pin.fork_version}: {what}")
    return 0


def _verify(args: argparse.Namespace, pin: Pin) -> int:
    if args.target:
        rows = verify_installed(pin, args.patches, args.target)
    else:
        rows = verify_series(pin, args.patches, lambda: _any_wheel(args, pin))
        fork = installed_fork(pin)
        rows += verify_installed(pin, args.patches, fork) if fork else []
    print(*rows, sep="\n")
    return int(any(row.fault for row in rows))


def _status(args: argparse.Namespace, pin: Pin) -> int:
    print(*status_lines(pin, args.patches), sep="\n")
    return 0


def _unpack(args: argparse.Namespace, pin: Pin) -> int:
    count = maintain.unpack(pin, args.patches, _any_wheel(args, pin), args.out, args.through)
    print(f"{args.out}: {pin.package} {pin.version} with {count} patches applied")
    return 0


def _diff(args: argparse.Namespace, pin: Pin) -> int:
    print(maintain.diff(pin, args.patches, _any_wheel(args, pin), args.tree, args.name))
    return 0


def _refresh(args: argparse.Namespace, pin: Pin) -> int:
    print(*maintain.refresh(pin, args.patches, _any_wheel(args, pin)), sep="\n")
    return 0


def _any_wheel(args: argparse.Namespace, pin: Pin) -> Path:
    """The upstream wheel for commands that only look at sources."""
    if args.wheel:
        return given_wheel(pin, args.wheel)
    return any_upstream_wheel(pin, default_cache(args.patches))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m sglang_ic.fork",
        description=_ABOUT,
        epilog=_WORKFLOW,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name, run, help, wheel=True):
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(run=run)
        sub.add_argument(
            "--patches", type=Path, default=default_patches(), help="patch directory (%(default)s)"
        )
        if wheel:
            sub.add_argument(
                "--wheel", type=Path, help="upstream wheel; default: .cache/, else pip"
            )
        return sub

    sub = command("build", _build, "build the patched wheel from the upstream wheel")
    sub.add_argument("--out", type=Path, default=Path("dist"), help="directory (%(default)s)")
    sub.add_argument(
        "--python-version", default=running_python(), help="CPython to build for (%(default)s)"
    )
    sub = command("apply", _apply, "patch an installed SGLang in place", wheel=False)
    sub.add_argument("--target", type=Path, required=True, help="its site-packages directory")
    sub = command("verify", _verify, "check the series, and the fork if one is installed")
    sub.add_argument("--target", type=Path, help="check only the fork in this site-packages")
    command("status", _status, "print the pin, the series and what is installed", wheel=False)
    sub = command("unpack", _unpack, "unpack upstream + series, for editing")
    sub.add_argument("--out", type=Path, required=True, help="directory to make")
    sub.add_argument("--through", metavar="NAME", help="last patch to apply (all)")
    sub = command("diff", _diff, "write an edited tree's changes as a patch")
    sub.add_argument("--tree", type=Path, required=True, help="edited tree, made by unpack")
    sub.add_argument("--name", required=True, help="patch to write, <area>-<verb>-<object>.patch")
    command("refresh", _refresh, "regenerate patches and ledger; at the pin nothing changes")
    return parser
