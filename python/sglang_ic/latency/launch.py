"""The command and environment that serve a group of arms on this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang_ic.bench.launch import CHECKOUT, STOCK_PYTHON, stock_environment
from sglang_ic.bench.servers import LaunchedServer
from sglang_ic.hopper import switches
from sglang_ic.latency import in_scheduler
from sglang_ic.latency.plan import Arm, Part, Plan
from sglang_ic.server import arguments


class LaunchError(ValueError):
    """Servers that cannot be started; the message is one line for the user."""


class QuickServer(LaunchedServer):
    """Ended at once: it holds nothing to keep, and its half minute to say goodbye is a GPU's."""

    def stop(self) -> None:
        self._signal(signal.SIGKILL)
        super().stop()


@dataclass(frozen=True)
class Stock:
    """Where upstream's own SGLang is: an interpreter, or a folder for this one's path."""

    python: str | None = None
    site: str | None = None

    def check(self) -> None:
        """Raises: LaunchError: there is none."""
        if self.site is not None:
            if not (Path(self.site) / "sglang").is_dir():
                raise LaunchError(f"--stock-site {self.site!r} holds no sglang: give its parent")
        elif shutil.which(self.interpreter) is None:
            raise LaunchError(
                f"stock arms need an unpatched SGLang, and {self.interpreter!r} cannot be run: "
                "run `make stock`, or give --stock-python or --stock-site"
            )

    @property
    def interpreter(self) -> str:
        if self.site is not None:
            return sys.executable
        return self.python or str(STOCK_PYTHON)


def command(
    plan: Plan, part: Part, group: tuple[Arm, ...], stock: Stock, port: int, *, on_cpu: bool
) -> list[str]:
    """The words that start the server of a group."""
    arm = group[0]
    flags = ["--port", str(port), "--model-path", str(plan.model), *part.flags, *arm.flags]
    flags += ["--host", "127.0.0.1", "--skip-tokenizer-init", "--skip-server-warmup"]
    if plan.weights == "dummy":
        flags += ["--load-format", "dummy"]
    if on_cpu:
        flags = arguments.with_defaults(flags, arguments.CPU_FLAGS)
    elif part.switch:
        # Roles change between passes; in_scheduler.py captures decode graphs for each arm.
        flags += ["--disable-prefill-cuda-graph", "--disable-decode-cuda-graph"]
    else:
        flags += ["--disable-prefill-cuda-graph"]
        if sizes := graph_batch_sizes(part):
            flags += ["--cuda-graph-bs-decode", *map(str, sizes)]
    override: dict[str, Any] = {}
    if arm.engine == "stock":
        types = ["full"] * plan.num_layers if part.switch else arm.pattern.indexer_types
        override = {"indexer_types": types}
    elif part.switch:
        override = {"index_cache_build": "all"}
    if arm.engine == "fork":
        flags += ["--index-cache-pattern", "full" if part.switch else str(arm.pattern)]
    if override:
        flags += ["--json-model-override-args", json.dumps(override)]
    python = stock.interpreter if arm.engine == "stock" else sys.executable
    return [python, "-W", "ignore", "-m", "sglang_ic.latency.serve", arm.engine, *flags]


def environment(
    part: Part, group: tuple[Arm, ...], stock: Stock, *, on_cpu: bool
) -> dict[str, str]:
    """Variables of the server's process, beside those of this one.

    The fork has upstream's kernels but for those that the arm names, so that arms of stock and fork
    differ by one thing at a time.
    """
    found = dict.fromkeys(switches.NAMES, switches.OFF) if group[0].engine == "fork" else {}
    found |= dict(group[0].environment)
    if on_cpu:
        found["SGLANG_USE_CPU_ENGINE"] = "1"  # read when sglang is imported
    if part.switch:
        found[in_scheduler.PATTERNS_VARIABLE] = json.dumps(patterns(group))
        found[in_scheduler.GRAPHS_VARIABLE] = json.dumps(graph_batch_sizes(part))
    if group[0].engine == "stock":
        if on_cpu:
            found |= stock_environment()
        elif stock.site is not None:
            found["SGLANG_PLUGINS"] = "none"
        if stock.site is not None:
            found["PYTHONPATH"] = os.pathsep.join(
                [str(Path(stock.site).resolve()), str(CHECKOUT / "python")]
            )
            found["PYTHONSAFEPATH"] = "1"  # not the sglang of the folder that this runs in
    return found


def patterns(group: tuple[Arm, ...]) -> list[str]:
    """F/S texts that a switched server knows: its arms', then all Full for filling its cache."""
    return [*(str(arm.pattern) for arm in group), "F" * group[0].pattern.num_layers]


def graph_batch_sizes(part: Part) -> list[int]:
    """Batch sizes that the part decodes at."""
    sizes = {size for stage in part.stages for size in stage.batch_sizes}
    if any(stage.kind == "profile" for stage in part.stages):
        sizes.add(1)
    return sorted(sizes)
