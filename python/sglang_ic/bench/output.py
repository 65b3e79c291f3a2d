"""The report's folder: tried before the first request, filled with the numbers first.

A measurement takes hours and a chart a second, so nothing that goes wrong with a page may cost the
numbers: `report.json` is whole on disk before anything is drawn, and if even the document cannot
be made, the blocks are written as they are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sglang_ic.bench.record import Measured
from sglang_ic.fork.files import write_atomic


class OutputError(ValueError):
    """A folder that cannot take the report; the message is one line for the user."""


def prepare(folder: Path) -> None:
    """Make the folder and try to write there.

    Raises:
        OutputError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except OSError as error:
        raise OutputError(
            f"--output {str(folder)!r} cannot be written ({error.strerror}): give another folder"
        ) from error


def save(folder: Path, blocks: Sequence[Measured], build: Callable[[], dict[str, Any]]) -> None:
    """Write the document, then its pages and charts; a short table on stdout.

    Args:
        blocks: everything that was measured, for when the document cannot be made.
        build: makes the document.
    """
    try:
        told = build()
        write_atomic(folder / "report.json", (json.dumps(told) + "\n").encode())
    except Exception:
        raw = json.dumps([dataclasses.asdict(block) for block in blocks])
        write_atomic(folder / "blocks.json", raw.encode())
        _complain(f"no report could be made; every request is in {folder / 'blocks.json'}")
        raise
    try:
        num_images = _write_pages(folder, told)
    except Exception:
        _complain(f"the pages are not whole; every number is in {folder / 'report.json'}")
        raise
    with contextlib.suppress(BrokenPipeError):  # who has closed the pipe wants no table
        _print(told)
        print(f"report: {folder / 'report.html'} (and .md, .json, {num_images} PNG)", flush=True)


def _write_pages(folder: Path, told: dict[str, Any]) -> int:
    """Gives the number of charts."""
    from sglang_ic.bench import charts, html, markdown

    write_atomic(folder / "report.md", markdown.report(told).encode())
    images = charts.charts(told)
    write_atomic(folder / "report.html", html.report(told, images).encode())
    for name, data in images.items():
        write_atomic(folder / f"{name}.png", data)
    return len(images)


def _print(told: dict[str, Any]) -> None:
    from sglang_ic.bench import markdown

    print("\n".join(markdown.table(*markdown.ratio_rows(told))))
    for point in told["points"]:
        for line in markdown.error_lines(point):
            print(f"{point['key']}: {line}", file=sys.stderr)


def _complain(text: str) -> None:
    print(f"error: {text}", file=sys.stderr)
