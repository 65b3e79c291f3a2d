"""RECORD: the list of installed files that pip, and our `verify`, hold against the disk.

A row is `path,sha256=<urlsafe base64 without padding>,<size in bytes>`; RECORD itself and byte code
have empty hash and size. Paths are relative to site-packages.
"""

import csv
import hashlib
import io
from base64 import urlsafe_b64encode

from . import ForkError

Record = dict[str, tuple[str, str]]  # path -> (hash, size), both "" when not recorded


def parse_record(data: bytes, where: str) -> Record:
    """Read RECORD's rows.

    Raises:
        ForkError: a row without exactly three fields, or bytes that are no UTF-8.
    """
    record: Record = {}
    try:
        for row in csv.reader(io.StringIO(data.decode("utf-8"), newline="")):
            path, digest, size = row
            record[path] = (digest, size)
    except (ValueError, csv.Error):
        raise ForkError(
            f"{where}: row {len(record) + 1} is not `path,hash,size`: reinstall"
        ) from None
    return record


def render_record(record: Record) -> bytes:
    """Write the rows sorted by path, so that equal content gives equal bytes."""
    text = io.StringIO(newline="")
    rows = ((path, *record[path]) for path in sorted(record))
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8")


def record_row(data: bytes) -> tuple[str, str]:
    """Return the hash and size columns for a file's content."""
    digest = urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"sha256={digest}", str(len(data))


def row_mismatch(row: tuple[str, str], data: bytes) -> str | None:
    """Say how `data` differs from its RECORD row, None when it does not or the row has no hash."""
    digest, size = row
    if not digest:
        return None
    if not digest.startswith("sha256="):
        return f"RECORD uses {digest.partition('=')[0]!r}, only sha256 is known"
    actual = record_row(data)
    if actual == (digest, size or actual[1]):
        return None
    return f"has {actual[0]} ({actual[1]} bytes), RECORD says {digest} ({size} bytes)"
