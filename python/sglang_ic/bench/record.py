"""What is known of one request, and when it counts as failed. Plain values, times in seconds."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """One request of one block; `None` where nothing was measured."""

    index: int  # row of the block: the same prompt in every arm
    turn: int  # of a conversation; 0 otherwise
    start_sec: float  # since the block began
    end_sec: float
    wanted_tokens: int  # answer tokens asked for
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    ttft_sec: float | None
    e2e_sec: float | None
    itl_sec: tuple[float, ...]  # between output tokens; of a chat, between pieces of its text
    first_tokens: int | None = None  # in the first piece; above 1, the TTFT holds decode steps
    error: str | None = None  # kind, see error_kind; None: it counts
    error_text: str = ""

    @property
    def ok(self) -> bool:
        return self.error is None

    @property
    def mean_itl_sec(self) -> float | None:
        """Over tokens, also where a piece of text held several of them."""
        steps = self.output_tokens - (self.first_tokens or 1)
        return sum(self.itl_sec) / steps if self.itl_sec and steps > 0 else None

    def meets(self, ttft_ms: float | None, itl_ms: float | None) -> bool:
        """Whether the request counts for goodput: it succeeded and kept both limits."""
        if not self.ok:
            return False
        quick = ttft_ms is None or self.ttft_sec * 1e3 <= ttft_ms
        return quick and (itl_ms is None or (self.mean_itl_sec or 0.0) * 1e3 <= itl_ms)


def error_kind(
    *,
    success: bool,
    error: str,
    ttft_sec: float,
    output_tokens: int,
    wanted_tokens: int,
    is_counted: bool,
    after_failure: bool,
) -> str | None:
    """Name what went wrong with a request, or None.

    Upstream calls every answer with status 200 a success: one that holds only an error, one that
    was cut short, and a turn that answers a conversation whose earlier turn failed.

    Args:
        error: upstream's text, "<reason>: <body>" of an answer or a traceback.
        is_counted: the server told how many tokens it made. It does so at the end of a chat, and
            not after an error in mid-stream; upstream then takes the number that it asked for.
    """
    if not success:
        return _kind_of_text(error)
    if ttft_sec <= 0:
        return "no token"
    if not is_counted:
        return "stream cut off"
    if output_tokens < wanted_tokens:
        return "short answer"
    return "after a failed turn" if after_failure else None


def _kind_of_text(error: str) -> str:
    last = error.strip().splitlines()[-1] if error.strip() else ""
    if error.startswith("Traceback"):
        # "aiohttp.client_exceptions.ServerDisconnectedError: Server disconnected"
        name = re.match(r"([\w.]+)", last)
        return name[1].rpartition(".")[2] if name else "unknown"
    return error.partition(":")[0].strip() or "unknown"


@dataclass(frozen=True)
class Measured:
    """One block that was run: an arm under a load, in a round."""

    arm: str
    point: str  # Point.key
    round: int
    seed: int
    started_at: str  # UTC, ISO 8601
    requests: tuple[Request, ...]
    num_planned: int  # requests that were to be sent, every turn counted
    indexer: tuple[int, int] | None  # layer-passes (run, skipped) during the block
    others_cpu_share: float | None  # cores that the idle servers of other arms used meanwhile

    @property
    def is_whole(self) -> bool:
        """Whether every request ended, well or not; an interrupted block is kept, not counted."""
        return len(self.requests) == self.num_planned

    @property
    def window_sec(self) -> float:
        """From the first request's start to the last one's end."""
        if not self.requests:
            return 0.0
        begin = min(request.start_sec for request in self.requests)
        return max(request.end_sec for request in self.requests) - begin
