"""Dockerfiles as data: stages of instructions, for tests that need no container engine.

Covers what our files use: comments, continued lines, ARG with defaults, flags such as `--from=`,
JSON arrays, and `${NAME}`. Heredocs, `ONBUILD` and parser directives are refused.
"""

import json
import re
import shlex
from dataclasses import dataclass, field

KEYWORDS = frozenset(
    "ARG FROM COPY RUN ENV LABEL USER WORKDIR VOLUME EXPOSE STOPSIGNAL HEALTHCHECK".split()
) | {"ENTRYPOINT"}
VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class Instruction:
    """One instruction; `value` is what follows its flags, on one line."""

    keyword: str
    flags: dict[str, str]
    value: str
    line: int

    @property
    def words(self) -> list[str]:
        return shlex.split(self.value)

    @property
    def pairs(self) -> dict[str, str]:
        """NAME=VALUE words (ENV, LABEL, ARG); None-like absence of a value is an empty string."""
        return {name: value for name, _, value in (word.partition("=") for word in self.words)}

    @property
    def array(self) -> list[str] | None:
        """The JSON array of an exec form, also behind HEALTHCHECK's CMD; None for a shell form."""
        try:
            found = json.loads(self.value.removeprefix("CMD "))
        except json.JSONDecodeError:
            return None
        return found if isinstance(found, list) else None


@dataclass
class Stage:
    base: str
    name: str | None
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, keyword: str) -> list[Instruction]:
        return [one for one in self.instructions if one.keyword == keyword]

    def last(self, keyword: str) -> Instruction:
        return self.all(keyword)[-1]


@dataclass(frozen=True)
class Dockerfile:
    arguments: dict[str, str]  # ARG before the first FROM
    stages: list[Stage]

    def stage(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)

    @property
    def final(self) -> Stage:
        return self.stages[-1]


def sources(file: Dockerfile) -> list[str]:
    """Paths that COPY takes from the checkout."""
    copies = [one for s in file.stages for one in s.all("COPY") if "from" not in one.flags]
    return [path for one in copies for path in one.words[:-1]]


def health_command(final: Stage, python: str, port: int) -> list[str]:
    """The health check of an image, for a server on another port."""
    _, *words = final.last("HEALTHCHECK").array
    return [python, *(word.replace(final.last("EXPOSE").value, str(port)) for word in words)]


def expand(text: str, values: dict[str, str]) -> str:
    """`text` with each `${NAME}` replaced; KeyError for one without a value."""
    return VARIABLE.sub(lambda match: values[match[1]], text)


def parse(text: str) -> Dockerfile:
    """Raises: ValueError: something that this parser does not know."""
    made = Dockerfile({}, [])
    for number, line in _logical_lines(text):
        match = re.fullmatch(r"([A-Z]+)((?: --[\w-]+=\S+)*) (.+)", line)
        if not match or match[1] not in KEYWORDS or "<<" in line:
            raise ValueError(f"line {number}: {line!r} is nothing this parser knows")
        flags = dict(word[2:].split("=", 1) for word in match[2].split())
        one = Instruction(match[1], flags, match[3], number)
        if one.keyword == "FROM":
            base, _, name = one.value.partition(" AS ")
            made.stages.append(Stage(base, name or None))
        elif not made.stages and one.keyword == "ARG":
            made.arguments.update(one.pairs)
        else:
            made.stages[-1].instructions.append(one)
    return made


def _logical_lines(text: str):
    """(number of the first line, text) without comments; continued lines are joined by a blank."""
    parts: list[str] = []
    start = 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or not line.strip():
            continue
        start = start if parts else number
        parts.append(line.strip().removesuffix("\\").strip())
        if not line.endswith("\\"):
            yield start, " ".join(parts)
            parts = []
