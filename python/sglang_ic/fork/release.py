"""From an upstream tree and the series to the fork's files: sources, version, RECORD and stamp.

Shared by the wheel and the in-place path, so that both give the same bytes.
"""

import json
import re
from collections.abc import Sequence

from . import ForkError
from .apply import Overlay, apply_series
from .patchfile import Patch
from .record import parse_record, record_row, render_record
from .upstream import Pin

STAMP = "ic_fork.json"


def release(
    tree: Overlay, patches: Sequence[Patch], pin: Pin, wheel: str | None
) -> dict[str, bytes | None]:
    """Return every file the fork changes, computed in memory.

    Args:
        tree: the upstream files, from site-packages down.
        wheel: pinned file name of the wheel that the tree came from, None when not known.
    Returns:
        path -> content, None: deleted. Paths use upstream's dist-info directory: its rename to
        `pin.fork_dist_info` is the caller's, while RECORD's rows carry the new name already. A tree
        without dist-info gets its stamp beside the package instead.
    Raises:
        ForkError: a patch does not apply, or a version line is not where the pin has it.
    """
    apply_series(tree, patches)
    old = pin.upstream_dist_info
    tree.changed[pin.version_file] = _new_version(tree.read(pin.version_file), pin)
    stamp = make_stamp(pin, patches, wheel)
    recorded = tree.read(f"{old}/RECORD")
    if recorded is None:
        tree.changed[loose_stamp(pin)] = stamp
        return tree.changed
    tree.changed[f"{old}/METADATA"] = _new_metadata(tree.read(f"{old}/METADATA"), pin)
    tree.changed[f"{old}/{STAMP}"] = stamp
    rows = {
        _renamed(path, pin): row for path, row in parse_record(recorded, f"{old}/RECORD").items()
    }
    for path, data in tree.changed.items():
        if data is None:
            rows.pop(path, None)
        else:
            rows[_renamed(path, pin)] = record_row(data)
    tree.changed[f"{old}/RECORD"] = render_record(rows)
    return tree.changed


def loose_stamp(pin: Pin) -> str:
    """Where the stamp lies when the tree has no dist-info: beside the package, not in it."""
    return f"{pin.package}.{STAMP}"


def make_stamp(pin: Pin, patches: Sequence[Patch], wheel: str | None) -> bytes:
    """Return the machine-readable account of what this fork is made of."""
    facts = {
        "package": pin.package,
        "version": pin.fork_version,
        "upstream": {
            "version": pin.version,
            "wheel": wheel,
            "sha256": pin.wheels[wheel] if wheel else None,
        },
        "series": [{"patch": patch.name, "sha256": patch.sha256} for patch in patches],
    }
    return json.dumps(facts, indent=2).encode() + b"\n"


def stamp_difference(stamp: bytes, pin: Pin, patches: Sequence[Patch]) -> str | None:
    """Say how a stamp differs from the current pin and series, None when it does not."""
    wanted = json.loads(make_stamp(pin, patches, None))
    try:
        found = json.loads(stamp)
        version, series = found["version"], found["series"]
    except (ValueError, KeyError, TypeError):
        return "the stamp is not readable"
    if version != wanted["version"]:
        return f"it is {version}, the pin says {wanted['version']}"
    if series == wanted["series"]:
        return None
    for ours, theirs in zip(wanted["series"], series, strict=False):
        if ours != theirs:
            return f"it was made with another {ours['patch']}"
    return f"it was made with {len(series)} patches, the series has {len(wanted['series'])}"


def _renamed(path: str, pin: Pin) -> str:
    head, slash, rest = path.partition("/")
    return f"{pin.fork_dist_info}/{rest}" if slash and head == pin.upstream_dist_info else path


def _new_version(data: bytes | None, pin: Pin) -> bytes:
    """Rewrite the two assignments of the generated version module."""
    parts = ", ".join(pin.version.split("."))
    local = pin.fork_version.partition("+")[2]
    return _substitute(
        data,
        pin.version_file,
        (f" version = '{pin.version}'", f" version = '{pin.fork_version}'"),
        (f" version_tuple = ({parts})", f" version_tuple = ({parts}, '{local}')"),
    )


def _new_metadata(data: bytes | None, pin: Pin) -> bytes:
    path = f"{pin.upstream_dist_info}/METADATA"
    return _substitute(data, path, (f"Version: {pin.version}", f"Version: {pin.fork_version}"))


def _substitute(data: bytes | None, path: str, *pairs: tuple[str, str]) -> bytes:
    """Replace each line end that must occur exactly once."""
    for old, new in pairs:
        pattern = re.compile(rb"(?m)" + re.escape(old.encode()) + rb"(?=\r?$)")
        data, count = pattern.subn(new.encode(), data or b"")
        if count != 1:
            raise ForkError(
                f"{path}: {count} lines end in {old.strip()!r}, must be 1: not the pinned release"
            )
    return data
