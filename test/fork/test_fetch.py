"""Where the upstream wheel comes from; pip is played by a stand-in."""

import platform
import shutil
import subprocess

import pytest
from _synthetic import VERSION

from sglang_ic.fork import ForkError
from sglang_ic.fork.fetch import any_upstream_wheel, default_cache, upstream_wheel
from sglang_ic.fork.upstream import Pin

NAME = f"sglang-{VERSION}-cp312-cp312-manylinux_2_34_x86_64.whl"


@pytest.fixture
def pinned(upstream, monkeypatch) -> Pin:
    """The synthetic wheel, pinned under a name with the true tags; the machine is x86_64."""
    upstream.write_pin(NAME, *upstream.pin.wheels.values())
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    return upstream.pin


def fake_pip(monkeypatch, source=None, stderr="", code=0):
    """Replace the pip run with a copy of `source`; return the commands it was given."""
    commands = []

    def run(command, **kwargs):
        commands.append(command)
        if source:
            shutil.copy(source, f"{command[command.index('--dest') + 1]}/{NAME}")
        return subprocess.CompletedProcess(command, code, "", stderr)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_download_asks_pip_for_the_pinned_file_and_caches_it(pinned, upstream, monkeypatch):
    cache = upstream.root / "cache"
    commands = fake_pip(monkeypatch, source=upstream.wheel)
    assert upstream_wheel(pinned, cache, "3.12") == cache / NAME
    assert upstream_wheel(pinned, cache, "3.12") == cache / NAME
    (command,) = commands
    assert command[command.index("--platform") + 1] == "manylinux_2_34_x86_64"
    assert command[command.index("--python-version") + 1] == "3.12"
    assert command[-1] == f"sglang=={VERSION}" and "--no-deps" in command
    assert [file.name for file in cache.iterdir()] == [NAME]


def test_failed_download_says_what_pip_said(pinned, upstream, monkeypatch):
    fake_pip(monkeypatch, stderr="noise\nERROR: No matching distribution\n", code=1)
    with pytest.raises(ForkError, match=r"pip download failed \(ERROR: No matching.*--wheel FILE"):
        upstream_wheel(pinned, upstream.root / "cache", "3.12")
    assert list((upstream.root / "cache").iterdir()) == []


def test_wrong_bytes_in_the_cache_are_refused(pinned, upstream):
    cache = upstream.root / "cache"
    cache.mkdir()
    (cache / NAME).write_bytes(b"other")
    for find in (
        lambda: upstream_wheel(pinned, cache, "3.12"),
        lambda: any_upstream_wheel(pinned, cache),
    ):
        with pytest.raises(ForkError, match="cp312.*sha256 is .*5 bytes.*must be"):
            find()


def test_python_or_machine_without_a_wheel_is_refused(pinned, upstream, monkeypatch):
    with pytest.raises(
        ForkError, match="no pinned wheel for Python 3.9 on x86_64: UPSTREAM has cp312"
    ):
        upstream_wheel(pinned, upstream.root, "3.9")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    with pytest.raises(ForkError, match="3.12 on arm64.*--wheel"):
        upstream_wheel(pinned, upstream.root, "3.12")


def test_checks_take_any_cached_wheel(pinned, upstream, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    cache = upstream.root / "cache"
    cache.mkdir()
    shutil.copy(upstream.wheel, cache / NAME)
    assert any_upstream_wheel(pinned, cache) == cache / NAME


def test_cache_lies_beside_the_patches(upstream):
    assert default_cache(upstream.patches) == upstream.root / ".cache"
