"""The repository's series on the pinned wheel: from `.cache/`, else from the package index."""

import shutil
import subprocess
import sys
import time
import zipfile

import pytest

from sglang_ic.fork.cli import main
from sglang_ic.fork.fetch import any_upstream_wheel, default_cache
from sglang_ic.fork.series import default_patches
from sglang_ic.fork.upstream import load_pin

PATCHES = default_patches()
PIN = load_pin(PATCHES)


@pytest.fixture(scope="module")
def wheel():
    return any_upstream_wheel(PIN, default_cache(PATCHES))


def test_series_verifies(wheel, capsys):
    code = main(["verify", "--wheel", str(wheel)])
    out = capsys.readouterr().out
    assert code == 0, out


def test_refresh_changes_no_byte(wheel, tmp_path, capsys):
    copy = tmp_path / "patches"
    shutil.copytree(PATCHES, copy)
    assert main(["refresh", "--patches", str(copy), "--wheel", str(wheel)]) == 0
    assert "rewritten" not in capsys.readouterr().out


def test_wheel_is_reproducible_quick_and_installs_as_the_fork(wheel, tmp_path):
    paths = []
    for folder in ("one", "two"):
        began = time.perf_counter()
        argv = ["build", "--wheel", str(wheel), "--out", str(tmp_path / folder)]
        assert main(argv) == 0
        assert time.perf_counter() - began < 20
        paths += list((tmp_path / folder).iterdir())
    assert paths[0].name == paths[1].name and PIN.fork_version in paths[0].name
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with zipfile.ZipFile(paths[0]) as archive, zipfile.ZipFile(wheel) as upstream:
        assert archive.testzip() is None
        assert abs(len(archive.namelist()) - len(upstream.namelist())) < 50
        archive.extractall(tmp_path / "site")
    site = tmp_path / "site"
    assert main(["verify", "--target", str(site)]) == 0
    code = "import importlib.metadata as m; print(m.version('sglang'))\n"
    code += f"exec(open({str(site / PIN.version_file)!r}).read()); print(version)"
    env = {"PYTHONPATH": str(site)}
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [PIN.fork_version] * 2


def test_in_place_gives_the_wheels_files(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    assert main(["apply", "--target", str(tmp_path / "site")]) == 0
    assert main(["verify", "--target", str(tmp_path / "site")]) == 0
    assert main(["build", "--wheel", str(wheel), "--out", str(tmp_path / "dist")]) == 0
    (built,) = (tmp_path / "dist").iterdir()
    with zipfile.ZipFile(built) as archive:
        for name in archive.namelist():
            if name.startswith("sglang/") and not name.endswith("/"):
                assert (tmp_path / "site" / name).read_bytes() == archive.read(name), name
