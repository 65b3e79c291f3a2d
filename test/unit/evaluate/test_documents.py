"""Reading documents: what is accepted, and one line for what is not."""

import json

import pytest

from sglang_ic.evaluate.documents import Answer, DataError, read_file

GOOD = {"text": "the key is seven", "answers": [{"task": "a", "start": 10, "end": 16}]}


def write(tmp_path, *lines, name="data.jsonl"):
    path = tmp_path / name
    path.write_text("".join(line + "\n" for line in lines))
    return path


def test_jsonl_record_becomes_a_document(tmp_path):
    record = {
        "id": "test-1",
        "length": 4096,
        "text": "the key is seven",
        "answers": [{"task": "single_key", "start": 10, "end": 16, "depth": 0.25}],
        "author": "somebody",
    }
    (found,) = read_file(write(tmp_path, json.dumps(record)))
    assert (found.id, found.length, found.text) == ("test-1", 4096, "the key is seven")
    assert found.answers == (Answer("single_key", 10, 16, 0.25),)
    assert found.text[found.answers[0].start : found.answers[0].end] == " seven"


def test_plain_record_has_no_answers_and_is_named_by_its_line(tmp_path):
    found = read_file(write(tmp_path, '{"text": "one"}', "", '{"text": "two\\u2028lines"}'))
    assert [one.id for one in found] == ["data.jsonl line 1", "data.jsonl line 3"]
    assert [one.answers for one in found] == [(), ()]


def test_text_file_is_split_at_form_feeds(tmp_path):
    path = write(tmp_path, "one\ftwo\nlines\f", name="book.txt")
    assert [one.text for one in read_file(path)] == ["one", "two\nlines"]
    path = write(tmp_path, "only one", name="short.txt")
    assert [one.id for one in read_file(path)] == ["short.txt:1"]


REFUSED = {
    "not JSON": ('{"text": "cut', "is not JSON"),
    "a list": ("[1]", "JSON list"),
    "no text": ("{}", "text None"),
    "empty text": ('{"text": ""}', "text ''"),
    "length of 0": ('{"text": "x", "length": 0}', "length 0"),
    "answers that are no list": ('{"text": "x", "answers": {"a": 1}}', "answers {'a': 1}"),
    "an answer that is no object": ('{"text": "x", "answers": [3]}', "answer 1 is 3"),
    "no task": ('{"text": "xy", "answers": [{"start": 0, "end": 1}]}', "task None"),
    "end past the text": (
        '{"text": "xy", "answers": [{"task": "a", "start": 1, "end": 3}]}',
        "0 <= start < end <= 2",
    ),
    "an empty span": ('{"text": "xy", "answers": [{"task": "a", "start": 1, "end": 1}]}', "1 to 1"),
    "a negative start": (
        '{"text": "xy", "answers": [{"task": "a", "start": -1, "end": 1}]}',
        "spans -1 to 1",
    ),
    "true as an offset": (
        '{"text": "xy", "answers": [{"task": "a", "start": false, "end": true}]}',
        "spans False",
    ),
    "depth of 2": (
        '{"text": "xy", "answers": [{"task": "a", "start": 0, "end": 1, "depth": 2}]}',
        "depth 2",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_malformed_line_is_refused_by_its_number(tmp_path, name):
    line, words = REFUSED[name]
    with pytest.raises(DataError) as refused:
        read_file(write(tmp_path, json.dumps(GOOD), line))
    assert str(refused.value).startswith("data.jsonl line 2")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["data.jsonl", "data.txt"])
def test_file_without_a_document_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="holds no document"):
        read_file(write(tmp_path, "  ", name=name))


def test_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read .No such file"):
        read_file(tmp_path / "missing.jsonl")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match="utf-8"):
        read_file(tmp_path / "latin.txt")
