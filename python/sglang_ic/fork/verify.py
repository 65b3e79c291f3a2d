"""Checks of the series and of an installed fork, as rows of a table; `status` prints bare facts."""

import ast
import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import ForkError
from .apply import Overlay, apply_series
from .header import parse_header
from .install import dist_info, find_stamp
from .ledger import refreshed_ledger
from .patchfile import Patch
from .record import parse_record, row_mismatch
from .refresh import refresh_series
from .release import stamp_difference
from .series import load_series
from .upstream import Pin
from .wheel import WheelTree


@dataclass(frozen=True)
class Row:
    """One check's outcome."""

    name: str
    fault: str | None  # None: the check passed
    detail: str = ""  # what was checked, for a passing row

    def __str__(self) -> str:
        return f"{'FAIL' if self.fault else 'ok':<4}  {self.name:<9}  {self.fault or self.detail}"


def verify_series(pin: Pin, patches: Path, find_wheel: Callable[[], Path]) -> list[Row]:
    """Check that the series is complete, applies to the pin, and is in its canonical form."""
    try:
        series = load_series(patches, pin)
    except ForkError as error:
        return [Row("series", str(error))]
    return [
        Row("series", None, f"{len(series)} patches for {pin.package} {pin.version}"),
        _row("headers", lambda: _check_headers(series)),
        _row("guards", lambda: _check_guards(series, patches.resolve().parent)),
        _row("ledger", lambda: _check_ledger(series, patches / "README.md")),
        _row("applies", lambda: _check_applies(series, pin, find_wheel())),
    ]


def verify_installed(pin: Pin, patches: Path, target: Path) -> list[Row]:
    """Check the fork in a site-packages directory against its RECORD and the current series."""
    return [
        _row("stamp", lambda: _check_stamp(pin, load_series(patches, pin), target)),
        _row("RECORD", lambda: _check_files(pin, target)),
    ]


def installed_fork(pin: Pin) -> Path | None:
    """Return the site-packages directory of this interpreter's fork; None when it has none."""
    version, folder = installed_version(pin)
    return folder if version is not None and "+ic." in version else None


def installed_version(pin: Pin) -> tuple[str | None, Path | None]:
    """Return (version, site-packages) of the package in this interpreter; (None, None) without."""
    try:
        found = importlib.metadata.distribution(pin.package)
    except importlib.metadata.PackageNotFoundError:
        return None, None
    return found.version, Path(str(found.locate_file("")))


def status_lines(pin: Pin, patches: Path) -> Iterator[str]:
    """Yield the pin, the series, and what this interpreter has, one line each."""
    yield f"pin:        {pin.package} {pin.version}, fork {pin.fork_version}"
    series = load_series(patches, pin)
    yield f"series:     {len(series)} patches in {patches}"
    for number, patch in enumerate(series, 1):
        yield f"  {number:>2}        {patch.name} ({len(patch.files)} files)"
    version, folder = installed_version(pin)
    yield f"installed:  {f'{pin.package} {version} in {folder}' if version else 'none'}"
    stamp = find_stamp(pin, folder) if folder else None
    difference = stamp_difference(stamp, pin, series) if stamp else None
    yield f"stamp:      {'none' if stamp is None else difference or 'equals the current series'}"


def find_test(path: Path, names: Sequence[str]) -> bool:
    """Whether `names` (`[class, ...], function`) lead to a definition in a test file."""
    body = ast.parse(path.read_bytes(), str(path)).body
    for name in names:
        kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        node = next((n for n in body if isinstance(n, kinds) and n.name == name), None)
        if node is None:
            return False
        body = node.body
    return True


def _row(name: str, check: Callable[[], str]) -> Row:
    """Run one check; what it refuses is the row's fault."""
    try:
        return Row(name, None, check())
    except ForkError as error:
        return Row(name, str(error))


def _check_headers(series: Sequence[Patch]) -> str:
    for patch in series:
        parse_header(patch)
    return "every patch says why, how, and when it can go"


def _check_guards(series: Sequence[Patch], root: Path) -> str:
    if not (root / "test").is_dir():
        return f"skipped: no test/ in {root}, this is no checkout"
    guards = [(patch.name, guard) for patch in series for guard in parse_header(patch).guarded_by]
    for patch, guard in guards:
        file, *names = guard.split("::")
        if not (root / file).is_file():
            raise ForkError(f"{patch}: Guarded-By {guard}: no such file: write the test")
        if not find_test(root / file, names):
            raise ForkError(f"{patch}: Guarded-By {guard}: no such test in that file: write it")
    return f"{len(guards)} tests exist"


def _check_ledger(series: Sequence[Patch], readme: Path) -> str:
    if not readme.is_file():
        raise ForkError(f"{readme}: missing: put it back")
    if refreshed_ledger(readme, series) != readme.read_bytes():
        raise ForkError(f"{readme}: the table differs from the patch headers: run `refresh`")
    return "the table equals the headers"


def _check_applies(series: Sequence[Patch], pin: Pin, wheel: Path) -> str:
    with WheelTree(wheel) as upstream:
        tree = apply_series(Overlay(upstream.read), series)
        texts = refresh_series(Overlay(upstream.read), series)
    for patch, text in zip(series, texts, strict=True):
        if patch.raw != text:
            raise ForkError(
                f"{patch.name}: applies, but `refresh` would write it otherwise: run `refresh`"
            )
    return f"to {wheel.name}, {len(tree.changed)} files, no fuzz, no offset"


def _check_stamp(pin: Pin, series: Sequence[Patch], target: Path) -> str:
    stamp = find_stamp(pin, target)
    if stamp is None:
        raise ForkError(f"{target}: no fork is installed here")
    difference = stamp_difference(stamp, pin, series)
    if difference:
        raise ForkError(f"{target}: {difference}: reinstall the fork")
    return f"{pin.fork_version}, equals the current series"


def _check_files(pin: Pin, target: Path) -> str:
    info = dist_info(pin, target)
    if info is None:
        return f"skipped: {target} has no dist-info"
    if not (info / "RECORD").is_file():
        raise ForkError(f"{info}: has no RECORD: reinstall the fork")
    rows = parse_record((info / "RECORD").read_bytes(), str(info / "RECORD"))
    faults = []
    for path, row in sorted(rows.items()):
        file = target / path
        if row[0]:
            fault = row_mismatch(row, file.read_bytes()) if file.is_file() else "is missing"
            faults += [f"{path} {fault}"] if fault else []
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise ForkError(f"{faults[0]}{more}: reinstall the fork")
    return f"{len(rows)} files match their hashes"
