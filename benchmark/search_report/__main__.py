"""Read the results of a folder, and write the report: nothing is measured here.

    PYTHONPATH=benchmark python -m search_report RESULTS [OUTPUT]

OUTPUT (default: benchmark/reports/search) is a path without ending: .json, .md and .png are added.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from search_report import fidelity, held_out, page, pictures, results, stability
from sglang_ic.command_line import refuse

SCHEMA_VERSION = 1
OUTPUT = Path(__file__).parents[1] / "reports" / "search"


def document(found: results.Results) -> dict:
    """The report as JSON; a section that was not measured is None."""
    sources = [*found.searches.values(), *found.loss_runs, found.held_out, found.speed]
    return {
        "schema_version": SCHEMA_VERSION,
        "fidelity": fidelity.measure(found),
        "held_out": held_out.measure(found),
        "stability": stability.measure(found),
        "speed": found.speed,
        "sources": [
            {
                "command": one["command"],
                "seconds": one.get("seconds"),
                "hardware": one["hardware"],
                "versions": one.get("versions") or one["software"],
            }
            for one in sources
            if one is not None
        ],
    }


def main(argv: Sequence[str]) -> int:
    if not 1 <= len(argv) <= 2 or argv[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    output = Path(argv[1]) if len(argv) == 2 else OUTPUT
    try:
        found = results.read(Path(argv[0]))
        made = document(found)
    except (ValueError, OSError) as error:
        refuse(" ".join(str(error).split()))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.with_suffix(".json").write_text(json.dumps(made, indent=1) + "\n")
    text = page.markdown(made).replace("search.png", f"{output.name}.png")
    output.with_suffix(".md").write_text(text)
    pictures.write(made, found, output.with_suffix(".png"))
    print(page.verdicts(made))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
