"""Applying is exact; relocating needs one possible place."""

import re

import pytest

from sglang_ic.fork import ForkError
from sglang_ic.fork.apply import Overlay, apply_patch, apply_series, blob_id
from sglang_ic.fork.differ import render_file
from sglang_ic.fork.patchfile import NO_BLOB, Patch, parse_patch

PATH = "sglang/m.py"
OLD = b"".join(b"line %d\n" % i for i in range(1, 31))
NEW = OLD.replace(b"line 5\n", b"five\n").replace(b"line 25\n", b"line 25\nand a half\n")


def make(before: bytes | None, after: bytes | None, *edits: tuple[bytes, bytes]) -> Patch:
    text = render_file(PATH, before, after)
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return parse_patch("a-b.patch", b"Subject: x\n\n" + text, "sglang")


def apply(patch: Patch, before: bytes | None, relocate: bool = False) -> bytes | None:
    tree = Overlay({PATH: before}.get)
    apply_patch(tree, patch, relocate)
    return tree.changed[PATH]


def test_blob_id_is_gits():
    assert blob_id(b"a\nb\n") == "422c2b7ab3b3c668038da977e4e93a5fc623169c"
    assert blob_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert blob_id(None) == NO_BLOB


corner_cases = {
    "middle": (OLD, NEW),
    "first line": (OLD, b"zero\n" + OLD),
    "last line": (OLD, OLD[:-8]),
    "newline lost": (OLD, OLD[:-1]),
    "newline gained": (OLD[:-1], OLD),
    "edit under no newline": (OLD[:-1], NEW[:-1]),
    "new": (None, b"x\ny"),
    "new and empty": (None, b""),
    "deleted": (b"x\ny", None),
    "deleted when empty": (b"", None),
    "emptied": (OLD, b""),
    "filled": (b"", OLD),
    "not UTF-8, CRLF": (b"\xff\r\n\x0c\n", b"\xfe\r\n\x0c\n"),
}


@pytest.mark.parametrize("before, after", corner_cases.values(), ids=corner_cases)
def test_patch_turns_before_into_after(before, after):
    patch = make(before, after)
    assert apply(patch, before) == after
    assert apply(patch, before, relocate=True) == after


refused_cases = {
    "shifted by one line": (
        b"shift\n" + OLD,
        "m.py: hunk 1: does not apply: line 2 must be 'line 2",
    ),
    "context differs in hunk 2": (OLD.replace(b"line 24\n", b"x\n"), "hunk 2: .* line 24 .* is 'x"),
    "file too short": (OLD[:-32], "hunk 2: .*is the end of the file"),
    "missing": (None, "m.py: no such file"),
    "differs outside the hunks": (
        OLD.replace(b"line 15\n", b"x\n"),
        "m.py: every hunk fits, but the file is",
    ),
    "applied already": (NEW, "hunk 1: does not apply: line 5"),
}


@pytest.mark.parametrize("before, message", refused_cases.values(), ids=refused_cases)
def test_anything_but_the_very_file_is_refused(before, message):
    with pytest.raises(ForkError, match=message) as refused:
        apply(make(OLD, NEW), before)
    assert str(refused.value).startswith("a-b.patch: sglang/m.py: ")


def test_offset_in_the_patch_is_refused():
    with pytest.raises(ForkError, match="hunk 1: does not apply"):
        apply(make(OLD, NEW, (b"@@ -2,7 +2,7 @@", b"@@ -3,7 +3,7 @@")), OLD)


def test_hand_edited_line_is_refused():
    with pytest.raises(ForkError, match="edited by hand"):
        apply(make(OLD, NEW, (b"+five", b"+fuenf")), OLD)


def test_hunks_out_of_order_are_refused():
    patch = make(OLD, NEW)
    hunks = re.split(rb"(?m)^(?=@@)", render_file(PATH, OLD, NEW))
    patch = parse_patch("a-b.patch", hunks[0] + hunks[2] + hunks[1], "sglang")
    with pytest.raises(ForkError, match="hunk 2: starts at line 2, where the hunk above"):
        apply(patch, OLD)


def test_creating_a_file_that_exists_is_refused():
    with pytest.raises(ForkError, match="creates this file"):
        apply(make(None, b"x\n"), b"")


def test_deleting_another_file_is_refused():
    with pytest.raises(ForkError, match="must be 'x"):
        apply(make(b"x\n", None), b"y\n")
    with pytest.raises(ForkError, match="lines of it would be left"):
        apply(make(b"x\n", None), b"x\ny\n")


def test_a_patch_applies_whole_or_not_at_all():
    good = render_file("sglang/a.py", b"a\n", b"b\n")
    patch = parse_patch("a-b.patch", good + render_file(PATH, OLD, NEW), "sglang")
    tree = Overlay({"sglang/a.py": b"a\n", PATH: b"other\n"}.get)
    with pytest.raises(ForkError):
        apply_patch(tree, patch)
    assert tree.changed == {}


def test_series_applies_in_order():
    series = [make(OLD, NEW), make(NEW, b"end\n"), make(b"end\n", None), make(None, b"again\n")]
    assert apply_series(Overlay({PATH: OLD}.get), series).changed == {PATH: b"again\n"}


def test_relocating_moves_hunks_to_their_only_place():
    moved = b"shift\n" + OLD.replace(b"line 15\n", b"x\ny\nz\n")
    wanted = b"shift\n" + NEW.replace(b"line 15\n", b"x\ny\nz\n")
    assert apply(make(OLD, NEW), moved, relocate=True) == wanted


@pytest.mark.parametrize(
    "before, message",
    {
        "nowhere": (OLD.replace(b"line 4\n", b"x\n"), "hunk 1: cannot be placed: .*occur nowhere"),
        "twice": (OLD + OLD, "hunk 1: cannot be placed: .*occur at lines 2, 32"),
    }.values(),
)
def test_relocating_never_guesses(before, message):
    with pytest.raises(ForkError, match=f"a-b.patch: sglang/m.py: {message}"):
        apply(make(OLD, NEW), before, relocate=True)
