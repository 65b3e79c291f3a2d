"""The ledger: the table in `patches/README.md`, generated from the patch headers."""

from collections.abc import Sequence
from pathlib import Path

from . import ForkError
from .header import parse_header
from .patchfile import Patch

BEGIN = "<!-- ledger: written by `python -m sglang_ic.fork refresh` -->"
END = "<!-- /ledger -->"
_COLUMNS = ("#", "Patch", "Why", "Drop when", "Forwarded", "Applied upstream", "Guarded by")


def render_ledger(patches: Sequence[Patch]) -> str:
    """Return the table, one row per patch in series order; a header that is not complete raises."""
    rows = [_COLUMNS, ("---",) * len(_COLUMNS)]
    for number, patch in enumerate(patches, 1):
        header = parse_header(patch)
        rows.append(
            (
                str(number),
                f"[{patch.name}]({patch.name})",
                header.sections["Why"],
                header.drop_when,
                header.forwarded,
                header.applied_upstream,
                " ".join(f"`{guard}`" for guard in header.guarded_by),
            )
        )
    escaped = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    return "".join(f"| {' | '.join(row)} |\n" for row in escaped)


def refreshed_ledger(readme: Path, patches: Sequence[Patch]) -> bytes:
    """Return the README's bytes with the table between its two markers replaced."""
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ForkError(f"{readme}: lacks the ledger markers: put back {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{render_ledger(patches)}\n{END}{after}".encode()
