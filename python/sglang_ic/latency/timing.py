"""What the arrival times of tokens mean. Pure; seconds of one clock in, milliseconds out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

# A first decode step may still wait for the prefill's launch queue; see benchmark/README.md.
SKIPPED_TOKENS = 4
MIN_STEPS = 4


class TimingError(ValueError):
    """Tokens that arrived in a way that gives no number."""


@dataclass(frozen=True)
class Stream:
    """One streamed answer: when it was asked for, and how many tokens had arrived when."""

    sent_sec: float
    arrivals: tuple[tuple[float, int], ...]  # (seconds, tokens so far), both rising
    cached_tokens: int
    last_ids: tuple[int, ...]  # the newest token ids of the answer

    @property
    def ttft_sec(self) -> float:
        return self.arrivals[0][0] - self.sent_sec


def inter_token(streams: Sequence[Stream]) -> tuple[float, int]:
    """Milliseconds between tokens while *all* streams decode, and the steps that were timed.

    The window opens when the last stream has its first token and closes when the first one ends.
    Each stream gives its mean in the window without its first `SKIPPED_TOKENS` there; the result
    is the median over streams, and the smallest number of steps of any.

    Raises:
        TimingError: the window of a stream holds fewer than `MIN_STEPS` steps.
    """
    opens = max(stream.arrivals[0][0] for stream in streams)
    closes = min(stream.arrivals[-1][0] for stream in streams)
    means, steps = [], []
    for stream in streams:
        inside = [(sec, count) for sec, count in stream.arrivals if opens <= sec <= closes]
        inside = inside[SKIPPED_TOKENS:]
        num_steps = inside[-1][1] - inside[0][1] if inside else 0
        if num_steps < MIN_STEPS:
            raise TimingError(
                f"only {num_steps} tokens of a stream fall where all {len(streams)} decode; "
                "raise new_tokens"
            )
        means.append((inside[-1][0] - inside[0][0]) / num_steps * 1e3)
        steps.append(num_steps)
    return median(means), min(steps)
