"""Our diff text: one text per pair of files, and git reads it too."""

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_ic.fork.apply import Overlay, apply_patch, blob_id
from sglang_ic.fork.differ import render_file
from sglang_ic.fork.patchfile import parse_patch

PATH = "sglang/m.py"
lines = st.lists(
    st.sampled_from([b"a", b"b", b"", b"\r", b"-x", b"+x", b" x", b"\\ No", b"@@ -1 +1 @@"])
)
contents = st.none() | st.builds(
    lambda rows, end: b"\n".join(rows) + end, lines, st.sampled_from([b"", b"\n"])
)


def round_trip(before: bytes | None, after: bytes | None) -> bytes | None:
    text = b"Subject: x\n\n" + render_file(PATH, before, after)
    tree = Overlay({PATH: before}.get)
    apply_patch(tree, parse_patch("a-b.patch", text, "sglang"))
    return tree.changed[PATH]


@settings(max_examples=300, deadline=None)
@given(contents, contents)
def test_diff_applied_to_the_old_file_gives_the_new_one(before, after):
    if before != after:
        assert round_trip(before, after) == after


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_diff_of_any_bytes_round_trips(before, after):
    if before != after:
        assert round_trip(before, after) == after


def test_text_is_gits_format():
    before = b"import os\n\n\nclass A:\n    def f(self):\n" + b"        x\n" * 8 + b"last"
    after = before.replace(b"last", b"new last\n")
    ids = (blob_id(before).encode(), blob_id(after).encode())
    assert (
        render_file(PATH, before, after)
        == (
            b"diff --git a/sglang/m.py b/sglang/m.py\n"
            b"index %s..%s 100644\n"
            b"--- a/sglang/m.py\n"
            b"+++ b/sglang/m.py\n"
            b"@@ -11,4 +11,4 @@ def f(self):\n"
            b"         x\n         x\n         x\n"
            b"-last\n\\ No newline at end of file\n"
            b"+new last\n"
        )
        % ids
    )


def test_far_changes_get_their_own_hunks_and_near_ones_share():
    rows = [b"%d\n" % i for i in range(40)]
    near, far = list(rows), list(rows)
    near[10], near[17] = b"x\n", b"y\n"
    far[10], far[18] = b"x\n", b"y\n"
    assert render_file(PATH, b"".join(rows), b"".join(near)).count(b"\n@@ ") == 1
    assert render_file(PATH, b"".join(rows), b"".join(far)).count(b"\n@@ ") == 2


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
@pytest.mark.parametrize(
    "before, after",
    [
        (b"a\nb\nc\n", b"a\nB\nc\n"),
        (b"a\nb", b"a\nb\n"),
        (None, b"x\ny"),
        (b"x\ny", None),
        (b"", b"x\n"),
        (None, b""),
        (b"", None),
        (b"\xff\r\n", b"\xfe\r\n"),
    ],
)
def test_git_applies_our_text_and_agrees_on_the_blob_ids(tmp_path, before, after):
    file = tmp_path / PATH
    file.parent.mkdir()
    git = ["git", "-C", str(tmp_path), "-c", "core.autocrlf=false"]
    subprocess.run([*git, "init", "-q"], check=True)
    if before is not None:
        file.write_bytes(before)
        subprocess.run([*git, "add", "-A"], check=True)
    text = render_file(PATH, before, after)
    subprocess.run([*git, "apply", "--index", "--whitespace=nowarn"], input=text, check=True)
    assert (file.read_bytes() if file.exists() else None) == after
