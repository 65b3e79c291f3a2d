"""The built wheel: true to its RECORD, the same every time, and installable."""

import base64
import csv
import hashlib
import json
import subprocess
import sys
import zipfile

import pytest
from _synthetic import FILES, FORK_INFO, INFO, MODEL, WHEEL

from sglang_ic.fork import ForkError
from sglang_ic.fork.wheel import WheelTree

FORK_WHEEL = "sglang-1.2.3+ic.2-py3-none-any.whl"


@pytest.fixture
def built(forked):
    out = forked.root / "dist"
    assert forked.run("build", "--wheel", forked.wheel, "--out", out) == 0
    assert [file.name for file in out.iterdir()] == [FORK_WHEEL]
    return out / FORK_WHEEL


def test_wheel_holds_upstream_plus_patches_and_nothing_else(built):
    archive = zipfile.ZipFile(built)
    names = {name for name in archive.namelist() if not name.endswith("/")}
    upstream = {name.replace(INFO, FORK_INFO) for name in FILES} | {f"{FORK_INFO}/RECORD"}
    assert names - upstream == {"sglang/srt/fresh/new.py", f"{FORK_INFO}/ic_fork.json"}
    assert upstream - names == {"sglang/srt/old.py"}
    assert b"line three\n" in archive.read(MODEL) and archive.read(MODEL).endswith(b"line 41\n")
    assert archive.read("sglang/lib.so") == FILES["sglang/lib.so"]
    assert archive.getinfo("sglang/run.sh").external_attr >> 16 == 0o100755


def test_version_is_the_forks_everywhere(built):
    archive = zipfile.ZipFile(built)
    facts: dict[str, object] = {}
    exec(archive.read("sglang/_version.py"), facts)
    assert facts["__version__"] == facts["version"] == "1.2.3+ic.2"
    assert facts["version_tuple"] == (1, 2, 3, "ic.2")
    assert b"\nVersion: 1.2.3+ic.2\n" in archive.read(f"{FORK_INFO}/METADATA")


def test_record_is_true(built):
    archive = zipfile.ZipFile(built)
    rows = list(csv.reader(archive.read(f"{FORK_INFO}/RECORD").decode().splitlines()))
    files = sorted(name for name in archive.namelist() if not name.endswith("/"))
    assert [row[0] for row in rows] == files
    for path, digest, size in rows:
        if path == f"{FORK_INFO}/RECORD":
            assert (digest, size) == ("", "")
            continue
        data = archive.read(path)
        want = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        assert (digest, size) == (f"sha256={want}", str(len(data))), path


def test_stamp_tells_what_went_in(built, forked):
    stamp = json.loads(zipfile.ZipFile(built).read(f"{FORK_INFO}/ic_fork.json"))
    wheel_sha256 = hashlib.sha256(forked.wheel.read_bytes()).hexdigest()
    assert stamp["version"] == "1.2.3+ic.2"
    assert stamp["upstream"] == {"version": "1.2.3", "wheel": WHEEL, "sha256": wheel_sha256}
    assert [(entry["patch"], entry["sha256"]) for entry in stamp["series"]] == [
        (name, hashlib.sha256((forked.patches / name).read_bytes()).hexdigest())
        for name in ("model-change-lines.patch", "model-add-tail.patch")
    ]


def test_same_input_gives_same_bytes(built, forked):
    first = built.read_bytes()
    assert forked.run("build", "--wheel", forked.wheel, "--out", built.parent) == 0
    assert built.read_bytes() == first


def test_pip_installs_it(built, tmp_path):
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--disable-pip-version-check", "--target", str(tmp_path / "site"), str(built)]
    subprocess.run(command, check=True)
    code = "import sglang._version as v, importlib.metadata as m\n"
    code += "print(v.version, m.version('sglang'))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tmp_path / "site",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["1.2.3+ic.2", "1.2.3+ic.2"]


def test_renamed_upstream_wheel_is_known_by_its_hash(forked, tmp_path):
    other = tmp_path / "download.whl"
    other.write_bytes(forked.wheel.read_bytes())
    assert forked.run("build", "--wheel", other, "--out", tmp_path / "d") == 0
    assert (tmp_path / "d" / FORK_WHEEL).is_file()


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data + b"x"])
def test_truncated_or_other_wheel_is_refused(forked, refusal, damage):
    bad = forked.root / "bad.whl"
    bad.write_bytes(damage(forked.wheel.read_bytes()))
    refusal(
        forked.run("build", "--wheel", bad, "--out", forked.root / "dist"), "sha256", "truncated"
    )
    assert not (forked.root / "dist").exists()


def test_missing_wheel_is_refused(forked, refusal):
    refusal(forked.run("build", "--wheel", forked.root / "no.whl"), "no.whl: no such wheel")


def test_pinned_file_that_is_no_zip_is_refused(forked, refusal):
    bad = forked.root / "bad.whl"
    bad.write_bytes(b"PK")
    forked.write_pin(WHEEL, hashlib.sha256(b"PK").hexdigest())
    refusal(forked.run("build", "--wheel", bad), "no complete zip")


def test_damaged_entry_is_refused(upstream):
    data = upstream.wheel.read_bytes()
    start = data.index(MODEL.encode()) + len(MODEL)
    upstream.wheel.write_bytes(data[:start] + b"\xff" * 8 + data[start + 8 :])
    with WheelTree(upstream.wheel) as tree, pytest.raises(ForkError, match="model.py is damaged"):
        tree.read(MODEL)


def test_patch_that_does_not_apply_is_named_and_nothing_is_written(forked, refusal):
    model = FILES[MODEL].replace(b"line 29\n", b"other\n")
    forked.write_wheel(FILES | {MODEL: model})
    code = forked.run("build", "--wheel", forked.wheel, "--out", forked.root / "dist")
    refusal(code, r"model-change-lines\.patch: sglang/srt/model\.py: hunk 2: .* line 29 .*'other")
    assert not (forked.root / "dist").exists()


def test_wheel_without_the_pinned_version_line_is_refused(upstream, refusal):
    upstream.write_wheel(FILES | {"sglang/_version.py": b"version = 'dev'\n"})
    refusal(upstream.run("build", "--wheel", upstream.wheel), "_version.py: 0 lines end in")


def test_interrupted_write_leaves_no_file(forked, monkeypatch):
    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("sglang_ic.fork.wheel.copy_archive", fail)
    with pytest.raises(KeyboardInterrupt):
        forked.run("build", "--wheel", forked.wheel, "--out", forked.root / "dist")
    assert list((forked.root / "dist").iterdir()) == []
