"""Get the upstream wheel: a file the user names, the cache, or pip; its sha256 decides."""

import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from . import ForkError
from .upstream import Pin, wheel_tags


def default_cache(patches: Path) -> Path:
    """Return `.cache/` beside a checkout's `patches/`, else the user's cache directory."""
    if patches.name == "patches":
        return patches.parent / ".cache"
    return Path.home() / ".cache" / "sglang_ic"


def running_python() -> str:
    """Return this interpreter's version as pip spells it, e.g. 3.12."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def given_wheel(pin: Pin, path: Path) -> Path:
    """Return `path` once its bytes are known to be a pinned wheel's."""
    if not path.is_file():
        raise ForkError(f"{path}: no such wheel: pass an existing file, or leave out --wheel")
    pinned_name(pin, path)
    return path


def upstream_wheel(pin: Pin, cache: Path, python_version: str) -> Path:
    """Return the checked upstream wheel for a CPython, from the cache or through pip.

    Args:
        python_version: like "3.12"; the machine is the running one's.
    """
    name = _wheel_for(pin, python_version)
    path = cache / name
    if not path.is_file():
        _download(pin, name, python_version, path)
    pinned_name(pin, path)
    return path


def any_upstream_wheel(pin: Pin, cache: Path) -> Path:
    """Return any pinned wheel: only compiled modules differ, so checks take what is here."""
    for name in sorted(pin.wheels):
        if (cache / name).is_file():
            pinned_name(pin, cache / name)
            return cache / name
    return upstream_wheel(pin, cache, running_python())


def pinned_name(pin: Pin, path: Path) -> str:
    """Return the pinned file name of a wheel, by its sha256; the file itself may have any name."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    name = pin.wheel_named(sha256)
    if name is None:
        wanted = pin.wheels.get(path.name, f"one of the {len(pin.wheels)} in UPSTREAM")
        raise ForkError(
            f"{path}: sha256 is {sha256} ({path.stat().st_size} bytes), must be {wanted}: "
            "a truncated or another wheel; delete it and download again"
        )
    return name


def _wheel_for(pin: Pin, python_version: str) -> str:
    python = "cp" + python_version.replace(".", "")
    machine = platform.machine()
    for name in sorted(pin.wheels):
        tags = wheel_tags(name)
        if tags.startswith(f"{python}-") and tags.endswith(f"_{machine}"):
            return name
    raise ForkError(
        f"no pinned wheel for Python {python_version} on {machine}: UPSTREAM has "
        f"{', '.join(sorted(wheel_tags(n) for n in pin.wheels))}; name a file with --wheel"
    )


def _download(pin: Pin, name: str, python_version: str, path: Path) -> None:
    """Let pip find `name`, then move it to `path` whole."""
    wheel_platform = wheel_tags(name).split("-")[2]
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--only-binary=:all:", "--dest", folder]
        command += ["--platform", wheel_platform, "--python-version", python_version]
        command += [f"{pin.package}=={pin.version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not (Path(folder) / name).is_file():
            said = (done.stderr.strip() or "no output").splitlines()[-1]
            raise ForkError(f"{name}: pip download failed ({said}): get it and pass --wheel FILE")
        os.replace(Path(folder) / name, path)
