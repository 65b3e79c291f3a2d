"""From `--data` to samples: a built-in suite, a text file, or JSONL."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sglang_ic.evaluate.documents import DataError, Document, document, read_file
from sglang_ic.evaluate.samples import (
    DEFAULT_TOPK_MULTIPLE,
    Encode,
    Sample,
    check_fits,
    from_answers,
    too_short,
    windows,
)

SUITES = ("validation", "test", "calibration-1", "calibration-2", "calibration-3")
SUITE_LENGTHS = (2048, 4096, 8192)
DEFAULT_DOCUMENTS = 16  # of each length


@dataclass(frozen=True)
class DataRequest:
    """What the user asked for; None is a default that depends on the data."""

    data: str
    lengths: tuple[int, ...] | None  # tokens
    num_documents: int | None  # of each length

    def check_lengths(self, index_topk: int) -> None:
        """Refuse lengths that can show nothing, before anything is loaded.

        Raises:
            DataError: a length is too short for this `index_topk`.
        """
        given = self.lengths or (SUITE_LENGTHS if self.data in SUITES else ())
        for length in given:
            _refuse(too_short(length, index_topk, f"context length {length}"))


def gather(
    asked: DataRequest, index_topk: int, context_length: int | None, encode: Encode
) -> list[Sample]:
    """Samples, lengths in turn, so that a run that is stopped has measured all of them.

    Raises:
        DataError: the data cannot be read, is too short or too long, or fits no length.
    """
    asked.check_lengths(index_topk)
    if asked.data in SUITES:
        lengths = asked.lengths or SUITE_LENGTHS
        count = asked.num_documents or DEFAULT_DOCUMENTS
        groups = [
            [from_answers(one, encode) for one in _suite(asked.data, length, count)]
            for length in lengths
        ]
    else:
        groups = _from_file(asked, index_topk, encode)
    check_fits((sample for group in groups for sample in group), context_length)
    longest = max(len(group) for group in groups)
    return [group[i] for i in range(longest) for group in groups if i < len(group)]


def _suite(split: str, length: int, count: int) -> Iterator[Document]:
    from sglang_ic.demo.documents import suite  # loads the tokenizer it measures lengths with

    for record in suite(split, length=length, count=count):
        yield document(record, f"suite {split}")


def _from_file(asked: DataRequest, index_topk: int, encode: Encode) -> list[list[Sample]]:
    documents = read_file(asked.data)
    groups: dict[int, list[Sample]] = {}
    for one in documents:
        if not one.answers:
            continue
        sample = from_answers(one, encode)
        if asked.lengths is None or sample.length in asked.lengths:
            _refuse(too_short(len(sample.input_ids), index_topk, f"document {one.id!r}"))
            group = groups.setdefault(sample.length, [])
            if asked.num_documents is None or len(group) < asked.num_documents:
                group.append(sample)
    plain = [one for one in documents if not one.answers]
    for length in asked.lengths or (DEFAULT_TOPK_MULTIPLE * index_topk,):
        groups.setdefault(length, []).extend(
            _first(windows(plain, length, encode), asked.num_documents or DEFAULT_DOCUMENTS)
        )
    found = [group for _, group in sorted(groups.items()) if group]
    if not found:
        wanted = asked.lengths or (DEFAULT_TOPK_MULTIPLE * index_topk,)
        raise DataError(
            f"--data {asked.data!r} holds nothing of {' or '.join(map(str, wanted))} tokens: "
            "give longer data, or other --context-lengths "
            f"(at least 8 x index_topk, {8 * index_topk})"
        )
    return found


def _first(samples: Iterator[Sample], count: int) -> list[Sample]:
    return [sample for sample, _ in zip(samples, range(count), strict=False)]


def _refuse(reason: str | None) -> None:
    if reason is not None:
        raise DataError(reason)


def tokenizer_encoder(folder: str) -> Encode:
    """The model's own tokenizer, as SGLang would apply it to a text prompt.

    Raises:
        DataError: there is none, or it cannot tell where a token lies in the text.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise DataError(
            f"no tokenizer can be loaded from {folder!r} ({str(error).splitlines()[0]}): "
            "give --model-path a folder or hub id that has one"
        ) from error
    if not tokenizer.is_fast:
        raise DataError(f"the tokenizer in {folder!r} has no tokenizer.json: convert it first")
    # A document is longer than a chat; nothing is truncated, so the length warning is noise.
    tokenizer.model_max_length = 1 << 62

    def encode(text: str) -> tuple[Sequence[int], Sequence[tuple[int, int]]]:
        found = tokenizer(text, return_offsets_mapping=True)
        return found["input_ids"], found["offset_mapping"]

    return encode
