"""A patch file as data: a header, then unified diffs in git's format, parsed without leniency.

Accepted is what `git format-patch --keep-subject --no-stat --no-signature --zero-commit
--full-index` writes for text files: modified, new and deleted ones. Renames, mode changes and
binary hunks are refused, since nothing in the series should need them. Lines are bytes: a source
file need not be UTF-8.
"""

import hashlib
import re
from dataclasses import dataclass, field
from functools import cached_property

from . import ForkError

NO_BLOB = "0" * 40  # git's name for "this side does not exist"
_DIFF = re.compile(rb"diff --git a/(\S+) b/(\S+)\n")
_INDEX = re.compile(rb"index ([0-9a-f]{40})\.\.([0-9a-f]{40})(?: 100(?:644|755))?\n")
_HUNK = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+\d+(?:,(\d+))? @@(?: .*)?\n")
NO_EOL = b"\\ No newline at end of file\n"


@dataclass(frozen=True)
class Hunk:
    """One `@@` block."""

    old_start: int  # 1-based; with no old lines, the line that the new ones follow (0: file start)
    lines: tuple[bytes, ...]  # b" ", b"-" or b"+", then the text; no b"\n" at an EOF without one

    @cached_property
    def old(self) -> list[bytes]:
        """Lines the hunk expects to find."""
        return [line[1:] for line in self.lines if line[:1] != b"+"]

    @cached_property
    def new(self) -> list[bytes]:
        """Lines the hunk leaves behind."""
        return [line[1:] for line in self.lines if line[:1] != b"-"]


@dataclass(frozen=True)
class FilePatch:
    """What one patch does to one file."""

    path: str  # relative to site-packages, e.g. sglang/srt/server_args.py
    old_blob: str  # git blob id before; NO_BLOB: the patch creates the file
    new_blob: str  # git blob id after; NO_BLOB: the patch deletes the file
    hunks: tuple[Hunk, ...]


@dataclass(frozen=True)
class Patch:
    """One patch of the series."""

    name: str  # file name
    header: bytes  # everything before the first `diff --git`, kept byte for byte
    files: tuple[FilePatch, ...]
    raw: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.raw).hexdigest()


def parse_patch(name: str, raw: bytes, package: str) -> Patch:
    """Parse the bytes of one patch file.

    Args:
        name: the patch's file name, for messages.
        raw: the whole file.
        package: the only top-level directory that paths may lie under.
    Raises:
        ForkError: anything but a header and well-formed diffs of text files under `package`.
    """
    reader = _Reader(name, raw)
    header = reader.take_until(b"diff --git ")
    files: list[FilePatch] = []
    while reader.peek():
        file = _parse_file(reader, package)
        if any(file.path == other.path for other in files):
            raise ForkError(f"{name}: {file.path}: appears twice: keep one diff per file and patch")
        files.append(file)
    if not files:
        raise ForkError(f"{name}: holds no `diff --git` block: make it with the `diff` command")
    return Patch(name, header, tuple(files), raw)


def _parse_file(reader: "_Reader", package: str) -> FilePatch:
    match = reader.match(_DIFF, "diff --git a/PATH b/PATH (a text file under the same name)")
    path = match[1].decode("utf-8", "replace")
    reader.at = path
    parts = path.split("/")
    inside = parts[0] == package and len(parts) > 1 and not {"", ".", ".."} & set(parts)
    if match[1] != match[2] or not inside:
        raise reader.error(f"must be one path under {package}/ on both sides: no renames")
    created = reader.skip(b"new file mode 100644\n") or reader.skip(b"new file mode 100755\n")
    deleted = reader.skip(b"deleted file mode 100644\n")
    deleted = deleted or reader.skip(b"deleted file mode 100755\n")
    index = reader.match(_INDEX, "index OLD..NEW with full 40-digit ids (git's --full-index)")
    old_blob, new_blob = index[1].decode(), index[2].decode()
    if created != (old_blob == NO_BLOB) or deleted != (new_blob == NO_BLOB):
        raise reader.error("the index ids contradict the new/deleted file mode")
    hunks: list[Hunk] = []
    if reader.peek().startswith(b"--- "):  # absent when an empty file is created or deleted
        old_name = b"/dev/null" if created else b"a/" + match[1]
        new_name = b"/dev/null" if deleted else b"b/" + match[1]
        reader.expect(b"--- " + old_name + b"\n")
        reader.expect(b"+++ " + new_name + b"\n")
        while reader.peek().startswith(b"@@ "):
            hunks.append(_parse_hunk(reader, len(hunks) + 1))
        reader.at = path
    if not hunks and not (created or deleted):
        raise reader.error("holds no hunk")
    if reader.peek() and not reader.peek().startswith(b"diff --git "):
        raise reader.error(f"stray line after the last hunk: {reader.peek()[:60]!r}")
    return FilePatch(path, old_blob, new_blob, tuple(hunks))


