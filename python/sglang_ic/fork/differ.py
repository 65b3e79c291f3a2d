"""Two versions of a file -> the one text our patches hold: git's unified diff, 3 lines of context.

`difflib` chooses the lines, so the text needs no git and is the same on every machine; git accepts
it (`git apply`, `git am`), though it may choose other lines itself. One text per pair of files is
what lets `refresh` be a plain rewrite: at the pin it reproduces every patch byte for byte.
"""

import re
from difflib import SequenceMatcher

from .apply import blob_id
from .patchfile import NO_EOL, split_lines

CONTEXT = 3
_SECTION = re.compile(rb"\s*((?:class|def|async\s+def)\s.*)")
_SECTION_BYTES = 80  # git's limit for the text after the second @@


def render_file(path: str, before: bytes | None, after: bytes | None) -> bytes:
    """Return the `diff --git` block that turns `before` into `after`; None: no such file."""
    assert before != after, f"{path} did not change"
    name = path.encode()
    parts = [b"diff --git a/%s b/%s\n" % (name, name)]
    if before is None:
        parts.append(b"new file mode 100644\n")
    if after is None:
        parts.append(b"deleted file mode 100644\n")
    mode = b"" if before is None or after is None else b" 100644"
    ids = (blob_id(before).encode(), blob_id(after).encode())
    parts.append(b"index %s..%s%s\n" % (*ids, mode))
    if before or after:
        parts.append(b"--- " + (b"/dev/null" if before is None else b"a/" + name) + b"\n")
        parts.append(b"+++ " + (b"/dev/null" if after is None else b"b/" + name) + b"\n")
        parts += _hunks(split_lines(before or b""), split_lines(after or b""))
    return b"".join(parts)


def _hunks(old: list[bytes], new: list[bytes]) -> list[bytes]:
    """Render every hunk of a pair of files, each with its @@ line."""
    parts: list[bytes] = []
    for group in _groups(_changes(old, new)):
        (first, _, new_first, _), (_, last, _, new_last) = group[0], group[-1]
        lead = min(CONTEXT, first)
        tail = min(CONTEXT, len(old) - last)
        spans = (_span(first - lead, last + tail), _span(new_first - lead, new_last + tail))
        parts.append(b"@@ -%s +%s @@%s\n" % (*spans, _section(old, first - lead)))
        done = first - lead
        for i1, i2, j1, j2 in group:
            parts += [_line(b" ", line) for line in old[done:i1]]
            parts += [_line(b"-", line) for line in old[i1:i2]]
            parts += [_line(b"+", line) for line in new[j1:j2]]
            done = i2
        parts += [_line(b" ", line) for line in old[done : last + tail]]
    return parts


def _changes(old: list[bytes], new: list[bytes]) -> list[tuple[int, int, int, int]]:
    """Return (i1, i2, j1, j2) in file order: old[i1:i2] became new[j1:j2], equal lines between."""
    limit = min(len(old), len(new))
    head = next((i for i in range(limit) if old[i] != new[i]), limit)
    limit -= head
    foot = next((i for i in range(limit) if old[-1 - i] != new[-1 - i]), limit)
    middle = (old[head : len(old) - foot], new[head : len(new) - foot])
    # autojunk would treat lines like `)` as noise in files past 200 lines and tear hunks apart.
    codes = SequenceMatcher(None, *middle, autojunk=False).get_opcodes()
    return [tuple(at + head for at in span) for tag, *span in codes if tag != "equal"]


def _groups(changes: list[tuple[int, int, int, int]]) -> list[list[tuple[int, int, int, int]]]:
    """Put changes whose contexts touch into one hunk."""
    groups: list[list[tuple[int, int, int, int]]] = []
    for change in changes:
        if groups and change[0] - groups[-1][-1][1] <= 2 * CONTEXT:
            groups[-1].append(change)
        else:
            groups.append([change])
    return groups


def _span(start: int, stop: int) -> bytes:
    """Return `START,COUNT` of the 0-based half-open range, as git abbreviates and anchors it."""
    count = stop - start
    anchor = start + 1 if count else start
    return b"%d" % anchor if count == 1 else b"%d,%d" % (anchor, count)


def _section(lines: list[bytes], start: int) -> bytes:
    """Return the nearest `def` or `class` line above the hunk, for readers; b"" without one."""
    for line in reversed(lines[:start]):
        match = _SECTION.match(line)
        if match:
            return b" " + match[1].rstrip()[:_SECTION_BYTES]
    return b""


def _line(kind: bytes, line: bytes) -> bytes:
    return kind + line if line.endswith(b"\n") else kind + line + b"\n" + NO_EOL
