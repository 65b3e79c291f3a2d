"""Put facts, distractors, filler and questions together to a document of a given number of tokens.

A document is a list of lines, each with a place between 0 (start) and 1 (end of the body).
Questions follow the last line that they are about; those of a test document come after the body,
those of a training document also inside it. A document knows where its answers are, in characters
and in tokens: the two agree because lines, and answers within them, start where a token starts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from sglang_ic.demo.documents import facts
from sglang_ic.demo.documents.facts import TASKS, Draw, Fact
from sglang_ic.demo.vocabulary import EOS, ROLES

Encode = Callable[[str], list[int]]
_, USER, ASSISTANT = ROLES

# How many questions of each task a test document asks. The other facts only distract.
ASKED = {
    "single_key": 2,
    "multi_key": 4,
    "multi_value": 2,
    "two_hop": 2,
    "variable_tracking": 2,
    "copy": 2,
}


@dataclass(frozen=True)
class Answer:
    """Where an answer is; `depth` is the place of the (last) line it is found in, 0 to 1."""

    task: str
    start: int  # character offset of its leading space
    end: int
    token_start: int
    token_end: int
    depth: float


@dataclass
class Document:
    """Text and tokens of one document; grows line by line."""

    id: str
    encode: Encode
    text: str = ""
    input_ids: list[int] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    def append(self, text: str) -> None:
        self.text += text
        self.input_ids += self.encode(text)

    def append_answer(self, task: str, text: str, depth: float) -> None:
        start, token_start = len(self.text), len(self.input_ids)
        self.append(text)
        self.answers.append(
            Answer(task, start, len(self.text), token_start, len(self.input_ids), depth)
        )


@dataclass(frozen=True)
class _Line:
    place: float
    text: str
    asks: Fact | None = None
    depth: float = 0.0

    def num_tokens(self, encode: Encode) -> int:
        """At most: a question costs the three marks of a chat turn, where it is one."""
        answer = len(encode(self.asks.answer)) + 3 if self.asks else 0
        return len(encode("\n" + self.text)) + answer


def _fact_lines(fact: Fact, draw: Draw, depth: float | None) -> list[_Line]:
    """Places in order; the last one is `depth`, if given."""
    last = draw.rng.random() if depth is None else depth
    places = sorted(draw.rng.random() * last for _ in fact.lines[1:]) + [last]
    return [_Line(place, text) for place, text in zip(places, fact.lines, strict=True)]


def _asking_facts(draw: Draw) -> list[tuple[Fact, float]]:
    """The facts of a test document with their depths: stratified, so that every depth is asked."""
    chosen = []
    for task, count in ASKED.items():
        for index in range(count):
            fact = facts.MAKERS[task](draw)
            assert fact is not None, "a fresh document cannot have used up a pool"
            chosen.append((fact, (index + draw.rng.random()) / count))
    draw.rng.shuffle(chosen)
    return chosen


def test_document(id: str, seed: str, length: int, encode: Encode) -> Document:
    """A document whose questions all come after its body.

    Args:
        id: written into its first line.
        seed: decides everything else.
        length: tokens to fill; the result is at most one line shorter.
        encode: text -> token ids, the same for a text and for its lines put together.

    Raises:
        ValueError: the questions alone do not fit into `length`.
    """
    draw = Draw(seed)
    lines = []
    for order, (fact, depth) in enumerate(_asking_facts(draw)):
        lines += _fact_lines(fact, draw, depth)
        lines.append(_Line(2 + order, fact.question, asks=fact, depth=depth))
    return _fill(id, draw, lines, length, encode, fact_share=0.5, ask_share=0.0)


def training_document(id: str, seed: str, length: int, encode: Encode) -> Document:
    """A document that asks most of its facts, some soon after they are told, some at its end.

    One in eight is a chat: the user shows the document and asks, the assistant answers.
    """
    draw = Draw(seed)
    fact_share = draw.rng.choice((0.4, 0.6, 0.8, 1.0)) if length <= 1024 else draw.rng.random()
    chat = draw.rng.random() < 1 / 8
    return _fill(id, draw, [], length, encode, fact_share=fact_share, ask_share=0.8, chat=chat)


def _fill(
    id: str,
    draw: Draw,
    lines: list[_Line],
    length: int,
    encode: Encode,
    *,
    fact_share: float,
    ask_share: float,
    chat: bool = False,
) -> Document:
    """Add facts and filler while they fit, then write everything in order of place."""
    document = Document(id, encode)
    document.append(USER * chat + f"Record {id}.")
    left = length - len(document.input_ids) - sum(line.num_tokens(encode) for line in lines)
    if left < 0:
        raise ValueError(f"length {length}: a test document needs at least {length - left} tokens")
    while True:
        more = [_Line(draw.rng.random(), facts.filler(draw))]
        fact = None
        if draw.rng.random() < fact_share:
            fact = facts.MAKERS[draw.rng.choice(TASKS)](draw)
        if fact is not None:
            more = _fact_lines(fact, draw, None)
            if draw.rng.random() < ask_share:
                depth = more[-1].place
                # Half of the questions come inside the body, in a chat none.
                inside = draw.rng.random() < 0.5 and not chat
                place = draw.rng.uniform(depth, 1) if inside else 1 + depth
                more.append(_Line(place, fact.question, asks=fact, depth=depth))
        left -= sum(line.num_tokens(encode) for line in more)
        if left < 0:
            break
        lines += more
    for line in sorted(lines, key=lambda line: line.place):
        turn = chat and bool(document.answers)
        document.append(
            (USER if turn else "\n") + line.text + ASSISTANT * (chat and line.place > 1)
        )
        if line.asks is not None:
            document.append_answer(line.asks.task, line.asks.answer, line.depth)
            document.append(EOS if chat else ".")
    return document
