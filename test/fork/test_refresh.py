"""Refreshing: no byte at the pin, line numbers after a move, and a name for what cannot move."""

import zipfile

from _synthetic import FILES, MODEL, snapshot

MOVED = b"a new first line\n" + FILES[MODEL].replace(b"line 20\n", b"line 20\nextra\n")


def move_upstream(forked, model: bytes) -> None:
    """Point UPSTREAM at a next release whose model file is another."""
    forked.write_wheel(FILES | {MODEL: model}, version="1.2.4")


def test_at_the_pin_no_byte_changes(forked, capsys):
    before = snapshot(forked.patches)
    assert forked.run("refresh", "--wheel", forked.wheel) == 0
    assert capsys.readouterr().out.splitlines() == [
        "model-change-lines.patch: unchanged",
        "model-add-tail.patch: unchanged",
        "README.md: unchanged",
    ]
    assert snapshot(forked.patches) == before


def test_after_a_move_hunks_follow_their_lines(forked, capsys):
    before = (forked.patches / "model-change-lines.patch").read_bytes()
    move_upstream(forked, MOVED)
    assert forked.run("refresh") == 0
    after = (forked.patches / "model-change-lines.patch").read_bytes()
    assert "model-change-lines.patch: rewritten" in capsys.readouterr().out
    assert b"@@ -1,6 +1,6 @@" in before and b"@@ -27,7 +27,6 @@" in before
    assert b"@@ -1,7 +1,7 @@" in after and b"@@ -29,7 +29,6 @@" in after
    assert after.partition(b"diff --git")[0] == before.partition(b"diff --git")[0]
    assert forked.run("verify") == 0
    assert forked.run("apply", "--target", forked_site(forked)) == 0


def forked_site(forked):
    """Unpack the moved release."""
    site = forked.root / "moved"
    zipfile.ZipFile(forked.root / ".cache/sglang-1.2.4-py3-none-any.whl").extractall(site)
    return site


def test_hunk_that_cannot_be_placed_is_named_and_nothing_is_written(forked, refusal):
    move_upstream(forked, MOVED.replace(b"line 31\n", b"rewritten\n"))
    before = snapshot(forked.patches)
    code = forked.run("refresh")
    refusal(code, r"model-change-lines\.patch: sglang/srt/model\.py: hunk 2: cannot be placed")
    assert snapshot(forked.patches) == before


def test_hunk_with_two_places_is_named(forked, refusal):
    move_upstream(forked, MOVED + FILES[MODEL])
    refusal(forked.run("refresh"), "model.py: hunk 1: cannot be placed: .*occur at lines 2, 43")


def test_hand_edited_patch_is_put_into_canonical_form(forked):
    path = forked.patches / "model-add-tail.patch"
    canonical = path.read_bytes()
    edited = canonical.replace(b"+line 41\n", b"+line 42\n")
    path.write_bytes(edited)
    assert forked.run("verify") == 1
    assert forked.run("refresh") == 0
    again = path.read_bytes()
    assert b"+line 42\n" in again and again != edited  # the blob id follows the edit
    path.write_bytes(again.replace(b"+line 42\n", b"+line 41\n"))
    assert forked.run("refresh") == 0
    assert path.read_bytes() == canonical


def test_patch_upstream_took_over_is_reported(forked, refusal):
    tail = b"first\nlast, still without newline"
    move_upstream(forked, FILES[MODEL])
    forked.write_wheel(FILES | {"sglang/srt/tail.py": tail}, version="1.2.4")
    refusal(forked.run("refresh"), "model-add-tail.patch: sglang/srt/tail.py: hunk 1: cannot be")
