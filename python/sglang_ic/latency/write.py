"""The files of a report, beside its journal: OUTPUT.json, OUTPUT.md, OUTPUT.png."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from sglang_ic.fork.files import write_atomic
from sglang_ic.latency.document import build
from sglang_ic.latency.journal import Journal
from sglang_ic.latency.report import markdown


def report(journal: Journal, output: Path) -> str:
    """Write them all; returns the page. Without matplotlib there is no picture.

    Raises:
        JournalError: nothing was measured yet.
    """
    document = build(journal.lines)
    picture = _beside(output, ".png")
    has_picture = importlib.util.find_spec("matplotlib") is not None
    if has_picture:
        from sglang_ic.latency.chart import png

        write_atomic(picture, png(document))
    page = markdown(document, picture.name if has_picture else None)
    write_atomic(_beside(output, ".json"), (json.dumps(document, indent=1) + "\n").encode())
    write_atomic(_beside(output, ".md"), page.encode())
    return page


def _beside(output: Path, suffix: str) -> Path:
    """OUTPUT + suffix; a dot in the name stays."""
    return output.with_name(output.name + suffix)
