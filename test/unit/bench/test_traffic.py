"""How requests are shared out and which tokens they may hold. No SGLang needed."""

import pytest

from sglang_ic.bench.traffic import TextTokens, apportion
from sglang_ic.demo.tokenizer import build_tokenizer


class Wrapped:
    """The few calls of a transformers tokenizer that are used, over the bundled one."""

    def __init__(self):
        self.inner = build_tokenizer()

    def get_vocab(self):
        return self.inner.get_vocab()

    def batch_decode(self, rows, skip_special_tokens):
        return [self.inner.decode(row, skip_special_tokens=skip_special_tokens) for row in rows]

    def encode(self, text):
        return self.inner.encode(text).ids

    def decode(self, ids):
        return self.inner.decode(ids)


@pytest.mark.parametrize(
    ("total", "weights", "shares"),
    [(4, [1.0], [4]), (24, [3.0, 1.0], [18, 6]), (5, [1.0, 1.0], [3, 2]), (1, [1.0, 9.0], [0, 1])],
)
def test_apportion(total, weights, shares):
    assert apportion(total, weights) == shares


def test_text_of_the_vocabulary_keeps_its_length():
    tokens = TextTokens(Wrapped())
    ids = sorted(tokens.get_vocab().values())
    assert len(ids) == 95  # printable ASCII
    assert len(tokens.encode(tokens.decode(ids))) == len(ids)


def test_tokens_that_show_no_text_alone_are_found():
    tokens = TextTokens(Wrapped())
    assert set(tokens.invisible) == set(range(128, 320))  # parts of characters, and specials
