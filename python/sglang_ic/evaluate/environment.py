"""Where and how numbers were made: hardware, versions, command."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sglang_ic import command_line

PACKAGES = ("sglang_ic", "sglang", "torch", "transformers", "tokenizers", "numpy", "scipy")


def hardware() -> dict:
    """Of this machine; over HTTP the servers may run on another."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "cpu": _cpu_name(),
        "num_cores": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(count)],
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str | None]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def command(argv: Sequence[str]) -> str:
    return command_line.command("sglang_ic.evaluate", argv)
