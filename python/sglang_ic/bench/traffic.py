"""Prompts of a point, made by upstream: `sglang.benchmark.datasets.generated_shared_prefix`.

Its `sample_generated_shared_prefix_requests` makes all of our traffic: a cold prompt is a group of
one without a prefix, a session is a row of several turns. Rows are made once for each round and
used in every arm. Upstream caches some prompts on disk under a key that does not name the model;
`range_ratio` below 1 (checked when a scenario is read) keeps it from doing so.
"""

from __future__ import annotations

import math
import random
from functools import cache
from typing import Any

import numpy as np

from sglang_ic.bench import upstream
from sglang_ic.bench.scenario import Point, Traffic

# A vocabulary of at most so many ids can have them named in each request.
SMALL_VOCABULARY = 4096
MIN_WORDS = 100  # so that no two prompts begin alike by chance
BANNED = -100.0  # a logit bias that no logit overcomes


class TextTokens:
    """A tokenizer whose vocabulary, as upstream's generator sees it, is plain text only.

    Random ids of a whole vocabulary hold image pads and parts of letters, and their text encodes
    to another number of tokens. Words (or single characters, if the vocabulary has no words) keep
    the lengths that a scenario asks for.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        ids = sorted(set(tokenizer.get_vocab().values()))
        self.texts: dict[int, str] = dict(
            zip(
                ids,
                tokenizer.batch_decode([[one] for one in ids], skip_special_tokens=True),
                strict=True,
            )
        )
        plain = {i: text for i, text in self.texts.items() if text.isascii() and text.isprintable()}
        words = {i: text for i, text in plain.items() if text[:1] == " " and text[1:].isalpha()}
        self._vocabulary = {
            text: i for i, text in (words if len(words) >= MIN_WORDS else plain).items() if text
        }

    def get_vocab(self) -> dict[str, int]:
        return self._vocabulary

    def encode(self, text: str, **kwargs: Any) -> list[int]:
        return self._tokenizer.encode(text, **kwargs)

    def decode(self, ids: list[int], **kwargs: Any) -> str:
        return self._tokenizer.decode(ids, **kwargs)

    @property
    def invisible(self) -> list[int]:
        """Ids that show no text alone: special tokens and parts of a character."""
        return [i for i, text in self.texts.items() if not text or "\ufffd" in text]


@cache
def text_tokens(path: str) -> TextTokens:
    """The tokenizer at `path`, loaded by upstream's `get_tokenizer`."""
    return TextTokens(upstream.serving().get_tokenizer(path))


def make_rows(point: Point, tokens: TextTokens, seed: int, count: int | None = None) -> list[Any]:
    """Upstream's `DatasetRow` of every request of a block, in the order in which they are sent.

    A row's `timestamp`, which upstream hands on and does not send, is its position.

    Args:
        seed: decides lengths, texts and order.
        count: requests, instead of the point's.
    """
    shares = apportion(count or point.requests, [traffic.weight for traffic in point.traffic])
    rows = [
        row
        for part, (traffic, share) in enumerate(zip(point.traffic, shares, strict=True))
        for row in _rows(traffic, tokens, seed + 7919 * part, share, point.is_chat)
    ]
    random.Random(seed).shuffle(rows)
    for index, row in enumerate(rows):
        row.timestamp = index
        row.extra_request_body = _extra_body(tokens, row.output_len, point.is_chat)
    return rows


def apportion(total: int, weights: list[float]) -> list[int]:
    """Split `total` in proportion to `weights`; the largest remainders get what is left."""
    exact = [total * weight / sum(weights) for weight in weights]
    shares = [math.floor(value) for value in exact]
    by_remainder = sorted(range(len(weights)), key=lambda i: shares[i] - exact[i])
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares


def _rows(traffic: Traffic, tokens: TextTokens, seed: int, count: int, is_chat: bool) -> list[Any]:
    if count == 0:
        return []
    random.seed(seed)
    np.random.seed(seed % 2**32)
    upstream.serving()  # makes its datasets importable
    from sglang.benchmark.datasets import generated_shared_prefix as dataset

    with upstream.quiet():
        rows = dataset.sample_generated_shared_prefix_requests(
            num_groups=math.ceil(count / traffic.requests_per_prefix),
            prompts_per_group=traffic.requests_per_prefix,
            system_prompt_len=traffic.prefix_tokens,
            question_len=traffic.prompt_tokens,
            output_len=traffic.output_tokens,
            range_ratio=traffic.range_ratio,
            tokenizer=tokens,
            seed=seed,
            num_turns=traffic.turns,
            ordered=True,
            input_ids=not is_chat,
        )
    return rows[:count]


def _extra_body(tokens: TextTokens, output_len: int, is_chat: bool) -> dict[str, Any]:
    """What goes into a request beside upstream's own fields: greedy, and only visible tokens.

    Upstream's client sees a token when its text grows. A byte-level model answers with parts of
    characters too, and its first visible text may come many steps late. Where the vocabulary is
    small enough to name them, those tokens are ruled out, in every arm alike.
    """
    if len(tokens.texts) > SMALL_VOCABULARY:
        return {}
    bias = {"logit_bias": {str(i): BANNED for i in tokens.invisible}}
    if is_chat:
        return bias
    sampling = {"temperature": 0.0, "max_new_tokens": output_len, "ignore_eos": True, **bias}
    return {"sampling_params": sampling}
