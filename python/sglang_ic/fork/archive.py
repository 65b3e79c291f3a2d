"""Copy a zip archive with some entries replaced, without recompressing the others.

`zipfile` reads archives but cannot copy an entry as it is; writing one takes three fixed structs
(APPNOTE.TXT 4.3.7, 4.3.12, 4.3.16). Untouched entries keep their compressed bytes. New content is
stored uncompressed, because deflate's output depends on the zlib build, and the same input must
give the same archive on every machine.
"""

import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import BinaryIO

from . import ForkError

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s2B5H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_ENCRYPTED, _UTF8_NAME = 0x1, 0x800  # flag bits
_NEW_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say
_NEW_MODE = 0o100644 << 16  # regular file, rw-r--r--, where Unix zips keep it


def copy_archive(
    source: zipfile.ZipFile,
    out: BinaryIO,
    changed: Mapping[str, bytes | None],
    rename: tuple[str, str],
) -> None:
    """Write `source` to `out` with `changed` applied, entries sorted by name.

    Args:
        changed: name in `source` -> new content, None drops the entry. Replaced entries keep date
            and mode; new ones get fixed ones.
        rename: (top-level directory, its new name).
    Raises:
        ForkError: the result would need zip64.
    """
    old = {info.filename: info for info in source.infolist()}
    kept = (name for name in old.keys() | changed.keys() if changed.get(name, b"") is not None)
    central: list[bytes] = []
    for new_name, name in sorted((_renamed(name, *rename), name) for name in kept):
        info = old.get(name) or zipfile.ZipInfo(name, _NEW_DATE)
        if name not in old:
            info.external_attr, info.create_system = _NEW_MODE, 3
        if name in changed:
            payload = changed[name]
            facts = (zipfile.ZIP_STORED, zlib.crc32(payload), len(payload), len(payload))
        else:
            payload = _compressed(source, info)
            facts = (info.compress_type, info.CRC, info.compress_size, info.file_size)
        entry = new_name.encode("utf-8")
        central.append(_central_header(info, facts, entry, out.tell()))
        out.write(_local_header(info, facts, entry))
        out.write(payload)
    start = out.tell()
    directory = b"".join(central)
    if start + len(directory) > 0xFFFF_FFFE or len(central) > 0xFFFE:
        raise ForkError(f"{source.filename}: the result passes 4 GiB or 65,534 entries (zip64)")
    out.write(directory)
    out.write(_END.pack(b"PK\5\6", 0, 0, len(central), len(central), len(directory), start, 0))


def _compressed(source: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Return an entry's bytes as they lie in the archive."""
    file = source.fp
    file.seek(info.header_offset)
    header = _LOCAL.unpack(file.read(_LOCAL.size))
    assert header[0] == b"PK\3\4" and not info.flag_bits & _ENCRYPTED, info.filename
    file.seek(header[9] + header[10], 1)  # the name and extra field
    return file.read(info.compress_size)


def _local_header(info: zipfile.ZipInfo, facts: tuple[int, int, int, int], name: bytes) -> bytes:
    method, crc, size, full_size = facts
    needs = (20, _UTF8_NAME, method, *_dos_date(info))
    return _LOCAL.pack(b"PK\3\4", *needs, crc, size, full_size, len(name), 0) + name


def _central_header(
    info: zipfile.ZipInfo, facts: tuple[int, int, int, int], name: bytes, offset: int
) -> bytes:
    method, crc, size, full_size = facts
    needs = (20, _UTF8_NAME, method, *_dos_date(info))
    rest = (len(name), 0, 0, 0, 0, info.external_attr, offset)
    made_by = (20, info.create_system)
    return _CENTRAL.pack(b"PK\1\2", *made_by, *needs, crc, size, full_size, *rest) + name


def _dos_date(info: zipfile.ZipInfo) -> tuple[int, int]:
    """Return (time, date) in the packed form of a zip header."""
    year, month, day, hour, minute, second = info.date_time
    return hour << 11 | minute << 5 | second // 2, (year - 1980) << 9 | month << 5 | day


def _renamed(name: str, old: str, new: str) -> str:
    return new + name[len(old) :] if name == old or name.startswith(f"{old}/") else name
