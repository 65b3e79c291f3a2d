"""What traffic a scenario sends: shapes of requests, and the loads that every arm is put under."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

OBJECTIVES = ("ttft_ms", "itl_ms")
# A scaled length is never shorter: fewer tokens would measure only overheads.
MIN_PROMPT_TOKENS = 16
MIN_OUTPUT_TOKENS = 8


@dataclass(frozen=True)
class Traffic:
    """Requests of one shape; lengths in tokens, before `range_ratio` makes them uneven."""

    prompt_tokens: int
    output_tokens: int
    weight: float = 1.0
    prefix_tokens: int = 0
    requests_per_prefix: int = 1
    turns: int = 1
    range_ratio: float = 0.9

    @property
    def max_context_tokens(self) -> int:
        """The longest context that a request can reach, its answer included."""
        return self.prefix_tokens + self.turns * (self.prompt_tokens + self.output_tokens)

    def scaled(self, scale: float) -> Traffic:
        """Lengths times `scale`, not below a floor that a shorter original keeps."""
        return dataclasses.replace(
            self,
            prompt_tokens=_scaled(self.prompt_tokens, scale, MIN_PROMPT_TOKENS),
            output_tokens=_scaled(self.output_tokens, scale, MIN_OUTPUT_TOKENS),
            prefix_tokens=_scaled(self.prefix_tokens, scale, MIN_PROMPT_TOKENS),
        )


@dataclass(frozen=True)
class Point:
    """One load that every arm is put under: exactly one of concurrency and rate is set."""

    scenario: str
    label: str
    traffic: tuple[Traffic, ...]
    requests: int  # of each round
    concurrency: int | None = None
    rate: float | str | None = None  # requests per second, or "80%"
    objective: tuple[tuple[str, float | str], ...] = ()  # (ttft_ms | itl_ms, ms or "2x")

    @property
    def key(self) -> str:
        return f"{self.scenario}: {self.label}"

    @property
    def is_chat(self) -> bool:
        """Whether requests are turns of a conversation."""
        return self.traffic[0].turns > 1

    @property
    def max_context_tokens(self) -> int:
        return max(traffic.max_context_tokens for traffic in self.traffic)

    @property
    def expected_tokens(self) -> float:
        """Of one round, prompts and answers, at full length."""
        total = sum(traffic.weight for traffic in self.traffic)
        share = sum(one.weight * one.max_context_tokens for one in self.traffic) / total
        return share * self.requests

    @property
    def is_relative(self) -> bool:
        """Whether a rate or an objective is given by what the reference arm does."""
        values = [self.rate, *(value for _, value in self.objective)]
        return any(isinstance(value, str) for value in values)

    def resolved(self, *, capacity_per_sec: float, alone_ms: dict[str, float]) -> Point:
        """The point with numbers for "80%" and "2x".

        Args:
            capacity_per_sec: requests that the reference arm takes in closed loop.
            alone_ms: its median `ttft_ms` and `itl_ms` with one request at a time.
        """
        rate = self.rate
        if isinstance(rate, str):
            rate = capacity_per_sec * float(rate.removesuffix("%")) / 100
        objective = tuple(
            (name, alone_ms[name] * float(value.removesuffix("x")))
            if isinstance(value, str)
            else (name, value)
            for name, value in self.objective
        )
        return dataclasses.replace(self, rate=rate, objective=objective)


@dataclass(frozen=True)
class Scenario:
    """A file's content; `points` are its loads in the order in which they are run."""

    name: str
    description: str
    points: tuple[Point, ...]


def _scaled(tokens: int, scale: float, floor: int) -> int:
    return max(round(tokens * scale), min(tokens, floor))
