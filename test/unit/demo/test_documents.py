"""Documents: the same for everyone, disjoint between splits, each question with one answer."""

import hashlib
import json
import re
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from sglang_ic.demo import bundled_model
from sglang_ic.demo.documents import SPLITS, TASKS, facts, suite, training_document, words
from sglang_ic.demo.documents.bpe import VOCAB_SIZE, encoder, train
from sglang_ic.demo.documents.document import ASKED
from sglang_ic.demo.documents.document import test_document as make_document

ENCODE = encoder()
SEEDS = st.integers(0, 10**9).map(str)


def body(text: str) -> str:
    """Without the first line, which holds the split's name."""
    return text.partition("\n")[2]


def test_another_process_with_another_hash_seed_makes_the_same_documents():
    code = (
        "import json; from sglang_ic.demo.documents import suite;"
        "print(json.dumps(list(suite('calibration-2', length=900, count=2))))"
    )
    made = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", code],
                env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
                capture_output=True,
                check=True,
            ).stdout
        )
        for seed in ("1", "2")
    ]
    assert made[0] == made[1] == list(suite("calibration-2", length=900, count=2))


def test_the_held_out_documents_are_the_ones_that_were_reported_on():
    """A change here makes every reported number one about other documents."""
    text = "".join(record["text"] for record in suite("test", length=2048, count=3))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "13d8ba78b1bb72b5"


def test_splits_share_no_document():
    seen: dict[str, str] = {}
    for split in SPLITS[1:]:
        for record in suite(split, length=700, count=20):
            assert record["text"].startswith(f"Record {split}-")
            assert body(record["text"]) not in seen
            seen[body(record["text"])] = split
    for index in range(20):
        document = training_document(f"train-x-{index}", f"train-x-{index}", 700, ENCODE)
        assert body(document.text) not in seen


def test_a_suite_may_begin_anywhere():
    assert (
        list(suite("test", length=600, count=2, first=3))
        == list(suite("test", length=600, count=5))[3:]
    )


@given(SEEDS, st.sampled_from([600, 1000, 2048]))
def test_length_is_met_within_a_line(seed, length):
    document = make_document("test-1", seed, length, ENCODE)
    assert length - 60 <= len(document.input_ids) <= length


@given(SEEDS, st.booleans())
def test_tokens_and_answer_spans_agree_with_the_text(seed, training):
    make = training_document if training else make_document
    document = make("x-1", seed, 700, ENCODE)
    assert ENCODE(document.text) == document.input_ids
    for answer in document.answers:
        assert document.text[answer.start] == " "
        own = ENCODE(document.text[answer.start : answer.end])
        assert own == document.input_ids[answer.token_start : answer.token_end]
        before = ENCODE(document.text[: answer.start])
        assert len(before) == answer.token_start


@given(SEEDS)
def test_a_test_document_asks_every_task_after_its_body(seed):
    document = make_document("test-1", seed, 1500, ENCODE)
    assert Counter(answer.task for answer in document.answers) == ASKED
    assert set(ASKED) == set(TASKS)
    first = document.text.rindex("\n", 0, document.answers[0].start)
    asking = document.text[first + 1 :].splitlines()
    assert len(asking) == sum(ASKED.values())
    assert all(re.match(r"Question:|Look up|Sing of|print ", line) for line in asking)


@given(SEEDS)
def test_each_answer_follows_from_the_body(seed):
    """A reader of our own, by the statements' words alone, finds every answer."""
    document = make_document("test-1", seed, 2000, ENCODE)
    for answer in document.answers:
        line = document.text[document.text.rindex("\n", 0, answer.start) + 1 : answer.start]
        given_answer = document.text[answer.start : answer.end].split()
        assert solve(document.text[: answer.start], line) == given_answer, line


def solve(text: str, question: str) -> list[str]:
    if found := re.match(r"Question: what is the wish of the owner of the (.*)\? ", question):
        (name,) = re.findall(rf"^The owner of the {found[1]} is (\w+)\.$", text, re.M)
        return re.findall(rf"^The wish of {name} is (\w+)\.$", text, re.M)
    if found := re.match(r"Question: what is the (\w+) of the (.*)\? ", question):
        aliases = re.findall(rf"^People call the {found[2]} (\w+)\.$", text, re.M)
        key = aliases[0] if aliases else f"the {found[2]}"
        return re.findall(rf"^The {found[1]} of {key} is (\w+)\.$", text, re.M)
    if found := re.match(r"Question: what does the (.*) store\? ", question):
        return re.findall(rf"^The {found[1]} stores (\w+)\.$", text, re.M)
    if found := re.match(r"Look up - (.*):", question):
        return re.findall(rf"^- {found[1]}: (\w+)$", text, re.M)
    if found := re.match(r"Sing of the (.*):", question):
        (passage,) = re.findall(rf"^Song of the {found[1]}: (.*)\.$", text, re.M)
        return passage.split()
    name = re.match(r"print (\w+):", question)[1]
    while name not in words.VALUES:
        (name,) = re.findall(rf"^let {name} = (\w+);$", text, re.M)
    return [name]


def test_depths_cover_the_document():
    records = list(suite("test", length=1024, count=20))
    depths = [a["depth"] for r in records for a in r["answers"] if a["task"] == "multi_key"]
    counts = Counter(int(depth * 4) for depth in depths)
    assert counts == {quarter: 20 for quarter in range(4)}


def test_a_chat_document_is_what_the_chat_template_writes():
    tokenizer = AutoTokenizer.from_pretrained(bundled_model())
    chats = 0
    for index in range(80):
        text = training_document("train-c", f"chat-{index}", 300, ENCODE).text
        if not text.startswith("<|user|>"):
            continue
        chats += 1
        turns = re.findall(r"<\|(user|assistant)\|>(.*?)(?=<\||$)", text, re.S)
        messages = [{"role": role, "content": content} for role, content in turns]
        rendered = tokenizer.apply_chat_template(messages, tokenize=False)
        assert rendered == "<|bos|>" + text
    assert 3 <= chats <= 20


def test_facts_of_a_document_have_keys_of_their_own():
    draw = facts.Draw("x")
    lines = Counter()
    for _ in range(100):
        for maker in facts.MAKERS.values():
            if (fact := maker(draw)) is not None:
                lines.update({fact.question})
    assert max(lines.values()) == 1


def test_no_word_is_in_two_lists():
    lists = [words.ADJECTIVES, words.NOUNS, words.NAMES, words.VALUES, words.VARIABLES]
    together = [word for words_ in lists for word in words_]
    assert len(set(together)) == len(together)
    assert all(len(ENCODE(f" {word}")) == 1 for word in together)


def test_the_committed_tokenizer_is_the_one_that_training_it_gives():
    committed = json.loads((bundled_model() / "tokenizer.json").read_text())
    assert json.loads(train().to_str()) == committed
    assert len(committed["model"]["vocab"]) == VOCAB_SIZE


def test_unknown_split_and_short_length_are_refused():
    with pytest.raises(ValueError, match="split 'train': use one of calibration-1"):
        next(suite("train", length=2048, count=1))
    with pytest.raises(ValueError, match="length 100: a test document needs at least"):
        next(suite("test", length=100, count=1))
