"""What the pages of the latency report are made of: Markdown tables, and what an arm changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def head(*cells: str) -> list[str]:
    return [line(cells), "|" + "---|" * len(cells)]


def line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def changes(arms: dict[str, dict[str, Any]]) -> list[str]:
    return [f"- {arm} runs with `{one['changes']}`." for arm, one in arms.items() if one["changes"]]
