"""The files of a search: pattern.json after every step, report and pictures at its end."""

import argparse
import json
import os
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sglang_ic.evaluate import environment
from sglang_ic.search import plots, report
from sglang_ic.search.engine import EngineObjective
from sglang_ic.search.objective import LossTable
from sglang_ic.search.plan import exhaustive_cost
from sglang_ic.search.result import Found, document
from sglang_ic.search.selfcheck import Noise
from sglang_ic.search.setup import Setup

PATTERN, REPORT, LOG = "pattern.json", "report.md", "engine.log"


class Output:
    """Writes files whole: a reader sees the old bytes or the new ones, never a part."""

    def __init__(
        self,
        args: argparse.Namespace,
        setup: Setup,
        objective: EngineObjective,
        noise: Noise,
        server_argv: list[str],
        command: str,
    ) -> None:
        self.folder = args.output
        self._started = time.time()
        self._document: dict[str, Any] = {}
        self._facts = {
            "command": command,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "exhaustive_layer_token_forwards": exhaustive_cost(
                setup.constraints, sum(setup.lengths)
            ).at_most,
            "model": setup.model,
            "data": setup.data,
            "settings": {
                "method": args.method,
                "resumed": args.resume,
                "keep_full": sorted(setup.constraints.fixed),
                "pipeline_blocks": args.pipeline_blocks,
                "controls": args.control,
                "max_swaps": args.swaps,
                "kept_layers": list(objective.kept_layers),
                "kept_bytes": objective.kept_bytes,
                "engine_arguments": server_argv,
            },
            "noise": asdict(noise),
            "versions": environment.versions(),
            "hardware": environment.hardware(),
        }

    def write(self, found: Found, table: LossTable, complete: bool) -> None:
        """pattern.json and report.md as of now."""
        # Of this run alone; the journal of a resumed one does not tell times.
        facts = {"seconds": time.time() - self._started, **self._facts}
        self._document = document(found, table, facts, complete)
        self._replace(PATTERN, json.dumps(self._document, indent=1) + "\n")
        self._replace(REPORT, report.markdown(self._document))

    def draw(self) -> None:
        plots.write(self._document, self.folder)

    def summary(self) -> str:
        """For the terminal."""
        goal = min(map(int, self._document["patterns"]))
        pattern = self._document["patterns"][str(goal)]
        return (
            f"{report.curve(self._document)}\n\n"
            f"{goal} Full of {len(pattern)}: {pattern}\n"
            f"{report.work(self._document)}\n"
            f"Serve it with --index-cache-pattern {self.folder / PATTERN}@{goal}; more in "
            f"{self.folder / REPORT}"
        )

    def _replace(self, name: str, text: str) -> None:
        scratch = self.folder / f".{name}"
        scratch.write_text(text)
        os.replace(scratch, self.folder / name)
