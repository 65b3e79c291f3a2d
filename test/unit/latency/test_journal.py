"""The journal: what was written is read back, also after a kill in the middle of a line."""

import pytest

from sglang_ic.latency.journal import Journal, JournalError, read


def value(row: str, **more) -> dict:
    return {"part": "p", "row": row, "arm": "a", "round": 0, **more}


def test_lines_survive_the_process(tmp_path):
    path = tmp_path / "folder" / "x.jsonl"
    journal = Journal(path)
    journal.add("run", run="r")
    journal.add("value", **value("one", value=1.5))
    journal.add("skipped", **value("two"))
    again = Journal(path)
    assert again.lines == journal.lines
    assert again.done("p") == {("one", "a", 0), ("two", "a", 0)}
    assert again.done("other part") == set()


def test_a_line_is_the_same_before_and_after_it_was_read(tmp_path):
    """Tokens of this command are compared with those of an earlier one."""
    path = tmp_path / "x.jsonl"
    journal = Journal(path)
    journal.add("value", **value("one", last_ids=(7, 8)))
    assert journal.lines == read(path) and journal.lines[0]["last_ids"] == [7, 8]


def test_a_half_written_line_is_cut_off_and_measured_again(tmp_path):
    path = tmp_path / "x.jsonl"
    Journal(path).add("value", **value("one"))
    with path.open("a") as file:
        file.write('{"event": "value", "part": "p", "row": "tw')
    journal = Journal(path)
    assert journal.done("p") == {("one", "a", 0)}
    journal.add("value", **value("two"))
    assert len(read(path)) == 2


def test_a_broken_line_inside_is_no_journal(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"event": "run"}\nnonsense\n{"event": "run"}\n')
    with pytest.raises(JournalError, match="line 2 is not JSON"):
        read(path)
