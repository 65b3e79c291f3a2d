"""Read the upstream wheel as a tree, and write the fork's wheel."""

import os
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from . import ForkError
from .apply import Overlay
from .archive import copy_archive
from .patchfile import Patch
from .release import release
from .upstream import Pin


class WheelTree:
    """The files of a wheel, read on demand; paths are as in site-packages."""

    def __init__(self, path: Path):
        try:
            self.archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, EOFError):
            raise ForkError(f"{path}: is no complete zip file: download it again") from None
        self.path = path
        self._names = {info.filename for info in self.archive.infolist() if not info.is_dir()}

    def read(self, path: str) -> bytes | None:
        if path not in self._names:
            return None
        try:
            return self.archive.read(path)
        except (zipfile.BadZipFile, zlib.error, EOFError):
            raise ForkError(f"{self.path}: {path} is damaged: download it again") from None

    def paths(self, top: str) -> list[str]:
        """Return every file under the top-level directory `top`, sorted."""
        return sorted(name for name in self._names if name.startswith(f"{top}/"))

    def __enter__(self) -> "WheelTree":
        return self

    def __exit__(self, *exc: object) -> None:
        self.archive.close()


def build_wheel(pin: Pin, patches: Sequence[Patch], upstream: Path, name: str, out: Path) -> Path:
    """Write the fork's wheel into `out` and return its path; the same input gives the same bytes.

    Args:
        upstream: the checked upstream wheel.
        name: its pinned file name.
        out: directory, made when missing. The wheel appears in it whole or not at all.
    Raises:
        ForkError: a patch does not apply, or the wheel is not laid out as pinned.
    """
    path = out / pin.fork_wheel(name)
    with WheelTree(upstream) as tree:
        if tree.read(f"{pin.upstream_dist_info}/RECORD") is None:
            raise ForkError(
                f"{upstream}: holds no {pin.upstream_dist_info}/RECORD: not a pinned wheel"
            )
        changed = release(Overlay(tree.read), patches, pin, name)
        out.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=out, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "wb") as file:
                rename = (pin.upstream_dist_info, pin.fork_dist_info)
                copy_archive(tree.archive, file, changed, rename)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    return path
