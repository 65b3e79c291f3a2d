"""Documents as tokens: spans, windows, and what is too short or too long."""

import json

import pytest

from sglang_ic.evaluate.documents import Answer, DataError, Document
from sglang_ic.evaluate.samples import Span, check_fits, from_answers, too_short, windows
from sglang_ic.evaluate.suites import DataRequest, gather


def encode(text):
    """A token per word, the space before it included."""
    ids, offsets, start = [], [], 0
    while start < len(text):
        end = text.find(" ", start + 1)
        end = len(text) if end < 0 else end
        ids.append(len(text[start:end]))
        offsets.append((start, end))
        start = end
    return ids, offsets


def words(count):
    return " ".join("w" * (1 + i % 7) for i in range(count))


def test_answer_maps_to_the_tokens_that_it_touches():
    text = "the key is seven eight nine"
    document = Document("d", text, (Answer("a", 10, 16), Answer("b", 16, 27)), length=4)
    sample = from_answers(document, encode)
    assert sample.input_ids == (3, 4, 3, 6, 6, 5)
    assert sample.answers == (Span("a", 3, 4), Span("b", 4, 6))
    assert (sample.length, sample.num_predictions) == (4, 5)
    # Only part of "seven": the token counts as a whole.
    assert from_answers(Document("d", text, (Answer("a", 12, 14),)), encode).answers[0].begin == 3


def test_answer_at_the_first_token_is_refused():
    with pytest.raises(DataError, match="answer 1 starts at the first token"):
        from_answers(Document("d", "seven is", (Answer("a", 0, 5),)), encode)


def test_answer_without_a_token_is_refused():
    with pytest.raises(DataError, match="covers no token"):
        from_answers(Document("d", "seven is", (Answer("a", 2, 3),)), lambda text: ([1], [(5, 8)]))


def test_windows_take_turns_over_documents_and_drop_the_rest():
    documents = [Document("a", words(9)), Document("b", words(5)), Document("c", words(3))]
    found = list(windows(documents, 4, encode))
    assert [one.id for one in found] == ["a@0", "b@0", "a@4"]
    assert [one.cluster for one in found] == ["a", "b", "a"]
    assert all(len(one.input_ids) == 4 for one in found)
    ids = encode(documents[0].text)[0]
    assert list(found[2].input_ids) == ids[4:8]


def test_windows_of_a_single_document_count_one_by_one():
    found = list(windows([Document("a", words(9))], 4, encode))
    assert [one.cluster for one in found] == ["a@0", "a@4"]


def test_data_below_8_index_topk_is_refused_with_the_reason():
    assert too_short(256, 32, "x") is None
    message = too_short(255, 32, "document 'd'")
    assert "document 'd' has 255 tokens, below 8 x index_topk (32) = 256" in message
    assert "every pattern selects the same tokens" in message


def gathered(tmp_path, text, name="d.txt", lengths=None, documents=None):
    path = tmp_path / name
    path.write_text(text)
    return gather(DataRequest(str(path), lengths, documents), 4, 1000, encode)


def test_text_gets_windows_of_16_index_topk(tmp_path):
    found = gathered(tmp_path, words(200))
    assert [len(one.input_ids) for one in found] == [64, 64, 64]
    assert len(gathered(tmp_path, words(200), documents=2)) == 2
    lengths = [one.length for one in gathered(tmp_path, words(200), lengths=(32, 80), documents=2)]
    assert lengths == [32, 80, 32, 80]


def test_short_data_is_refused_before_and_after_tokenizing(tmp_path):
    with pytest.raises(DataError, match="context length 31 has 31 tokens, below 8"):
        gathered(tmp_path, words(200), lengths=(31,))
    with pytest.raises(DataError, match="nothing of 64 tokens"):
        gathered(tmp_path, words(20))
    record = {"text": words(31), "length": 64, "answers": [{"task": "a", "start": 9, "end": 10}]}
    with pytest.raises(DataError, match="document 'd.jsonl line 1' has 31 tokens"):
        gathered(tmp_path, json.dumps(record), name="d.jsonl")


def test_documents_with_answers_are_whole_and_chosen_by_length(tmp_path):
    lines = [
        json.dumps({"text": words(40 + i), "length": 40 * (1 + i % 2), "answers": [answer]})
        for i in range(6)
        for answer in [{"task": "a", "start": 9, "end": 10}]
    ]
    found = gathered(tmp_path, "\n".join(lines), name="d.jsonl")
    assert [one.length for one in found] == [40, 80, 40, 80, 40, 80]
    assert [len(one.input_ids) for one in found] == [40, 41, 42, 43, 44, 45]
    found = gathered(tmp_path, "\n".join(lines), name="d.jsonl", lengths=(80,), documents=2)
    assert [len(one.input_ids) for one in found] == [41, 43]


def test_data_longer_than_the_model_takes_is_refused():
    (sample,) = windows([Document("a", words(40))], 40, encode)
    check_fits([sample], 41)
    check_fits([sample], None)
    with pytest.raises(DataError, match="has 40 tokens, the model's context is 40"):
        check_fits([sample], 40)


def test_built_in_suite_is_asked_for_every_length(monkeypatch):
    import types

    asked = []

    def suite(split, *, length, count):
        asked.append((split, length, count))
        for index in range(count):
            text = words(length - 1)  # at most a line shorter than its length
            answers = [{"task": "a", "start": len(text) - 1, "end": len(text), "depth": 0.5}]
            yield {"id": f"{split}-{index}", "length": length, "text": text, "answers": answers}

    fake = types.SimpleNamespace(suite=suite)
    monkeypatch.setitem(__import__("sys").modules, "sglang_ic.demo.documents", fake)
    found = gather(DataRequest("test", (32, 64), 2), 4, 1000, encode)
    assert asked == [("test", 32, 2), ("test", 64, 2)]
    assert [one.length for one in found] == [32, 64, 32, 64]
    with pytest.raises(DataError, match="context length 2048"):
        gather(DataRequest("test", None, 2), 1024, 10000, encode)
