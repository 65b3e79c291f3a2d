"""What one engine says about the tokens of a sample, and how two engines differ on them.

T = tokens of a sample    P = T - 1 predictions (row p is about token p + 1)    N = top tokens kept
"""

from dataclasses import dataclass

import numpy as np

from sglang_ic.evaluate.kl import Named, bounded_kl
from sglang_ic.evaluate.samples import Sample


@dataclass(frozen=True)
class TokenScores:
    """Teacher-forced predictions for one sample."""

    targets: np.ndarray  # [P] int32, the true tokens
    logprobs: np.ndarray  # [P] float64, of the true token
    top_ids: np.ndarray  # [P, N] int32, best first
    top_logprobs: np.ndarray  # [P, N] float64

    def __post_init__(self) -> None:
        num_predictions = self.logprobs.shape[0]
        assert self.top_ids.shape == self.top_logprobs.shape, self.top_ids.shape
        assert self.top_ids.shape[0] == num_predictions, (self.top_ids.shape, num_predictions)
        assert np.isfinite(self.logprobs).all(), "a log-probability is not finite"

    @property
    def named(self) -> Named:
        return Named(self.targets, self.logprobs, self.top_ids, self.top_logprobs)


@dataclass(frozen=True)
class Differences:
    """Arm against reference on the same tokens."""

    dnll: np.ndarray  # [P] float64, nats: positive where the arm is worse
    kl: np.ndarray  # [P] float64, nats: a lower bound on KL(reference || arm)
    unresolved: np.ndarray  # [P] float64, the reference's mass that the bound does not resolve
    same_top1: np.ndarray  # [P] bool


def differences(reference: TokenScores, arm: TokenScores) -> Differences:
    kl, unresolved = bounded_kl(reference.named, arm.named)
    return Differences(
        dnll=reference.logprobs - arm.logprobs,
        kl=kl,
        unresolved=unresolved,
        same_top1=reference.top_ids[:, 0] == arm.top_ids[:, 0],
    )


def answers_right(sample: Sample, scores: TokenScores) -> np.ndarray:
    """[number of answers] bool: is the model's top token the true one at every token of the answer?

    This is greedy generation's exact match, from one prefill: greedy decoding writes the answer's
    first token iff that token is on top after the true text before it; then the text is still the
    true one, so the same holds for the second, and so on; and at the first token that is not on
    top it has gone wrong, whatever comes later.
    """
    hits = scores.top_ids[:, 0] == scores.targets
    return np.array([hits[s.begin - 1 : s.end - 1].all() for s in sample.answers], dtype=bool)
