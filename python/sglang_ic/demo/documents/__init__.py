"""Documents with facts and questions about them, made from a seed.

Models are trained, patterns are searched and evaluated on them.

No two splits share a document: its split is in the first line of each.
"""

from collections.abc import Iterator

from sglang_ic.demo.documents.document import Document, test_document, training_document
from sglang_ic.demo.documents.facts import TASKS

__all__ = ["SPLITS", "TASKS", "Document", "documents", "suite", "training_document"]

# A split's documents begin with its name. All but `train` ask their questions after the body.
SPLITS = ("train", "calibration-1", "calibration-2", "calibration-3", "validation", "test")


def documents(split: str, *, length: int, count: int, first: int = 0) -> Iterator[Document]:
    """Yield `count` documents of a split, always the same ones.

    Args:
        split: one of `SPLITS` without `train`.
        length: tokens of the bundled tokenizer; a document is at most one line shorter.
        count: how many.
        first: index of the first one.

    Raises:
        ValueError: an unknown split, or a length that cannot hold the questions.
    """
    from sglang_ic.demo.documents.bpe import encoder  # loads tokenizers

    if split not in SPLITS[1:]:
        raise ValueError(f"split {split!r}: use one of {', '.join(SPLITS[1:])}")
    encode = encoder()
    for index in range(first, first + count):
        name = f"{split}-{length}-{index}"
        yield test_document(name, name, length, encode)


def suite(split: str, *, length: int, count: int, first: int = 0) -> Iterator[dict]:
    """`documents` as JSON records.

    Yields:
        {"id", "length", "text", "answers": [{"task", "start", "end", "depth"}]}; `start` and `end`
        are character offsets into `text`, the leading space included.
    """
    for document in documents(split, length=length, count=count, first=first):
        yield {
            "id": document.id,
            "length": length,
            "text": document.text,
            "answers": [
                {"task": a.task, "start": a.start, "end": a.end, "depth": round(a.depth, 4)}
                for a in document.answers
            ],
        }
