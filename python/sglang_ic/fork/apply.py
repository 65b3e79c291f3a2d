"""Apply patches to a tree in memory: no fuzz, no offset, and the file must be the very one diffed.

A tree is read through a callback, so a wheel and an installed package look the same. `refresh`
alone may move hunks (`relocate=True`), and only to a place that is the one possible.
"""

import hashlib
from collections.abc import Callable, Iterable

from . import ForkError
from .patchfile import NO_BLOB, FilePatch, Hunk, Patch, split_lines

Read = Callable[[str], bytes | None]  # path -> content, None when there is no such file


class Overlay:
    """A read-only tree, and what the patches changed in it."""

    def __init__(self, read: Read):
        self._read = read
        self.changed: dict[str, bytes | None] = {}  # None: deleted

    def read(self, path: str) -> bytes | None:
        return self.changed[path] if path in self.changed else self._read(path)


def apply_series(tree: Overlay, patches: Iterable[Patch]) -> Overlay:
    """Apply `patches` in order to `tree`, exactly, and return it."""
    for patch in patches:
        apply_patch(tree, patch)
    return tree


def apply_patch(tree: Overlay, patch: Patch, relocate: bool = False) -> None:
    """Apply one patch to `tree`, all of it or nothing.

    Args:
        relocate: let hunks move to the one place in the file where their old lines occur.
    Raises:
        ForkError: naming the patch, the file and the hunk that does not fit.
    """
    results: dict[str, bytes | None] = {}
    for file in patch.files:
        where = f"{patch.name}: {file.path}"
        before = tree.read(file.path)
        place = _only_place if relocate and blob_id(before) != file.old_blob else _exact_place
        after = results[file.path] = _apply_file(file, before, place, where)
        if not relocate:
            _check_blobs(file, before, after, where)
    tree.changed.update(results)


def blob_id(data: bytes | None) -> str:
    """Return git's object id of a file's content; NO_BLOB for a file that is not there."""
    if data is None:
        return NO_BLOB
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _apply_file(
    file: FilePatch, before: bytes | None, place: Callable[..., int], where: str
) -> bytes | None:
    if file.old_blob == NO_BLOB and before is not None:
        raise ForkError(f"{where}: the patch creates this file, but it is there already")
    if file.old_blob != NO_BLOB and before is None:
        raise ForkError(f"{where}: no such file in the tree: is this the pinned release?")
    lines = split_lines(before or b"")
    result: list[bytes] = []
    done = 0  # lines of `before` consumed so far
    for number, hunk in enumerate(file.hunks, 1):
        start = place(hunk, lines, done, f"{where}: hunk {number}")
        result += lines[done:start] + hunk.new
        done = start + len(hunk.old)
    result += lines[done:]
    if any(not line.endswith(b"\n") for line in result[:-1]):
        raise ForkError(f"{where}: would join two lines: a hunk before the end lacks its newline")
    after = b"".join(result) if file.new_blob != NO_BLOB or result else None
    if file.new_blob == NO_BLOB and after is not None:
        raise ForkError(f"{where}: the patch deletes this file, but lines of it would be left")
    return after


def _check_blobs(file: FilePatch, before: bytes | None, after: bytes | None, where: str) -> None:
    """Refuse a file that fits the hunks but is not the one the patch was made on, or for."""
    if blob_id(before) != file.old_blob:
        raise ForkError(
            f"{where}: every hunk fits, but the file is blob {blob_id(before)[:12]} and the patch "
            f"was made on {file.old_blob[:12]}: another release, or an earlier patch changed; "
            "at the pin `refresh` mends it"
        )
    if blob_id(after) != file.new_blob:
        raise ForkError(
            f"{where}: every hunk fits, but gives blob {blob_id(after)[:12]} and the patch says "
            f"{file.new_blob[:12]}: the patch was edited by hand; `refresh` mends it"
        )


def _exact_place(hunk: Hunk, lines: list[bytes], done: int, where: str) -> int:
    """Return the 0-based line the hunk names, when its old lines are there."""
    start = hunk.old_start - 1 if hunk.old else hunk.old_start
    if start < done:
        raise ForkError(f"{where}: starts at line {start + 1}, where the hunk above has not ended")
    found = lines[start : start + len(hunk.old)]
    if found != hunk.old or start > len(lines):
        pairs = zip(found, hunk.old, strict=False)
        row = next((i for i, (have, want) in enumerate(pairs) if have != want), len(found))
        want = _show(hunk.old[row]) if row < len(hunk.old) else "nothing"
        have = _show(found[row]) if row < len(found) else "the end of the file"
        raise ForkError(
            f"{where}: does not apply: line {start + row + 1} must be {want}, is {have}"
        )
    return start


def _only_place(hunk: Hunk, lines: list[bytes], done: int, where: str) -> int:
    """Return the one 0-based line at or after `done` where the hunk's old lines occur."""
    if not hunk.old:
        raise ForkError(f"{where}: cannot be placed: it has no old lines; redo it with `diff`")
    size = len(hunk.old)
    first = hunk.old[0]
    places = [
        i
        for i in range(done, len(lines) - size + 1)
        if lines[i] == first and lines[i : i + size] == hunk.old
    ]
    if not places:
        raise ForkError(
            f"{where}: cannot be placed: its {size} old lines occur nowhere; redo it with `diff`"
        )
    if len(places) > 1:
        spots = ", ".join(str(i + 1) for i in places[:4])
        raise ForkError(
            f"{where}: cannot be placed: its old lines occur at lines {spots}; redo it with `diff`"
        )
    return places[0]


def _show(line: bytes) -> str:
    return repr(line.decode("utf-8", "replace"))
