"""The result as one JSON document: settings, versions, hardware, every request, every ratio.

The Markdown and HTML reports are made from this document alone, so they can be made again from it.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from sglang_ic.bench import compare, metrics
from sglang_ic.bench.arms import Arm
from sglang_ic.bench.launch import CHECKOUT
from sglang_ic.bench.record import Measured
from sglang_ic.bench.scenario import Point, Scenario
from sglang_ic.bench.session import Plan, Result

SCHEMA_VERSION = 1
PACKAGES = ("sglang", "sglang_ic", "torch", "transformers", "aiohttp", "numpy", "scipy")


def build(
    plan: Plan,
    scenarios: Sequence[Scenario],
    result: Result,
    *,
    command: str,
    settings: dict[str, Any],
    started_at: str,
    finished_at: str,
) -> dict[str, Any]:
    """The whole document, of JSON values only.

    Args:
        settings: every command-line value, defaults included.
        started_at, finished_at: UTC, ISO 8601.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "what": "sglang_ic.bench",
        "command": shown(command),
        "started_at": started_at,
        "finished_at": finished_at,
        "is_interrupted": result.interrupted,
        "settings": settings,
        "versions": versions(),
        "hardware": hardware(),
        "reference": plan.arms[0].name,
        "arms": [_arm(arm, result) for arm in plan.arms],
        "scenarios": {one.name: one.description for one in scenarios},
        "points": [
            _point(point, [arm.name for arm in plan.arms], result)
            for point in plan.points
            if any(block.point == point.key for block in result.blocks)
        ],
        "left_out": result.left_out,
        "calibrations": {key: one.as_dict() for key, one in result.calibrations.items()},
        "blocks": [_block(block) for block in result.blocks],
    }


def shown(text: str) -> str:
    """Without the machine's folders: the working one, the checkout, and ~ for home."""
    for folder, short in ((f"{Path.cwd()}/", ""), (f"{CHECKOUT}/", ""), (str(Path.home()), "~")):
        text = re.sub(rf"(?<![\w/.]){re.escape(folder)}", short, text)
    return text


def versions() -> dict[str, str | None]:
    """Of the client's own environment; a server's SGLang is told with its arm."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def hardware() -> dict[str, Any]:
    """Of the machine that the client runs on."""
    cpu = None
    if Path("/proc/cpuinfo").exists():
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        cpu = found[1] if found else None
    gpus: list[str] = []
    if shutil.which("nvidia-smi"):
        asked = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
        )
        gpus = asked.stdout.strip().splitlines() if asked.returncode == 0 else []
    return {
        "cpu": cpu or platform.machine(),
        "num_cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": gpus,
        "system": f"{platform.system()} {platform.release()}",
    }


def _arm(arm: Arm, result: Result) -> dict[str, Any]:
    server = result.servers.get(arm.name)
    identity = result.identities.get(arm.name)
    told = dataclasses.asdict(identity) if identity else {}
    return {
        "name": arm.name,
        "kind": arm.kind,
        "asked_pattern": shown(arm.pattern) if arm.pattern else None,
        "url": arm.url,
        "command": [shown(word) for word in server.command] if server else None,
        "start_sec": server.start_sec if server else None,
        "given_up": result.retired.get(arm.name),
        **{key: shown(value) if isinstance(value, str) else value for key, value in told.items()},
    }


def _point(point: Point, arms: list[str], result: Result) -> dict[str, Any]:
    resolved = result.points.get(point.key, point)
    objective = {k: v for k, v in resolved.objective if not isinstance(v, str)}
    whole = {
        arm: [b for b in result.blocks if b.point == point.key and b.arm == arm and b.is_whole]
        for arm in arms
    }
    return {
        "key": point.key,
        "scenario": point.scenario,
        "label": point.label,
        "requests": point.requests,
        "concurrency": point.concurrency,
        "rate_per_sec": resolved.rate,
        "objective": objective,
        "traffic": [dataclasses.asdict(traffic) for traffic in point.traffic],
        "arms": {
            arm: metrics.summarize(blocks, objective) for arm, blocks in whole.items() if blocks
        },
        "ratios": {
            arm: compare.ratios(whole[arms[0]], blocks)
            for arm, blocks in whole.items()
            if arm != arms[0] and blocks
        },
    }


def _block(block: Measured) -> dict[str, Any]:
    fields = {
        field.name: _plain(getattr(block, field.name))
        for field in dataclasses.fields(block)
        if field.name != "requests"
    }
    requests = [
        _plain({**dataclasses.asdict(request), "mean_itl_sec": request.mean_itl_sec})
        for request in block.requests
    ]
    return {**fields, "requests": requests}


def _plain(value: Any) -> Any:
    """As JSON has it; seconds to the microsecond, more digits would only make the file longer."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return round(value, 6) if isinstance(value, float) else value
