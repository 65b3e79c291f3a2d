"""How the server of an arm is started on this machine: interpreter, flags, environment, log."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sglang_ic.bench.arms import Arm, ArmError, command
from sglang_ic.bench.servers import LaunchedServer, free_port
from sglang_ic.demo import bundled_model
from sglang_ic.server import arguments

CHECKOUT = Path(__file__).resolve().parents[3]
STOCK_PYTHON = CHECKOUT / ".venv-stock" / "bin" / "python"
# Take the place of upstream's two GPU-only packages when its wheel runs on a CPU.
STANDINS = CHECKOUT / "test" / "standins"

# What the client decides itself, for every server.
OWN_FLAGS = ("--host", "--port", "--model-path", "--index-cache-pattern")

Launch = Callable[[Arm], LaunchedServer]


def launcher(
    arms: Sequence[Arm],
    *,
    model: str | None,
    stock_python: str | None,
    flags: list[str],
    logs: Path,
) -> tuple[bool, Launch | None]:
    """Whether servers run on the CPU, and the function that starts one (None: all are URLs).

    Args:
        model: its path; None for the bundled one.
        stock_python: interpreter of upstream's own server; None for the checkout's.
        flags: of every server.

    Raises:
        ArmError: `stock` without an interpreter, or a flag that is not the user's to give.
    """
    if all(arm.url for arm in arms):
        return True, None
    own = [flag for flag in OWN_FLAGS if arguments.has_flag(flags, flag)]
    if own:
        raise ArmError(
            f"{own[0]} after --: servers get theirs from the client; use --model-path before --, "
            "and --arm NAME=PATTERN"
        )
    model = model or str(bundled_model())
    on_cpu = arguments.wants_cpu(flags)
    is_bundled = model == str(bundled_model())
    if stock_python is None and STOCK_PYTHON.exists():
        stock_python = str(STOCK_PYTHON)
    if stock_python is not None and shutil.which(stock_python) is None:
        raise ArmError(f"--stock-python {stock_python!r} cannot be run: give a Python interpreter")
    taken: set[int] = set()

    def words(arm: Arm) -> list[str]:
        return command(
            arm,
            python=sys.executable,
            stock_python=stock_python,
            model=model,
            port=free_port(taken),
            flags=flags,
            stock_flags=_missing(flags, on_cpu=on_cpu, is_bundled=is_bundled),
        )

    def launch(arm: Arm) -> LaunchedServer:
        environment = {}
        if arm.kind == "stock" and on_cpu:
            environment = stock_environment()
        elif arm.kind == "stock" and is_bundled:
            environment = arguments.BUNDLED_CUDA_ENVIRONMENT
        log = logs / (arm.name.replace("/", "-").replace(" ", "-") + ".log")
        return LaunchedServer(arm.name, words(arm), environment, log)

    for arm in arms:
        if arm.url is None:
            words(arm)  # refuses before anything is started
    return on_cpu, launch


def stock_environment() -> dict[str, str]:
    """What lets upstream's own wheel serve DSA on a CPU: our CPU plugin alone, and stand-ins."""
    path = [str(STANDINS)] if STANDINS.exists() else []
    path += filter(None, [os.environ.get("PYTHONPATH")])
    return {
        "SGLANG_USE_CPU_ENGINE": "1",
        "SGLANG_PLUGINS": "sglang_ic_cpu",
        "PYTHONPATH": os.pathsep.join(path),
    }


def _missing(flags: list[str], *, on_cpu: bool, is_bundled: bool) -> list[str]:
    """What our server adds by itself and the user did not type."""
    added = arguments.CPU_FLAGS if on_cpu else arguments.BUNDLED_CUDA_FLAGS if is_bundled else {}
    return arguments.with_defaults(flags, added)[len(flags) :]
