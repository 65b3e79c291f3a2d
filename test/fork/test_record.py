"""RECORD rows, checked with csv and hashlib alone."""

import base64
import csv
import hashlib

import pytest

from sglang_ic.fork import ForkError
from sglang_ic.fork.record import parse_record, record_row, render_record, row_mismatch


def test_row_is_the_urlsafe_unpadded_sha256_and_the_size():
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"data").digest()).decode().rstrip("=")
    assert record_row(b"data") == (f"sha256={digest}", "4")


def test_rows_survive_commas_quotes_and_accents_sorted_by_path():
    record = {'b,"c".py': record_row(b"x"), "RECORD": ("", ""), "é.py": record_row(b"")}
    data = render_record(record)
    assert parse_record(data, "RECORD") == record
    assert [row[0] for row in csv.reader(data.decode().splitlines())] == sorted(record)


@pytest.mark.parametrize("data", [b"a,b\n", b"a,b,c\nx\n", b"\xff,,\n"])
def test_malformed_rows_are_refused(data):
    with pytest.raises(ForkError, match="x/RECORD: row . is not"):
        parse_record(data, "x/RECORD")


def test_mismatch_tells_both_sides():
    row = record_row(b"data")
    assert row_mismatch(row, b"data") is None
    assert row_mismatch(("", ""), b"anything") is None
    assert row_mismatch((row[0], ""), b"data") is None
    assert row[0] in row_mismatch(row, b"date")
    assert "only sha256" in row_mismatch(("md5=x", "4"), b"data")
