"""What a document knows and asks: facts as lines of text, questions with marked answers.

Every kind of fact is a function `(draw) -> Fact`. Its lines are spread over the document; the
question comes after the last of them. Keys are drawn without replacement within a document
(`Draw`), so a question has one answer.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from sglang_ic.demo.documents import words

# Names of the retrieval tasks, after RULER's (arXiv 2404.06654).
TASKS = ("single_key", "multi_key", "multi_value", "two_hop", "variable_tracking", "copy")


@dataclass(frozen=True)
class Fact:
    """Lines in the order in which they must appear, and the question about them.

    Attributes:
        task: one of `TASKS`.
        lines: statements, without the line break.
        question: text up to and including the colon before the answer.
        answer: the words after it, with their leading space.
    """

    task: str
    lines: tuple[str, ...]
    question: str
    answer: str


class Draw:
    """Random choices of one document; keys never repeat within it."""

    def __init__(self, seed: str):
        self.rng = random.Random(seed)  # a str seed is hashed with SHA-512: the same everywhere
        self._entities: set[tuple[str, str]] = set()
        self._pools: dict[tuple[str, ...], list[str]] = {}

    def entity(self) -> str:
        """Two words of which each may occur in other keys; the pair is new."""
        while True:
            pair = self.rng.choice(words.ADJECTIVES), self.rng.choice(words.NOUNS)
            if pair not in self._entities:
                self._entities.add(pair)
                return " ".join(pair)

    def unused(self, pool: tuple[str, ...]) -> str | None:
        """A word that this document has not drawn from `pool`; None when all are used up."""
        if pool not in self._pools:
            self._pools[pool] = self.rng.sample(pool, len(pool))
        return self._pools[pool].pop() if self._pools[pool] else None

    def values(self, count: int) -> list[str]:
        return self.rng.sample(words.VALUES, count)


def single_key(draw: Draw) -> Fact | None:
    if (attribute := draw.unused(words.SINGLE_ATTRIBUTES)) is None:
        return None
    return _attribute_fact("single_key", attribute, draw)


def multi_key(draw: Draw) -> Fact:
    """One of many keys of the same kind, as a sentence or as an item of a list."""
    if draw.rng.random() < 0.5:
        return _attribute_fact("multi_key", draw.rng.choice(words.MANY_ATTRIBUTES), draw)
    entity, (value,) = draw.entity(), draw.values(1)
    return Fact("multi_key", (f"- {entity}: {value}",), f"Look up - {entity}:", f" {value}")


def _attribute_fact(task: str, attribute: str, draw: Draw) -> Fact:
    entity, (value,) = draw.entity(), draw.values(1)
    return Fact(
        task,
        (f"The {attribute} of the {entity} is {value}.",),
        f"Question: what is the {attribute} of the {entity}? Answer:",
        f" {value}",
    )


def multi_value(draw: Draw) -> Fact:
    """Several values of one key, told apart from each other, asked for in order."""
    entity, values = draw.entity(), draw.values(draw.rng.choice((2, 3)))
    return Fact(
        "multi_value",
        tuple(f"The {entity} stores {value}." for value in values),
        f"Question: what does the {entity} store? Answer:",
        "".join(f" {value}" for value in values),
    )


def two_hop(draw: Draw) -> Fact | None:
    """A key leads to a person, who leads to the value; or a name stands for the key."""
    if (name := draw.unused(words.NAMES)) is None:
        return None
    entity, (value,) = draw.entity(), draw.values(1)
    if draw.rng.random() < 0.5:
        lines = (f"The owner of the {entity} is {name}.", f"The wish of {name} is {value}.")
        return Fact(
            "two_hop",
            lines if draw.rng.random() < 0.5 else lines[::-1],
            f"Question: what is the wish of the owner of the {entity}? Answer:",
            f" {value}",
        )
    attribute = draw.rng.choice(words.MANY_ATTRIBUTES)
    return Fact(
        "two_hop",
        (f"People call the {entity} {name}.", f"The {attribute} of {name} is {value}."),
        f"Question: what is the {attribute} of the {entity}? Answer:",
        f" {value}",
    )


def variable_tracking(draw: Draw) -> Fact | None:
    """Assignments in code: a value, then names that take it over."""
    names = [draw.unused(words.VARIABLES) for _ in range(draw.rng.choice((1, 2, 3)))]
    if names[-1] is None:
        return None
    (value,) = draw.values(1)
    lines = [f"let {names[0]} = {value};"]
    lines += [f"let {b} = {a};" for a, b in zip(names, names[1:], strict=False)]
    return Fact("variable_tracking", tuple(lines), f"print {names[-1]}:", f" {value}")


def copy(draw: Draw) -> Fact:
    """A passage to repeat word by word."""
    entity, passage = draw.entity(), " ".join(draw.values(draw.rng.choice((4, 5, 6))))
    return Fact(
        "copy", (f"Song of the {entity}: {passage}.",), f"Sing of the {entity}:", f" {passage}"
    )


MAKERS: dict[str, Callable[[Draw], Fact | None]] = {
    "single_key": single_key,
    "multi_key": multi_key,
    "multi_value": multi_value,
    "two_hop": two_hop,
    "variable_tracking": variable_tracking,
    "copy": copy,
}
assert tuple(MAKERS) == TASKS


def filler(draw: Draw) -> str:
    """A line that no question is about, made of the words that keys are made of."""
    rng = draw.rng
    return (
        f"The {rng.choice(words.ADJECTIVES)} {rng.choice(words.NOUNS)} {rng.choice(words.VERBS)} "
        f"{rng.choice(words.PLACES)} the {rng.choice(words.ADJECTIVES)} "
        f"{rng.choice(words.NOUNS)} {rng.choice(words.TIMES)}."
    )
