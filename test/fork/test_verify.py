"""`verify` finds each fault, and `status` tells what is there."""

import importlib.metadata
import re

import pytest
from _synthetic import FORK_INFO, MODEL

from sglang_ic.fork.verify import find_test


@pytest.fixture
def no_sglang(monkeypatch):
    """An interpreter without SGLang, whatever this one has."""

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)


def test_sound_series_passes(forked, capsys, no_sglang):
    capsys.readouterr()
    assert forked.run("verify", "--wheel", forked.wheel) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[:2] for row in rows] == [
        ["ok", name] for name in ("series", "headers", "guards", "ledger", "applies")
    ]


def edit(path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


FAULTS = {
    "missing patch": (lambda p: (p / "model-add-tail.patch").unlink(), "series.*not there"),
    "unlisted patch": (lambda p: (p / "a-b.patch").touch(), "series.*a-b.patch: is not in"),
    "incomplete header": (
        lambda p: edit(p / "model-add-tail.patch", "Drop-When: never\n", ""),
        "headers .*model-add-tail.patch: header lacks Drop-When",
    ),
    "missing guard file": (
        lambda p: (p.parent / "test/fork/test_model.py").unlink(),
        "guards .*model-change-lines.patch: Guarded-By .*no such file",
    ),
    "missing guard test": (
        lambda p: edit(p.parent / "test/fork/test_model.py", "test_guard", "test_other"),
        "guards .*model-change-lines.patch: .*::test_guard: no such test",
    ),
    "stale ledger": (lambda p: edit(p / "README.md", "| a test.", "| b test."), "ledger .*refresh"),
    "no ledger": (lambda p: (p / "README.md").unlink(), "ledger .*missing"),
    "not canonical": (
        lambda p: edit(p / "model-add-tail.patch", "@@ -37,3 +37,4 @@", "@@ -37,3 +37,4 @@ note"),
        "applies .*model-add-tail.patch: applies, but `refresh` would",
    ),
    "does not apply": (
        lambda p: edit(p / "model-add-tail.patch", " line 38\n", " line 99\n"),
        "applies .*model-add-tail.patch: sglang/srt/model.py: hunk 1: ",
    ),
}


@pytest.mark.parametrize("break_it, message", FAULTS.values(), ids=FAULTS)
def test_fault_is_a_failing_row(forked, capsys, no_sglang, break_it, message):
    break_it(forked.patches)
    capsys.readouterr()
    assert forked.run("verify") == 1
    failing = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert any(re.search(message, line) for line in failing), failing


def test_installed_fork_passes_then_names_what_changed(forked, capsys):
    site = forked.site()
    assert forked.run("apply", "--target", site) == 0
    assert forked.run("verify", "--target", site) == 0
    (site / "sglang/run.sh").write_bytes(b"other")
    (site / MODEL).unlink()
    capsys.readouterr()
    assert forked.run("verify", "--target", site) == 1
    out = capsys.readouterr().out
    assert re.search(r"FAIL  RECORD +sglang/run.sh has sha256=.*\(and 1 more\)", out), out


def test_installed_fork_of_another_series_fails(forked, capsys):
    site = forked.site()
    assert forked.run("apply", "--target", site) == 0
    path = forked.patches / "model-add-tail.patch"
    path.write_bytes(path.read_bytes().replace(b"Why: a test.", b"Why: another."))
    capsys.readouterr()
    assert forked.run("verify", "--target", site) == 1
    assert "made with another model-add-tail.patch" in capsys.readouterr().out


def test_unreadable_stamp_fails(forked, capsys):
    site = forked.site()
    assert forked.run("apply", "--target", site) == 0
    (site / FORK_INFO / "ic_fork.json").write_text("{}")
    assert forked.run("verify", "--target", site) == 1
    assert "the stamp is not readable" in capsys.readouterr().out


def test_stock_target_fails(forked, capsys):
    assert forked.run("verify", "--target", forked.site()) == 1
    assert "no fork is installed here" in capsys.readouterr().out


def test_fork_in_this_interpreter_is_checked_too(forked, capsys, monkeypatch):
    site = forked.site()
    assert forked.run("apply", "--target", site) == 0
    found = importlib.metadata.PathDistribution(site / FORK_INFO)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: found)
    capsys.readouterr()
    assert forked.run("verify") == 0
    out = capsys.readouterr().out
    assert re.search(r"ok +stamp +1\.2\.3\+ic\.2", out) and re.search(r"ok +RECORD", out)
    assert forked.run("status") == 0
    out = capsys.readouterr().out
    assert "installed:  sglang 1.2.3+ic.2 in " in out
    assert "stamp:      equals the current series" in out


def test_status_without_sglang(forked, capsys, no_sglang):
    capsys.readouterr()
    assert forked.run("status") == 0
    out = capsys.readouterr().out
    assert "pin:        sglang 1.2.3, fork 1.2.3+ic.2" in out
    assert "series:     2 patches" in out and "model-add-tail.patch" in out
    assert "installed:  none" in out and "stamp:      none" in out


def test_guards_are_found_by_definition_not_by_text(tmp_path):
    file = tmp_path / "test_x.py"
    file.write_text(
        "# def test_comment(): ...\nclass T:\n    async def test_b(self): ...\ndef test_a(): ...\n"
    )
    assert find_test(file, ["test_a"]) and find_test(file, ["T", "test_b"])
    assert not find_test(file, ["test_comment"]) and not find_test(file, ["test_b"])
    assert not find_test(file, ["T", "test_a"])
