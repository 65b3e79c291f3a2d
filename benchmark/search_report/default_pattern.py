"""A search becomes the bundled model's pattern file: `python -m search_report.default_pattern`.

    PYTHONPATH=benchmark python -m search_report.default_pattern SEARCH/pattern.json 11

How many layers stay Full is a person's choice, from the losses and from answers on the validation
split; which ones is the search's.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from sglang_ic.command_line import refuse
from sglang_ic.demo import default_pattern_file

KEYS = ("num_layers", "patterns", "loss", "loss_stderr", "increase", "increase_stderr", "order")
FACTS = ("command", "layer_token_forwards", "versions", "hardware")


def content(search: dict, num_full: int) -> dict:
    """The pattern file, from a search's pattern.json.

    Raises:
        ValueError: the search is not complete, or has no such pattern.
    """
    if not search["complete"]:
        raise ValueError("the search is not complete: go on with --resume first")
    if str(num_full) not in search["patterns"]:
        raise ValueError(
            f"the search has no pattern with {num_full} Full layers: give one of "
            f"{', '.join(search['patterns'])}"
        )
    data = {key: search["data"][key] for key in ("source", "num_tokens", "fingerprint")}
    return {
        "pattern": search["patterns"][str(num_full)],
        **{key: search[key] for key in KEYS},
        "model_fingerprint": search["model"]["fingerprint"],
        "data": data,
        "method": search["settings"]["method"],
        **{key: search[key] for key in FACTS},
    }


def main(argv: Sequence[str]) -> int:
    if len(argv) != 2 or not argv[1].isdigit():
        print(__doc__, file=sys.stderr)
        return 2
    try:
        found = content(json.loads(Path(argv[0]).read_text()), int(argv[1]))
    except (ValueError, KeyError, OSError) as error:
        refuse(f"{argv[0]}: {error}")
    default_pattern_file().write_text(json.dumps(found, indent=1) + "\n")
    print(f"{found['pattern']} is in {default_pattern_file()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