def _parse_hunk(reader: "_Reader", number: int) -> Hunk:
    reader.at = f"{reader.at.split(': hunk')[0]}: hunk {number}"
    match = reader.match(_HUNK, "@@ -START,COUNT +START,COUNT @@")
    old_left, new_left = (1 if match[g] is None else int(match[g]) for g in (2, 3))
    lines: list[bytes] = []
    while old_left or new_left or reader.peek() == NO_EOL:
        line = reader.take()
        kind = line[:1]
        if line == NO_EOL and lines and lines[-1].endswith(b"\n"):
            lines[-1] = lines[-1][:-1]
            continue
        if kind not in (b" ", b"-", b"+") or not line.endswith(b"\n"):
            raise reader.error(f"must continue with ' ', '-' or '+', not {line[:60]!r}")
        old_left -= kind != b"+"
        new_left -= kind != b"-"
        lines.append(line)
    if old_left or new_left:
        raise reader.error("more lines than its @@ line counts")
    hunk = Hunk(int(match[1]), tuple(lines))
    if any(not line.endswith(b"\n") for side in (hunk.old, hunk.new) for line in side[:-1]):
        raise reader.error("only the last line of a file can lack its newline")
    return hunk


class _Reader:
    """A cursor over a patch's lines that knows where it is, for messages."""

    def __init__(self, name: str, raw: bytes):
        self.at = ""
        self._name = name
        self._lines = split_lines(raw)
        self._next = 0

    def error(self, reason: str) -> ForkError:
        where = ": ".join(part for part in (self._name, self.at) if part)
        return ForkError(f"{where}: {reason} (patch line {self._next + 1})")

    def peek(self) -> bytes:
        """The next line, b"" at the end."""
        return self._lines[self._next] if self._next < len(self._lines) else b""

    def take(self) -> bytes:
        line = self.peek()
        if not line:
            raise self.error("the patch ends in the middle: it is truncated")
        self._next += 1
        return line

    def take_until(self, prefix: bytes) -> bytes:
        start = self._next
        while self.peek() and not self.peek().startswith(prefix):
            self._next += 1
        return b"".join(self._lines[start : self._next])

    def skip(self, line: bytes) -> bool:
        if self.peek() != line:
            return False
        self._next += 1
        return True

    def expect(self, line: bytes) -> None:
        if not self.skip(line):
            raise self.error(f"must be {line!r}, not {self.peek()[:60]!r}")

    def match(self, pattern: re.Pattern[bytes], wanted: str) -> re.Match[bytes]:
        match = pattern.fullmatch(self.peek())
        if not match:
            raise self.error(f"must be `{wanted}`, not {self.peek()[:60]!r}")
        self._next += 1
        return match


def split_lines(data: bytes) -> list[bytes]:
    """Split at b"\\n" only, keeping it: a lone b"\\r" or form feed is part of a line, as in git."""
    lines = data.split(b"\n")
    last = lines.pop()
    return [line + b"\n" for line in lines] + ([last] if last else [])
