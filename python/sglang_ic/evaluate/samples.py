"""Documents as token ids, cut and checked for an engine.

A document with answers is one sample, whole. Text without answers is cut into windows of each
context length. Data must be several times longer than `index_topk`, because every query that sees
at most `index_topk` tokens selects all of them whatever the pattern, and one that sees a few more
nearly so.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from sglang_ic.evaluate.documents import DataError, Document

# Below 8 x index_topk an average query still selects more than half of what it sees ...
MIN_TOPK_MULTIPLE = 8
# ... and text gets windows of this multiple when nobody names a length.
DEFAULT_TOPK_MULTIPLE = 16

# text -> (token ids, [start, end) characters of each token)
Encode = Callable[[str], tuple[Sequence[int], Sequence[tuple[int, int]]]]


@dataclass(frozen=True)
class Span:
    """An answer's tokens [begin, end) in its sample."""

    task: str
    begin: int
    end: int


@dataclass(frozen=True)
class Sample:
    """What is sent to an engine as one prompt."""

    id: str
    cluster: str  # the document that it is from: samples of one document are not independent
    length: int  # the length it is reported under, in tokens; near len(input_ids)
    input_ids: tuple[int, ...]
    answers: tuple[Span, ...] = ()

    @property
    def num_predictions(self) -> int:
        """Tokens that have tokens before them."""
        return len(self.input_ids) - 1


def too_short(length: int, index_topk: int, what: str) -> str | None:
    """Why data of `length` tokens is refused, in one line; None when it is long enough."""
    needed = MIN_TOPK_MULTIPLE * index_topk
    if length >= needed:
        return None
    return (
        f"{what} has {length} tokens, below {MIN_TOPK_MULTIPLE} x index_topk ({index_topk}) = "
        f"{needed}: within index_topk every pattern selects the same tokens, and not far above it "
        f"patterns look alike; use data of {needed} tokens or more"
    )


def from_answers(document: Document, encode: Encode) -> Sample:
    """A document with its answers, whole.

    Raises:
        DataError: an answer covers no token, or the very first one, which nothing predicts.
    """
    ids, offsets = encode(document.text)
    spans = []
    for number, answer in enumerate(document.answers, start=1):
        # A token that lies in the answer only in part must be right as well.
        inside = [
            position
            for position, (start, end) in enumerate(offsets)
            if start < answer.end and end > answer.start
        ]
        where = f"document {document.id!r}, answer {number}"
        if not inside:
            raise DataError(f"{where} covers no token: correct its start and end")
        if inside[0] == 0:
            raise DataError(f"{where} starts at the first token, which nothing predicts: move it")
        spans.append(Span(answer.task, inside[0], inside[-1] + 1))
    return Sample(document.id, document.id, document.length or len(ids), tuple(ids), tuple(spans))


def windows(documents: Iterable[Document], length: int, encode: Encode) -> Iterator[Sample]:
    """Windows of exactly `length` tokens that do not overlap, the first of every document first.

    The windows of a file's only document count as documents of their own.
    """
    encoded = [(document, encode(document.text)[0]) for document in documents]
    for number in itertools.count():
        begin, found = number * length, False
        for document, ids in encoded:
            if begin + length <= len(ids):
                found = True
                part = tuple(ids[begin : begin + length])
                name = f"{document.id}@{begin}"
                yield Sample(name, document.id if len(encoded) > 1 else name, length, part)
        if not found:
            return


def check_fits(samples: Iterable[Sample], context_length: int | None) -> None:
    """Refuse a sample that the model has no room for; None: unknown.

    Raises:
        DataError: it has more tokens than the model's context.
    """
    for sample in samples:
        if context_length is not None and len(sample.input_ids) >= context_length:
            raise DataError(
                f"document {sample.id!r} has {len(sample.input_ids)} tokens, the model's context "
                f"is {context_length}: use shorter data"
            )
