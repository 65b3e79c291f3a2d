"""A copied archive: what `zipfile` reads back, and what stayed the same bytes."""

import io
import zipfile

from sglang_ic.fork.archive import copy_archive


def source() -> zipfile.ZipFile:
    """A directory, and files: executable with an extra field, compressed, streamed, stored."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("top/", (2020, 1, 2, 3, 4, 6)), b"")
        run = zipfile.ZipInfo("top/run.sh", (2020, 1, 2, 3, 4, 6))
        run.external_attr, run.compress_type = 0o100755 << 16, zipfile.ZIP_DEFLATED
        run.extra = b"\xfe\xca\x00\x00"
        archive.writestr(run, b"#!/bin/sh\n" * 99)
        archive.writestr("top/a.py", b"a = 1\n" * 99)
        with archive.open("top/streamed.py", "w") as file:
            file.write(b"s = 1\n" * 99)
        archive.writestr("old/é.txt", b"text", zipfile.ZIP_STORED)
    return zipfile.ZipFile(data)


def copy(changed: dict[str, bytes | None]) -> zipfile.ZipFile:
    out = io.BytesIO()
    copy_archive(source(), out, changed, ("old", "new"))
    return zipfile.ZipFile(out)


def test_untouched_entries_keep_bytes_mode_and_date():
    copied = copy({"top/a.py": b"b = 2\n"})
    assert copied.testzip() is None
    for name in ("top/", "top/run.sh", "top/streamed.py"):
        before, after = source().getinfo(name), copied.getinfo(name)
        assert copied.read(name) == source().read(name)
        for fact in ("date_time", "external_attr", "compress_type", "compress_size", "CRC"):
            assert getattr(after, fact) == getattr(before, fact), (name, fact)


def test_changed_added_removed_and_renamed_entries():
    copied = copy({"top/a.py": b"b = 2\n", "top/new.py": b"", "top/streamed.py": None})
    assert copied.namelist() == ["new/é.txt", "top/", "top/a.py", "top/new.py", "top/run.sh"]
    assert copied.read("top/a.py") == b"b = 2\n"
    assert copied.getinfo("top/a.py").date_time == source().getinfo("top/a.py").date_time
    assert copied.getinfo("top/new.py").date_time == (1980, 1, 1, 0, 0, 0)
    assert copied.getinfo("top/new.py").external_attr >> 16 == 0o100644
