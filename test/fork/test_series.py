"""The series and the directory must agree."""

import pytest

from sglang_ic.fork import ForkError
from sglang_ic.fork.series import load_series, read_series


def test_order_is_the_files_and_comments_are_skipped(tmp_path):
    for name in ("a-b.patch", "c-d.patch"):
        (tmp_path / name).touch()
    (tmp_path / "series").write_text("# why\nc-d.patch  # first\n\na-b.patch\n")
    assert read_series(tmp_path) == ["c-d.patch", "a-b.patch"]


@pytest.mark.parametrize(
    "series, message",
    [
        ("a-b.patch\nx-y.patch\n", "series: lists x-y.patch, which is not there"),
        ("", "a-b.patch: is not in .*series"),
        ("a-b.patch\na-b.patch\n", "lists a-b.patch twice"),
        ("0001-A.patch\n", "'0001-A.patch': must be lower-case words"),
        ("../a-b.patch\n", "must be lower-case words"),
    ],
)
def test_disagreement_is_refused(tmp_path, series, message):
    (tmp_path / "a-b.patch").touch()
    (tmp_path / "series").write_text(series)
    with pytest.raises(ForkError, match=message):
        read_series(tmp_path)


def test_missing_series_is_refused(tmp_path):
    with pytest.raises(ForkError, match="series: no such file"):
        read_series(tmp_path)


def test_patch_of_the_version_file_is_refused(forked):
    path = forked.patches / "model-add-tail.patch"
    path.write_bytes(path.read_bytes().replace(b"sglang/srt/tail.py", b"sglang/_version.py"))
    with pytest.raises(ForkError, match="model-add-tail.patch: sglang/_version.py: is written by"):
        load_series(forked.patches, forked.pin)
