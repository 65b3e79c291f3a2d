"""What a person sees while a search runs: work done, time left, the best candidate so far."""

import sys

from tqdm import tqdm

from sglang_ic.search.estimate import Estimate
from sglang_ic.search.swap import STAY

LOG_INTERVAL_SEC = 30  # between lines when nobody watches


class Progress:
    """A bar over layer-token-forwards. The fast method's total is a guess that gets better."""

    def __init__(self, num_steps: int, total: int, exact: bool) -> None:
        """Show an empty bar.

        Args:
            total: layer-token-forwards of the whole search, known or guessed.
            exact: whether it is known.
        """
        watched = sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            desc=f"step 1/{num_steps}",
            unit="lt",
            unit_scale=True,
            mininterval=0.2 if watched else LOG_INTERVAL_SEC,
            smoothing=0.05,
        )
        self._num_steps, self._exact = num_steps, exact
        self._steps_done = 0
        self._step_began = 0  # work done then
        self._first_step = 0  # work of the first step, which is like no other
        self._best: tuple[str, float] | None = None

    def advance(self, layer_tokens: int) -> None:
        if not self._exact and self._bar.n + layer_tokens > self._bar.total:
            self._bar.total = self._bar.n + layer_tokens
        self._bar.update(layer_tokens)

    def look(self, name: str, increase: Estimate) -> None:
        """A candidate was evaluated."""
        if self._best is None or increase.mean < self._best[1] or name == self._best[0]:
            self._best = (name, increase.mean)
        self._bar.set_postfix_str(f"best: {self._best[0]} {self._best[1]:+.5f}", refresh=False)

    def look_at_layer(self, layer: int, increase: Estimate) -> None:
        self.look(f"layer {layer}", increase)

    def look_at_swap(self, layers: tuple[int, int], increase: Estimate) -> None:
        if layers != STAY:
            self.look(f"layer {layers[0]} for {layers[1]}", increase)

    def step_done(self, pattern: str, loss: float) -> None:
        """A step was committed; say so, and guess the rest from the steps so far."""
        self._steps_done += 1
        if self._steps_done == 1:
            self._first_step = self._bar.n
        later = self._steps_done - 1
        left = self._num_steps - self._steps_done
        if not self._exact:
            # Later steps know what to expect of most candidates.
            mean = (self._bar.n - self._first_step) / later if later else self._first_step / 4
            self._bar.total = max(self._bar.n, int(self._bar.n + left * mean))
        self._best = None
        self.note(f"{pattern.count('F'):3d} Full  {pattern}  loss {loss:.5f}")
        if left:
            self._bar.set_description_str(f"step {self._steps_done + 1}/{self._num_steps}")

    def phase(self, name: str, layer_tokens: int = 0) -> None:
        """Something after the steps; `layer_tokens` of it are to come."""
        self._bar.set_description_str(name)
        self._bar.set_postfix_str("", refresh=False)
        self._best = None
        self._bar.total = self._bar.n + layer_tokens

    def note(self, text: str) -> None:
        self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        self._bar.close()
