"""The way of a patch: unpack, edit, diff."""

import shutil

import pytest
from _synthetic import FILES, MODEL

from sglang_ic.fork.patchfile import parse_patch

FIRST, SECOND = "model-change-lines.patch", "model-add-tail.patch"


def test_unpack_gives_upstream_with_the_series(forked):
    tree = forked.root / "tree"
    assert forked.run("unpack", "--out", tree) == 0
    assert b"line three" in (tree / MODEL).read_bytes()
    assert (tree / MODEL).read_bytes().endswith(b"line 41\n")
    assert not (tree / "sglang/srt/old.py").exists()
    assert [path.name for path in tree.iterdir()] == ["sglang"]


def test_unpack_through_stops_there(forked):
    tree = forked.root / "tree"
    assert forked.run("unpack", "--out", tree, "--through", FIRST) == 0
    assert b"line three" in (tree / MODEL).read_bytes()
    assert (tree / "sglang/srt/tail.py").read_bytes() == FILES["sglang/srt/tail.py"]


def test_unpack_refuses_a_used_directory_and_an_unknown_patch(forked, refusal):
    refusal(forked.run("unpack", "--out", forked.root), "not an empty directory")
    code = forked.run("unpack", "--out", forked.root / "t", "--through", "no-such.patch")
    refusal(code, "'no-such.patch': not in .*lists model-change-lines.patch, model-add-tail.patch")
    assert not (forked.root / "t").exists()


def test_new_name_is_listed_and_gets_a_header_to_fill_in(upstream, capsys):
    tree = upstream.root / "tree"
    assert upstream.run("unpack", "--out", tree) == 0
    (tree / "sglang/srt/new.py").write_bytes(b"new = 1\n")
    (tree / "sglang/srt/__pycache__").mkdir()
    (tree / "sglang/srt/__pycache__/new.cpython-311.pyc").write_bytes(b"\0")
    (tree / "sglang/srt/new.py.orig").write_bytes(b"")
    assert upstream.run("diff", "--tree", tree, "--name", "model-add-new.patch") == 0
    assert "added to series; fill in its header: 1 files, 1 hunks" in capsys.readouterr().out
    assert (upstream.patches / "series").read_text() == "# none yet\nmodel-add-new.patch\n"
    patch = (upstream.patches / "model-add-new.patch").read_bytes()
    assert b"Why: TODO\n" in patch and b"+new = 1\n" in patch
    assert upstream.run("verify") == 1


def test_listed_name_keeps_its_header_and_later_patches_follow(forked):
    tree = forked.root / "tree"
    before = (forked.patches / FIRST).read_bytes()
    assert forked.run("unpack", "--out", tree, "--through", FIRST) == 0
    assert forked.run("diff", "--tree", tree, "--name", FIRST) == 0
    assert (forked.patches / FIRST).read_bytes() == before
    (tree / MODEL).write_bytes(b"on top\n" + (tree / MODEL).read_bytes())
    assert forked.run("diff", "--tree", tree, "--name", FIRST) == 0
    after = (forked.patches / FIRST).read_bytes()
    assert after.partition(b"diff --git")[0] == before.partition(b"diff --git")[0]
    assert b"+on top\n" in after
    assert forked.run("refresh") == 0
    assert forked.run("verify") == 0
    patch = parse_patch(SECOND, (forked.patches / SECOND).read_bytes(), "sglang")
    assert patch.files[0].hunks[0].old_start == 38


def test_deleted_and_version_files(forked):
    tree = forked.root / "tree"
    assert forked.run("unpack", "--out", tree) == 0
    (tree / "sglang/run.sh").unlink()
    (tree / "sglang/_version.py").write_text("version = 'mine'\n")
    assert forked.run("diff", "--tree", tree, "--name", "run-drop-script.patch") == 0
    text = (forked.patches / "run-drop-script.patch").read_text()
    assert "deleted file mode" in text and "_version" not in text


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda tree: None, "run-do-x.patch: changes nothing"),
        (lambda tree: shutil.rmtree(tree), "holds no sglang/_version.py"),
        (lambda tree: (tree / "sglang/lib.so").write_bytes(b"\0new"), "lib.so: .*is binary"),
    ],
)
def test_refused_diff_writes_nothing(forked, refusal, edit, message):
    tree = forked.root / "tree"
    assert forked.run("unpack", "--out", tree) == 0
    edit(tree)
    refusal(forked.run("diff", "--tree", tree, "--name", "run-do-x.patch"), message)
    assert not (forked.patches / "run-do-x.patch").exists()
    assert "run-do-x" not in (forked.patches / "series").read_text()


def test_name_that_is_no_slug_is_refused(forked, refusal):
    code = forked.run("diff", "--tree", forked.root, "--name", "../x.patch")
    refusal(code, "--name: patch name '../x.patch': must be lower-case words")
