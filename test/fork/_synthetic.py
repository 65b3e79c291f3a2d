"""A small upstream to work on: the same layout as the real wheel, built in a millisecond."""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

from sglang_ic.fork.cli import main
from sglang_ic.fork.maintain import diff
from sglang_ic.fork.record import record_row, render_record
from sglang_ic.fork.upstream import Pin, load_pin

VERSION = "1.2.3"
WHEEL = f"sglang-{VERSION}-py3-none-any.whl"
INFO = f"sglang-{VERSION}.dist-info"
FORK_INFO = f"sglang-{VERSION}+ic.2.dist-info"
MODEL = "sglang/srt/model.py"
FILES = {
    "sglang/__init__.py": b"",
    "sglang/_version.py": b"__version__ = version = '1.2.3'\n"
    b"__version_tuple__ = version_tuple = (1, 2, 3)\n",
    "sglang/run.sh": b"#!/bin/sh\n",
    "sglang/lib.so": b"\x00\xff\x00binary",
    "sglang/srt/old.py": b"gone = 1\n",
    "sglang/srt/tail.py": b"first\nlast without newline",
    MODEL: b"".join(b"line %d\n" % i for i in range(1, 41)),
    f"{INFO}/METADATA": b"Metadata-Version: 2.4\nName: sglang\nVersion: 1.2.3\n\nAbout.\n",
    f"{INFO}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}
HEADER = """\
Subject: model: change things

Why: a test.
Why not a plugin: it is a test.
How: one line.

Forwarded: no
Applied-Upstream: no
Drop-When: never
Guarded-By: test/fork/test_model.py::test_guard

"""


@dataclass
class Upstream:
    """A checkout with `patches/`, and the synthetic wheel in its `.cache/`."""

    root: Path

    @property
    def patches(self) -> Path:
        return self.root / "patches"

    @property
    def wheel(self) -> Path:
        return self.root / ".cache" / WHEEL

    @property
    def pin(self) -> Pin:
        return load_pin(self.patches)

    def write_wheel(self, files: dict[str, bytes], version: str = VERSION) -> None:
        """Write the wheel and pin it."""
        name = WHEEL.replace(VERSION, version)
        path = self.root / ".cache" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        info = f"sglang-{version}.dist-info"
        numbers = f"({version.replace('.', ', ')})".encode()
        files = {
            path.replace(INFO, info): data.replace(b"1.2.3", version.encode()).replace(
                b"(1, 2, 3)", numbers
            )
            for path, data in files.items()
        }
        rows = {path: record_row(data) for path, data in files.items()}
        rows[f"{info}/RECORD"] = ("", "")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo("sglang/", (2026, 10, 30, 1, 4, 0)), b"")
            for entry, data in (files | {f"{info}/RECORD": render_record(rows)}).items():
                facts = zipfile.ZipInfo(entry, (2026, 10, 30, 1, 4, 0))
                facts.external_attr = (0o100755 if entry.endswith(".sh") else 0o100644) << 16
                facts.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(facts, data)
        self.write_pin(name, hashlib.sha256(path.read_bytes()).hexdigest(), version)

    def write_pin(self, name: str, sha256: str, version: str = VERSION) -> None:
        self.patches.mkdir(exist_ok=True)
        (self.patches / "UPSTREAM").write_text(
            f'package = "sglang"\nversion = "{version}"\nfork = 2\n'
            f'[wheels]\n"{name}" = "{sha256}"\n'
        )

    def site(self, folder: str = "site") -> Path:
        """Unpack the wheel as pip would, with byte code rows in RECORD."""
        site = self.root / folder
        with zipfile.ZipFile(self.wheel) as archive:
            archive.extractall(site)
        record = site / INFO / "RECORD"
        byte_code_row = b"sglang/srt/__pycache__/model.cpython-311.pyc,,\n"
        record.write_bytes(record.read_bytes() + byte_code_row)
        byte_code = site / "sglang/srt/__pycache__/model.cpython-311.pyc"
        byte_code.parent.mkdir()
        byte_code.write_bytes(b"stale")
        return site

    def add(self, name: str, edits: dict[str, bytes | None]) -> Path:
        """Append a patch that leaves `edits` behind (None: deleted), with a complete header."""
        tree = self.root / f"tree-{name}"
        assert self.run("unpack", "--out", tree) == 0
        for path, data in edits.items():
            file = tree / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data) if data is not None else file.unlink()
        diff(self.pin, self.patches, self.wheel, tree, name)
        path = self.patches / name
        body = path.read_bytes()
        path.write_bytes(HEADER.encode() + body[body.index(b"diff --git") :])
        return path

    def run(self, command: str, *args: object) -> int:
        """Run a command of the CLI on this checkout."""
        return main([command, "--patches", str(self.patches), *map(str, args)])


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return every file below `folder` with its mode and content, and every directory."""
    return {
        path.relative_to(folder).as_posix(): (
            path.stat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(folder.rglob("*"))
    }
