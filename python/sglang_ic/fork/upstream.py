"""The pin: which upstream release the series applies to, and the hashes of its wheels.

`patches/UPSTREAM` is the one place that names the version. It is TOML:

    package = "sglang"
    version = "0.5.23"
    fork = 1                      # the N of 0.5.23+ic.N
    [wheels]                      # file name -> sha256
    "sglang-0.5.23-cp311-cp311-manylinux_2_34_x86_64.whl" = "00b3..."
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from . import ForkError

_WHEEL = re.compile(r"(?P<package>\w+)-(?P<version>[^-]+)-(?P<tags>[^-]+-[^-]+-[^-]+)\.whl")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEYS = {"package": str, "version": str, "fork": int, "wheels": dict}


@dataclass(frozen=True)
class Pin:
    """The upstream release we build on, as read from `patches/UPSTREAM`."""

    package: str
    version: str
    fork: int
    wheels: Mapping[str, str]  # file name -> lower-case hex sha256

    @property
    def fork_version(self) -> str:
        return f"{self.version}+ic.{self.fork}"

    @property
    def upstream_dist_info(self) -> str:
        return f"{self.package}-{self.version}.dist-info"

    @property
    def fork_dist_info(self) -> str:
        return f"{self.package}-{self.fork_version}.dist-info"

    @property
    def version_file(self) -> str:
        return f"{self.package}/_version.py"

    @property
    def reinstall(self) -> str:
        """The command that brings the stock package back (pip keeps 0.5.23+ic.N otherwise)."""
        return f"pip install --force-reinstall --no-deps {self.package}=={self.version}"

    def wheel_named(self, sha256: str) -> str | None:
        """Return the pinned wheel's file name that has this sha256, or None."""
        return next((name for name, pinned in self.wheels.items() if pinned == sha256), None)

    def fork_wheel(self, upstream_wheel: str) -> str:
        """Return the file name of the fork's wheel built from the pinned `upstream_wheel`."""
        return f"{self.package}-{self.fork_version}-{wheel_tags(upstream_wheel)}.whl"


def wheel_tags(name: str) -> str:
    """Return `cp311-cp311-manylinux_2_34_x86_64` of a pinned wheel's file name."""
    match = _WHEEL.fullmatch(name)
    assert match, f"load_pin accepted the wheel name {name!r}"
    return match["tags"]


def load_pin(patches: Path) -> Pin:
    """Read and check `patches/UPSTREAM`.

    Raises:
        ForkError: the file is missing, is not TOML, or a field is missing, unknown or malformed.
    """
    path = patches / "UPSTREAM"
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ForkError(f"{path}: no such file: name the patch directory with --patches") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ForkError(f"{path}: not readable as TOML: {error}") from None
    if set(fields) != set(_KEYS):
        raise ForkError(f"{path}: has the keys {sorted(fields)}: must have {sorted(_KEYS)}")
    for key, kind in _KEYS.items():
        if type(fields[key]) is not kind:
            raise ForkError(f"{path}: {key} is {fields[key]!r}: must be a {kind.__name__}")
    if fields["fork"] < 1:
        raise ForkError(f"{path}: fork is {fields['fork']}: must be 1 or more")
    for name, sha256 in fields["wheels"].items():
        match = _WHEEL.fullmatch(name)
        if not match or (match["package"], match["version"]) != (
            fields["package"],
            fields["version"],
        ):
            wanted = f"{fields['package']}-{fields['version']}-<python>-<abi>-<platform>.whl"
            raise ForkError(f"{path}: wheel name {name!r}: must look like {wanted}")
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            raise ForkError(f"{path}: {name} has sha256 {sha256!r}: must be 64 hex digits")
    if not fields["wheels"]:
        raise ForkError(f"{path}: [wheels] is empty: pin at least one wheel's sha256")
    return Pin(**{**fields, "wheels": MappingProxyType(fields["wheels"])})
