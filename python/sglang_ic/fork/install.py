"""Patch an SGLang that lies unpacked in a site-packages directory, in place.

Everything is computed and checked in memory first. Writing replaces file by file and undoes what
it did when one fails. Sources go first and the dist-info rename last: should the machine die in
between, RECORD still has upstream's hashes, so the next run sees the mix and says to reinstall.
"""

import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from . import ForkError
from .apply import Overlay
from .files import write_atomic
from .patchfile import Patch
from .record import parse_record, row_mismatch
from .release import STAMP, loose_stamp, release, stamp_difference
from .upstream import Pin


def apply_in_place(pin: Pin, patches: Sequence[Patch], target: Path) -> bool:
    """Patch the package in `target`; return False when it already is this very fork.

    Args:
        target: a site-packages directory, with or without the package's dist-info.
    Raises:
        ForkError: another version, another series, a touched file that differs from RECORD, or a
            patch that does not apply; nothing has been written then.
    """
    if not (target / pin.package / "__init__.py").is_file():
        raise ForkError(f"{target}: holds no {pin.package}/: name the site-packages itself")
    stamp = find_stamp(pin, target)
    if stamp is not None:
        difference = stamp_difference(stamp, pin, patches)
        if difference:
            raise ForkError(f"{target}: is patched, but {difference}: run `{pin.reinstall}` first")
        return False
    _check_version(pin, target)
    _check_record(pin, patches, target)
    changed = release(Overlay(lambda path: _read(target / path)), patches, pin, wheel=None)
    _write(pin, target, changed)
    return True


def find_stamp(pin: Pin, target: Path) -> bytes | None:
    """Return the stamp of the fork installed in `target`, None when there is none."""
    stamps = sorted(target.glob(f"{pin.package}-*.dist-info/{STAMP}"))
    if len(stamps) > 1:
        raise ForkError(f"{target}: holds {len(stamps)} forks' dist-info: run `{pin.reinstall}`")
    return stamps[0].read_bytes() if stamps else _read(target / loose_stamp(pin))


def dist_info(pin: Pin, target: Path) -> Path | None:
    """Return the one dist-info directory of the package in `target`, None when there is none."""
    found = sorted(target.glob(f"{pin.package}-*.dist-info"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ForkError(f"{target}: holds {names}: remove the stale one or run `{pin.reinstall}`")
    return found[0] if found else None


def _check_version(pin: Pin, target: Path) -> None:
    """Refuse any dist-info but the pin's; without one, `release` checks the version module."""
    info = dist_info(pin, target)
    if info is not None and info.name != pin.upstream_dist_info:
        version = info.name.removeprefix(f"{pin.package}-").removesuffix(".dist-info")
        raise ForkError(
            f"{target}: has {pin.package} {version}, the series is for {pin.version}: "
            f"run `{pin.reinstall}`"
        )
    if info is not None and not (info / "RECORD").is_file():
        raise ForkError(f"{info}: has no RECORD: run `{pin.reinstall}`")


def _check_record(pin: Pin, patches: Sequence[Patch], target: Path) -> None:
    """Refuse when a file that we are about to change is not the one that was installed."""
    info = pin.upstream_dist_info
    recorded = _read(target / info / "RECORD")
    if recorded is None:
        return
    rows = parse_record(recorded, str(target / info / "RECORD"))
    touched = {file.path for patch in patches for file in patch.files}
    for path in sorted(touched | {pin.version_file, f"{info}/METADATA"}):
        data = _read(target / path)
        if data is None or path not in rows:
            continue  # a file to create, or one whose absence the patch itself reports
        mismatch = row_mismatch(rows[path], data)
        if mismatch:
            raise ForkError(f"{target / path}: was edited ({mismatch}): run `{pin.reinstall}`")


def _write(pin: Pin, target: Path, changed: Mapping[str, bytes | None]) -> None:
    """Put `changed` on disk and rename the dist-info; on any error put everything back."""
    old, new = target / pin.upstream_dist_info, target / pin.fork_dist_info
    with ExitStack() as undo:
        for path in sorted(changed, key=lambda path: (path.startswith(old.name), path)):
            _replace(target / path, changed[path], undo)
        if old.is_dir():
            os.rename(old, new)
        undo.pop_all()
    for path in changed:  # byte code is only a cache: drop it once nothing can fail any more
        for file in (target / path).parent.glob(f"__pycache__/{Path(path).stem}.*.pyc"):
            file.unlink()


def _replace(path: Path, data: bytes | None, undo: ExitStack) -> None:
    """Write or delete one file; `undo` learns first how to put it back."""
    before = _read(path)
    mode = 0o644 if before is None else stat.S_IMODE(path.stat().st_mode)
    if before is None:
        for parent in reversed([parent for parent in path.parents if not parent.exists()]):
            parent.mkdir()
            undo.callback(parent.rmdir)
    undo.callback(_put_back, path, before, mode)
    if data is None:
        path.unlink()
    else:
        write_atomic(path, data, mode)


def _put_back(path: Path, before: bytes | None, mode: int) -> None:
    if before is None:
        path.unlink(missing_ok=True)
    elif _read(path) != before:
        write_atomic(path, before, mode)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
