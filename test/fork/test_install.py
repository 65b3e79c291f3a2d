"""Patching in place: the wheel's bytes, all or nothing, on the very files it was made for."""

import os
import shutil
import zipfile

import pytest
from _synthetic import FORK_INFO, INFO, MODEL, snapshot


def test_gives_the_same_files_as_the_wheel(forked, capsys):
    site = forked.site()
    assert forked.run("apply", "--target", site) == 0
    assert "1.2.3+ic.2: 2 patches applied" in capsys.readouterr().out
    assert forked.run("build", "--wheel", forked.wheel, "--out", forked.root / "dist") == 0
    (wheel,) = (forked.root / "dist").iterdir()
    archive = zipfile.ZipFile(wheel)
    for name in archive.namelist():
        # RECORD lists byte code and the stamp knows no wheel; the rest is equal.
        if not name.endswith(("/", "/RECORD", "/ic_fork.json")):
            assert (site / name).read_bytes() == archive.read(name), name
    assert not (site / "sglang/srt/old.py").exists()
    assert not (site / INFO).exists()
    assert forked.run("verify", "--target", site) == 0


def test_stale_byte_code_goes_and_its_row_stays_for_pip(forked):
    site = forked.site()
    assert forked.run("apply", "--target", site) == 0
    assert not (site / "sglang/srt/__pycache__/model.cpython-311.pyc").exists()
    assert "model.cpython-311.pyc,," in (site / FORK_INFO / "RECORD").read_text()


def test_file_mode_is_kept(forked):
    site = forked.site()
    (site / MODEL).chmod(0o600)
    assert forked.run("apply", "--target", site) == 0
    assert (site / MODEL).stat().st_mode & 0o777 == 0o600


def test_hard_linked_caches_stay_untouched(forked):
    site = forked.site()
    os.link(site / MODEL, forked.root / "cached.py")
    before = (forked.root / "cached.py").read_bytes()
    assert forked.run("apply", "--target", site) == 0
    assert (forked.root / "cached.py").read_bytes() == before != (site / MODEL).read_bytes()


def test_second_time_says_so_and_writes_nothing(forked, capsys):
    site = forked.site()
    assert forked.run("apply", "--target", site) == 0
    before = snapshot(site)
    assert forked.run("apply", "--target", site) == 0
    assert "already applied" in capsys.readouterr().out
    assert snapshot(site) == before


def test_tree_without_dist_info_is_patched_with_a_stamp_beside_it(forked, capsys):
    site = forked.site()
    shutil.rmtree(site / INFO)
    assert forked.run("apply", "--target", site) == 0
    assert b"line three" in (site / MODEL).read_bytes()
    assert (site / "sglang.ic_fork.json").is_file()
    assert forked.run("apply", "--target", site) == 0
    assert "already applied" in capsys.readouterr().out
    assert forked.run("verify", "--target", site) == 0


def refuse_apply(forked, refusal, site, *patterns):
    """Apply must refuse, and leave every byte as it was."""
    before = snapshot(site)
    refusal(forked.run("apply", "--target", site), *patterns)
    assert snapshot(site) == before


def test_other_series_is_told_to_reinstall(forked, refusal):
    site = forked.site()
    assert forked.run("apply", "--target", site) == 0
    forked.add("model-add-more.patch", {"sglang/more.py": b"more = 1\n"})
    refuse_apply(
        forked,
        refusal,
        site,
        "made with 2 patches, the series has 3",
        "pip install --force-reinstall --no-deps sglang==1.2.3",
    )


def test_other_version_is_refused(forked, refusal):
    site = forked.site()
    (site / INFO).rename(site / "sglang-1.2.2.dist-info")
    refuse_apply(forked, refusal, site, "has sglang 1.2.2, the series is for 1.2.3")


def test_other_version_without_dist_info_is_refused(forked, refusal):
    site = forked.site()
    shutil.rmtree(site / INFO)
    version = site / "sglang/_version.py"
    version.write_text(version.read_text().replace("1.2.3", "1.2.2"))
    refuse_apply(forked, refusal, site, "_version.py: 0 lines end in .*1.2.3")


def test_two_versions_are_refused(forked, refusal):
    site = forked.site()
    shutil.copytree(site / INFO, site / "sglang-1.2.2.dist-info")
    refuse_apply(forked, refusal, site, "holds sglang-1.2.2.dist-info, sglang-1.2.3.dist-info")


@pytest.mark.parametrize("path", [MODEL, "sglang/_version.py", f"{INFO}/METADATA"])
def test_edited_file_is_refused_by_name(forked, refusal, path):
    site = forked.site()
    (site / path).write_bytes((site / path).read_bytes() + b"# mine\n")
    refuse_apply(forked, refusal, site, f"{path}: was edited", "RECORD says")


def test_edited_file_that_no_patch_touches_is_left_alone(forked):
    site = forked.site()
    (site / "sglang/run.sh").write_bytes(b"mine\n")
    assert forked.run("apply", "--target", site) == 0
    assert (site / "sglang/run.sh").read_bytes() == b"mine\n"


def test_missing_file_is_refused(forked, refusal):
    site = forked.site()
    (site / MODEL).unlink()
    refuse_apply(
        forked, refusal, site, "model-change-lines.patch: sglang/srt/model.py: no such file"
    )


def test_edited_file_without_record_is_named_by_hunk(forked, refusal):
    site = forked.site()
    shutil.rmtree(site / INFO)
    (site / MODEL).write_bytes(b"mine\n" + (site / MODEL).read_bytes())
    refuse_apply(forked, refusal, site, "model-change-lines.patch: .*model.py: hunk 1: ")


def test_directory_without_the_package_is_refused(forked, refusal, tmp_path):
    refusal(forked.run("apply", "--target", tmp_path / "none"), "holds no sglang/")


def test_dist_info_without_record_is_refused(forked, refusal):
    site = forked.site()
    (site / INFO / "RECORD").unlink()
    refuse_apply(forked, refusal, site, "has no RECORD")


@pytest.mark.parametrize("function", ["os.replace", "os.rename", "os.chmod"])
@pytest.mark.parametrize("call", range(1, 9))
def test_failure_at_any_write_rolls_everything_back(forked, monkeypatch, function, call):
    site = forked.site()
    before = snapshot(site)
    module, name = function.split(".")
    real, calls = getattr(os, name), 0

    def fail_once(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call:
            raise OSError(28, "No space left on device")
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail_once)
        code = forked.run("apply", "--target", site)
    if calls < call:
        assert code == 0  # fewer writes than this: nothing failed
    else:
        assert code == 2
        assert snapshot(site) == before


def test_interrupt_rolls_back(forked, monkeypatch):
    site = forked.site()
    before = snapshot(site)

    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", interrupt)
        with pytest.raises(KeyboardInterrupt):
            forked.run("apply", "--target", site)
    assert snapshot(site) == before
