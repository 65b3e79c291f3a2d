"""The table in patches/README.md is the headers, nothing else."""

import pytest

from sglang_ic.fork import ForkError
from sglang_ic.fork.ledger import refreshed_ledger
from sglang_ic.fork.series import default_patches, load_series
from sglang_ic.fork.upstream import load_pin


def test_repository_ledger_equals_the_patch_headers():
    patches = default_patches()
    series = load_series(patches, load_pin(patches))
    readme = patches / "README.md"
    assert refreshed_ledger(readme, series) == readme.read_bytes(), (
        "patches/README.md is stale: run `python -m sglang_ic.fork refresh`"
    )


def test_row_per_patch_in_series_order(forked):
    readme = (forked.patches / "README.md").read_text()
    rows = [line for line in readme.splitlines() if line.startswith("| ")][2:]
    assert [row.split(" | ")[1] for row in rows] == [
        "[model-change-lines.patch](model-change-lines.patch)",
        "[model-add-tail.patch](model-add-tail.patch)",
    ]
    assert "| a test. | never | no | no | `test/fork/test_model.py::test_guard` |" in rows[0]


def test_bar_in_a_header_does_not_break_the_table(forked):
    path = forked.patches / "model-add-tail.patch"
    path.write_bytes(path.read_bytes().replace(b"Why: a test.", b"Why: a | b."))
    text = refreshed_ledger(forked.patches / "README.md", load_series(forked.patches, forked.pin))
    assert rb"| a \| b. |" in text


def test_text_around_the_table_is_kept(forked):
    readme = forked.patches / "README.md"
    readme.write_text("before\n" + readme.read_text() + "after\n")
    text = refreshed_ledger(readme, load_series(forked.patches, forked.pin))
    assert text == readme.read_bytes()


def test_missing_marker_is_refused(forked):
    readme = forked.patches / "README.md"
    readme.write_text("no table\n")
    with pytest.raises(ForkError, match="README.md: lacks the ledger markers"):
        refreshed_ledger(readme, [])
