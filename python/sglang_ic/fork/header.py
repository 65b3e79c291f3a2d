"""A patch's header: why it exists, how it works, and when it can go.

    Subject: dsa: carry top-k indices in the forward batch

    Why: ...
    Why not a plugin: ...
    How: ...

    Forwarded: no | <PR>
    Applied-Upstream: no | <version>
    Drop-When: <a condition someone can check>
    Guarded-By: test/...::test_...

The last paragraph holds git trailers: one line each, or continued on lines that start with a blank;
`Guarded-By` may be repeated.
"""

import re
from dataclasses import dataclass
from email.utils import formatdate

from . import ForkError
from .patchfile import Patch

SECTIONS = ("Why", "Why not a plugin", "How")
TRAILERS = ("Forwarded", "Applied-Upstream", "Drop-When", "Guarded-By")
_TODO = "TODO"
_SECTION = re.compile(r"^(Why|Why not a plugin|How):[ \t]*", re.MULTILINE)
_TRAILER = re.compile(r"([A-Z][A-Za-z-]*):[ \t]+(\S.*)")
_GUARD = re.compile(r"test/[\w./-]+\.py(?:::\w+)+")

_TEMPLATE = """\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: sglang_ic <sglang_ic@localhost>
Date: {date}
Subject: {subject}

Why: TODO
Why not a plugin: TODO
How: TODO

Forwarded: no
Applied-Upstream: no
Drop-When: TODO
Guarded-By: TODO

"""


@dataclass(frozen=True)
class Header:
    """The facts of one patch's header, each on one line."""

    subject: str
    sections: dict[str, str]  # by SECTIONS
    forwarded: str
    applied_upstream: str
    drop_when: str
    guarded_by: tuple[str, ...]  # test/<file>.py::<name>[::<name>]


def template(name: str) -> bytes:
    """Return the header a new patch starts with; `verify` refuses its TODOs."""
    subject = name.removesuffix(".patch").replace("-", ": ", 1).replace("-", " ")
    return _TEMPLATE.format(date=formatdate(), subject=subject).encode()


def parse_header(patch: Patch) -> Header:
    """Read a patch's header.

    Raises:
        ForkError: naming the patch and the part that is missing, empty, repeated or still a TODO.
    """
    try:
        mail, _, body = patch.header.decode("utf-8").partition("\n\n")
    except UnicodeDecodeError:
        raise ForkError(f"{patch.name}: the header is not UTF-8") from None
    subject = re.search(r"^Subject:[ \t]+(\S.*(?:\n[ \t].*)*)", mail, re.MULTILINE)
    if not subject:
        raise ForkError(f"{patch.name}: header lacks Subject: first line of the commit message")
    text, _, last = body.strip().removesuffix("\n---").strip().rpartition("\n\n")
    sections = _sections(patch.name, text)
    trailers = _trailers(patch.name, last)
    for key in TRAILERS:
        if not trailers.get(key):
            raise ForkError(f"{patch.name}: header lacks {key}: add it to the last paragraph")
        if key != "Guarded-By" and len(trailers[key]) > 1:
            raise ForkError(f"{patch.name}: header has {key} twice: keep one")
    for key, values in (*((k, [v]) for k, v in sections.items()), *trailers.items()):
        if any(_TODO in value for value in values):
            raise ForkError(f"{patch.name}: header: {key} is still a TODO: write it")
    guards = [guard.strip() for line in trailers["Guarded-By"] for guard in line.split(",")]
    for guard in guards:
        if not _GUARD.fullmatch(guard):
            raise ForkError(
                f"{patch.name}: header: Guarded-By {guard!r}: must be test/<file>.py::<test name>"
            )
    return Header(
        subject=" ".join(subject[1].split()),
        sections=sections,
        forwarded=trailers["Forwarded"][0],
        applied_upstream=trailers["Applied-Upstream"][0],
        drop_when=trailers["Drop-When"][0],
        guarded_by=tuple(guards),
    )


def _sections(name: str, text: str) -> dict[str, str]:
    """Split the body at its labels; each section runs to the next label."""
    labels = list(_SECTION.finditer(text))
    stops = [label.start() for label in labels[1:]] + [len(text)]
    found: dict[str, str] = {}
    for label, stop in zip(labels, stops, strict=True):
        if label[1] in found:
            raise ForkError(f"{name}: header has {label[1]!r} twice: keep one")
        found[label[1]] = " ".join(text[label.end() : stop].split())
    for key in SECTIONS:
        if not found.get(key):
            raise ForkError(f"{name}: header lacks `{key}: ...`: say it at the start of a line")
    return found


def _trailers(name: str, paragraph: str) -> dict[str, list[str]]:
    """Read `Key: value` lines; a line that starts with a blank continues the one above."""
    found: dict[str, list[str]] = {}
    for line in re.sub(r"\n[ \t]+", " ", paragraph).splitlines():
        match = _TRAILER.fullmatch(line.rstrip())
        if not match:
            raise ForkError(f"{name}: header: {line[:60]!r} is no trailer: must be `Key: value`")
        found.setdefault(match[1], []).append(match[2])
    return found
