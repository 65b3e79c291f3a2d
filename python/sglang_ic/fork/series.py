"""Where the patches lie and in which order they apply."""

import re
from pathlib import Path

from . import ForkError
from .patchfile import Patch, parse_patch
from .upstream import Pin

_SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)+\.patch")


def default_patches() -> Path:
    """Return `patches/` of the checkout this module runs from, else the copy packaged with it."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1] / "patches"
    return checkout if (checkout / "UPSTREAM").is_file() else package / "_patches"


def read_series(patches: Path) -> list[str]:
    """Return the patch file names in `patches/series`, in order.

    Raises:
        ForkError: no series file, a name that is no slug, a name listed twice, a listed patch that
            is missing, or a patch file that is not listed.
    """
    path = patches / "series"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise ForkError(f"{path}: no such file: name the patch directory with --patches") from None
    names = [name for line in lines if (name := line.split("#")[0].strip())]
    for name in names:
        check_slug(name, str(path))
        if names.count(name) > 1:
            raise ForkError(f"{path}: lists {name} twice: keep one line")
        if not (patches / name).is_file():
            raise ForkError(f"{path}: lists {name}, which is not there: add it or drop the line")
    strays = sorted({file.name for file in patches.glob("*.patch")} - set(names))
    if strays:
        raise ForkError(f"{patches / strays[0]}: is not in {path}: list it or delete it")
    return names


def load_series(patches: Path, pin: Pin) -> list[Patch]:
    """Read and parse every patch of the series, in order."""
    return [load_patch(patches / name, pin) for name in read_series(patches)]


def load_patch(path: Path, pin: Pin) -> Patch:
    """Read and parse one patch; the version file is the fork's own to write, not a patch's."""
    patch = parse_patch(path.name, path.read_bytes(), pin.package)
    if any(file.path == pin.version_file for file in patch.files):
        raise ForkError(f"{patch.name}: {pin.version_file}: is written by the fork: leave it out")
    return patch


def check_slug(name: str, where: str) -> None:
    """Refuse a patch name that is not `<area>-<verb>-<object>.patch`."""
    if not _SLUG.fullmatch(name):
        raise ForkError(
            f"{where}: patch name {name!r}: must be lower-case words joined by '-', then .patch, "
            "like dsa-carry-topk.patch"
        )
