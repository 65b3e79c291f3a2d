"""KL divergence of two next-token distributions of which only the best tokens are known.

An engine names the N best tokens of each arm, and the true token. A token that the arm does not
name has at most the probability of its N-th one there. Of all distributions of the arm that agree
with this, `bounded_kl` takes the nearest to the reference: a lower bound, exact when N is the
vocabulary.

P = predictions    N = named tokens
"""

from typing import NamedTuple

import numpy as np

# Smallest probability of what is not named: sums of float32 probabilities near 1 are no finer.
REST_FLOOR = 1e-7
ROWS_PER_BLOCK = 1024


class Named(NamedTuple):
    """What is known of one arm's distributions."""

    targets: np.ndarray  # [P] int32, the true tokens
    logprobs: np.ndarray  # [P] float64, of the true tokens
    top_ids: np.ndarray  # [P, N] int32, best first
    top_logprobs: np.ndarray  # [P, N] float64

    def rows(self, which: slice) -> "Named":
        return Named(*(field[which] for field in self))


def bounded_kl(reference: Named, arm: Named) -> tuple[np.ndarray, np.ndarray]:
    """A lower bound on KL(reference || arm), and how much of the reference it does not resolve.

    Returns:
        [P] float64 nats, and [P] float64 the reference's mass on tokens that only one arm names,
        or none.
    """
    blocks = [
        _block(reference.rows(rows), arm.rows(rows))
        for begin in range(0, len(reference.targets), ROWS_PER_BLOCK)
        for rows in [slice(begin, begin + ROWS_PER_BLOCK)]
    ]
    kl, unresolved = zip(*blocks, strict=True)
    return np.concatenate(kl), np.concatenate(unresolved)


def _block(reference: Named, arm: Named) -> tuple[np.ndarray, np.ndarray]:
    # The true token is a column of its own; in the lists it is blanked, or it would count twice.
    ids = _with_target(reference.top_ids, reference.targets)
    log_p = np.column_stack([reference.logprobs, reference.top_logprobs])
    # same[p, i, j]: is the reference's i-th token the arm's j-th?
    same = ids[:, :, None] == _with_target(arm.top_ids, arm.targets)[:, None, :]
    same &= (ids >= 0)[:, :, None]
    both = same.any(axis=2)
    arm_log = np.column_stack([arm.logprobs, arm.top_logprobs])
    log_q = np.where(same, arm_log[:, None, :], 0.0).sum(axis=2)
    p = np.where(ids >= 0, np.exp(log_p), 0.0)
    rest_p = np.maximum(1.0 - p.sum(axis=1, where=both), REST_FLOOR)
    rest_q = np.maximum(1.0 - np.exp(log_q).sum(axis=1, where=both), REST_FLOOR)
    kl = np.where(both, p * (log_p - log_q), 0.0).sum(axis=1)
    only_reference = np.where(both, 0.0, p)
    cap = np.maximum(np.exp(arm.top_logprobs[:, -1]), np.finfo(float).tiny)
    kl += _nearest(only_reference, rest_p, rest_q, cap)
    # Rounding and the floor can leave a sum a hair below 0.
    return np.maximum(kl, 0.0), rest_p


def _with_target(ids: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """[P, 1 + N] the true token, then the list with -1 in its place."""
    return np.column_stack([targets, np.where(ids == targets[:, None], -1, ids)])


def _nearest(p: np.ndarray, rest_p: np.ndarray, rest_q: np.ndarray, cap: np.ndarray) -> np.ndarray:
    """[P] least sum of p log(p / q) over what is not named by both.

    Args:
        p: [P, M] the reference's probabilities of tokens that the arm does not name; 0 elsewhere.
        rest_p, rest_q: [P] probability that the arms leave to everything not named by both.
        cap: [P] largest q of one token.
    """
    # Without the cap q proportional to p is nearest: everything in one bucket. Tokens that would
    # get more than the cap get the cap, and the others share what is then left.
    capped = np.zeros(p.shape, bool)
    while True:
        free_p = np.maximum(rest_p - p.sum(axis=1, where=capped), REST_FLOOR)
        free_q = np.maximum(rest_q - capped.sum(axis=1) * cap, REST_FLOOR)
        over = ~capped & (p * (free_q / free_p)[:, None] > cap[:, None])
        if not over.any():
            break
        capped |= over
    ratio = np.log(np.where(capped, p, 1.0)) - np.log(cap)[:, None]
    bucket = free_p * np.log(free_p / free_q)
    return np.where(capped, p * ratio, 0.0).sum(axis=1) + bucket
