"""Documents with their true answers in place, read from JSONL or plain text.

One JSON object a line:

    {"id": "test-17", "length": 4096, "text": "...",
     "answers": [{"task": "single_key", "start": 15320, "end": 15326, "depth": 0.31}]}

`start` and `end` are character offsets of an answer inside `text`, the space before it included.
Only `text` is required; a text file has one document, or several separated by form feeds. Data
without answers gives language-loss measures and no accuracy.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang_ic.pattern_text import show

SEPARATOR = "\f"


class DataError(ValueError):
    """Data that we refuse; the message is one line."""


@dataclass(frozen=True)
class Answer:
    """One answer inside a document's text: characters [start, end)."""

    task: str
    start: int
    end: int
    depth: float | None = None  # where the needed facts lie: 0 first token, 1 last; None unknown


@dataclass(frozen=True)
class Document:
    """A stream of text with the true answers in place."""

    id: str
    text: str
    answers: tuple[Answer, ...] = ()
    length: int | None = None  # nominal tokens; None when nobody said


def read_file(path: Path | str) -> list[Document]:
    """Documents of a `.jsonl` file, or of a text file.

    Raises:
        DataError: the file cannot be read, holds no document, or a line is not what it must be.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"--data {show(str(path))} cannot be read ({reason}): name a text file, a .jsonl file, "
            "or a built-in suite"
        ) from error
    read = _read_jsonl if path.suffix == ".jsonl" else _read_text
    documents = read(path.name, text)
    if not documents:
        raise DataError(f"--data {show(str(path))} holds no document: give a file with text in it")
    return documents


def _read_text(name: str, text: str) -> list[Document]:
    parts = [part for part in text.split(SEPARATOR) if part.strip()]
    return [Document(f"{name}:{number}", part) for number, part in enumerate(parts, start=1)]


def _read_jsonl(name: str, text: str) -> list[Document]:
    documents = []
    # Not splitlines(): it also splits at characters that JSON allows inside a string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{name} line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{where} is not JSON ({str(error).splitlines()[0]}): write one JSON object a line"
            ) from error
        documents.append(document(record, where))
    return documents


def document(record: Any, where: str) -> Document:
    """Check one record and make it a document.

    Args:
        record: a decoded JSON value.
        where: how messages call it, such as `data.jsonl line 3`.
    Raises:
        DataError: anything that is not as the module's docstring says.
    """
    if not isinstance(record, Mapping):
        raise DataError(f"{where} is a JSON {type(record).__name__}: write an object with a text")
    text = record.get("text")
    if not isinstance(text, str) or not text:
        raise DataError(f"{where} has text {show(text)}: write a text that is not empty")
    length = record.get("length")
    if length is not None and (not _is_int(length) or length < 1):
        raise DataError(f"{where} has length {show(length)}: write an integer of 1 or more")
    answers = record.get("answers") or []
    if not isinstance(answers, list):
        raise DataError(f"{where} has answers {show(answers)}: write a list of objects")
    return Document(
        id=str(record.get("id", where)),
        text=text,
        answers=tuple(
            _answer(answer, f"{where}, answer {number}", len(text))
            for number, answer in enumerate(answers, start=1)
        ),
        length=length,
    )


def _answer(record: Any, where: str, num_characters: int) -> Answer:
    if not isinstance(record, Mapping):
        raise DataError(f"{where} is {show(record)}: write an object with task, start and end")
    task = record.get("task")
    if not isinstance(task, str) or not task:
        raise DataError(f"{where} has task {show(task)}: write the name of its task")
    start, end = record.get("start"), record.get("end")
    if not (_is_int(start) and _is_int(end) and 0 <= start < end <= num_characters):
        raise DataError(
            f"{where} spans {show(start)} to {show(end)}: write character offsets with "
            f"0 <= start < end <= {num_characters}, the length of its text"
        )
    depth = record.get("depth")
    is_number = isinstance(depth, int | float) and not isinstance(depth, bool)
    if depth is not None and not (is_number and 0 <= depth <= 1):
        raise DataError(f"{where} has depth {show(depth)}: write a number from 0 to 1, or null")
    return Answer(task, start, end, depth)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
