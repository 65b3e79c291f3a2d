"""Patch files are read strictly, and a refusal names patch, file and hunk."""

import pytest

from sglang_ic.fork import ForkError
from sglang_ic.fork.patchfile import parse_patch, split_lines

ID_A, ID_B, NONE = "a" * 40, "b" * 40, "0" * 40
TEXT = f"""\
Subject: one

diff --git a/sglang/m.py b/sglang/m.py
index {ID_A}..{ID_B} 100644
--- a/sglang/m.py
+++ b/sglang/m.py
@@ -1,3 +1,3 @@
 one
-two
+zwei
 three
@@ -9 +9,2 @@ def f():
 nine
+ten
\\ No newline at end of file
"""


def parse(text: str):
    return parse_patch("a-b-c.patch", text.encode(), "sglang")


def test_reads_header_files_and_hunks():
    patch = parse(TEXT)
    assert patch.header == b"Subject: one\n\n"
    (file,) = patch.files
    assert (file.path, file.old_blob, file.new_blob) == ("sglang/m.py", ID_A, ID_B)
    assert [hunk.old_start for hunk in file.hunks] == [1, 9]
    assert file.hunks[0].old == [b"one\n", b"two\n", b"three\n"]
    assert file.hunks[0].new == [b"one\n", b"zwei\n", b"three\n"]
    assert file.hunks[1].new == [b"nine\n", b"ten"]


def test_removed_line_that_looks_like_a_file_header_is_a_line():
    text = TEXT.replace("-two\n", "--- a/x\n").replace("+zwei\n", "+++ b/x\n")
    assert parse(text).files[0].hunks[0].old[1] == b"-- a/x\n"


REFUSED = {
    "truncated in a hunk": (TEXT[: TEXT.index(" three")], "m.py: hunk 1: .*truncated"),
    "truncated after the file header": (TEXT[: TEXT.index("@@")], "sglang/m.py: holds no hunk"),
    "stripped context blank": (TEXT.replace(" one\n", "one\n"), "hunk 1: must continue"),
    "too many lines": (TEXT.replace(" three\n", " three\n four\n"), "m.py: stray line .* four"),
    "wrong count": (TEXT.replace("-1,3 +1,3", "-1,2 +1,3"), "m.py: hunk 1: "),
    "signature": (TEXT + "-- \n2.39.0\n", "m.py: stray line after the last hunk"),
    "no diff": ("Subject: x\n", "holds no `diff --git`"),
    "rename": (TEXT.replace("b/sglang/m.py\nindex", "b/sglang/n.py\nindex"), "no renames"),
    "outside the package": (TEXT.replace("sglang/m.py", "other/m.py"), "under sglang/"),
    "parent directory": (TEXT.replace("sglang/m.py", "sglang/../m.py"), "under sglang/"),
    "short ids": (TEXT.replace(ID_A, ID_A[:9]), "full 40-digit ids"),
    "mode change": (TEXT.replace("index", "old mode 100644\nindex"), "full 40-digit ids"),
    "binary": (
        TEXT[: TEXT.index("---")] + "GIT binary patch\nliteral 0\n",
        "m.py: holds no hunk",
    ),
    "other file in ---": (
        TEXT.replace("--- a/sglang/m.py", "--- a/sglang/n.py"),
        "must be b'--- a",
    ),
    "new without mode": (TEXT.replace(ID_A, NONE), "contradict"),
    "same file twice": (TEXT.rsplit("\\", 1)[0] + TEXT[TEXT.index("diff") :], "appears twice"),
    "two lines without newline": (
        TEXT.replace("+zwei\n", "+zwei\n\\ No newline at end of file\n"),
        "hunk 1: only the last line",
    ),
}


@pytest.mark.parametrize("text, message", REFUSED.values(), ids=REFUSED)
def test_refuses_what_git_would_guess_at(text: str, message: str):
    with pytest.raises(ForkError, match=message) as refused:
        parse(text)
    assert str(refused.value).startswith("a-b-c.patch: ")
    assert "\n" not in str(refused.value)


def test_only_newline_splits_lines():
    assert split_lines(b"a\r\nb\x0cc\rd\n") == [b"a\r\n", b"b\x0cc\rd\n"]
    assert split_lines(b"") == []
    assert split_lines(b"a\n\nb") == [b"a\n", b"\n", b"b"]
