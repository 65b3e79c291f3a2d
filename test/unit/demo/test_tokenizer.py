"""One token per byte, and every text comes back."""

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from sglang_ic.demo import vocabulary
from sglang_ic.demo.tokenizer import build_tokenizer, byte_symbols, write_tokenizer

TOKENIZER = build_tokenizer()


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, max_length=4096)
    return AutoTokenizer.from_pretrained(folder)


@given(st.text(st.characters(codec="utf-8")))
def test_text_round_trips(text):
    ids = TOKENIZER.encode(text).ids
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="<")))
def test_ids_of_plain_text_are_its_bytes(text):
    assert TOKENIZER.encode(text).ids == list(text.encode())


def test_every_byte_round_trips_as_an_id():
    symbols = byte_symbols()
    assert len(set(symbols)) == 256
    assert [TOKENIZER.id_to_token(byte) for byte in range(256)] == symbols
    assert TOKENIZER.decode(list(range(128))) == bytes(range(128)).decode()


def test_every_id_has_a_name():
    assert TOKENIZER.get_vocab_size() == vocabulary.VOCAB_SIZE
    assert all(TOKENIZER.id_to_token(i) for i in range(vocabulary.VOCAB_SIZE))
    assert vocabulary.VOCAB_SIZE % 64 == 0


@pytest.mark.parametrize(
    "text", ["", " ", "  a\n\n b ", "\x00\x7f", "naïve 日本 🙂", "<|user|>hi<|"]
)
def test_transformers_loads_the_same_tokenizer(loaded, text):
    assert loaded.encode(text) == TOKENIZER.encode(text).ids
    assert loaded.decode(loaded.encode(text)) == text


def test_transformers_knows_the_specials(loaded):
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id) == (256, 257, 258)
    assert len(loaded) == vocabulary.VOCAB_SIZE


def test_chat_template_marks_roles(loaded):
    chat = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": "yo"},
        {"role": "user", "content": "bye"},
    ]
    text = loaded.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|bos|><|system|>be brief<|user|>hi<|assistant|>yo<|eos|><|user|>bye<|assistant|>"
    )
    ids = loaded.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert loaded.decode(ids) == text and ids[0] == 256 and ids.count(257) == 1


def test_chat_template_refuses_other_roles(loaded):
    with pytest.raises(jinja2.TemplateError, match="'tool'.*system, user or assistant"):
        loaded.apply_chat_template([{"role": "tool", "content": ""}], tokenize=False)
