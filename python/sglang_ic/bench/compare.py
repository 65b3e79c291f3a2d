"""One arm against the reference arm: ratios with bootstrap intervals (scipy).

A ratio above 1 says that the arm is better: latencies are reference / arm, throughputs arm /
reference. Requests are paired: the same prompt, in the same round, that succeeded in both arms.

Requests of one round share its weather (queueing, a busy neighbour), so they are not independent.
The bootstrap therefore draws rounds first and pairs within each drawn round second; with a single
round it can only draw pairs, and its intervals are too narrow. The control arm is the check: its
intervals should hold 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from sglang_ic.bench.record import Measured, Request

CONFIDENCE = 0.95
NUM_RESAMPLES = 2000
BATCH = 100  # resamples at a time, for memory
# A throughput is one number a round; fewer rounds have no spread worth an interval.
MIN_ROUNDS = 3

LATENCIES: dict[str, Callable[[Request], float | None]] = {
    "ttft": lambda request: request.ttft_sec,
    "itl": lambda request: request.mean_itl_sec,
    "e2e": lambda request: request.e2e_sec,
}
STATISTICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "p50": lambda values: np.median(values, axis=-1),
    "mean": lambda values: np.mean(values, axis=-1),
    "p99": lambda values: np.percentile(values, 99, axis=-1),
}
THROUGHPUTS: dict[str, Callable[[Request], int]] = {
    "output_tokens_per_sec": lambda request: request.output_tokens,
    "input_tokens_per_sec": lambda request: request.prompt_tokens,
}


def ratios(reference: Sequence[Measured], arm: Sequence[Measured]) -> dict[str, dict[str, Any]]:
    """Every ratio of `arm` at one point: `ratio`, `low`, `high` (None: no interval), `num_pairs`.

    Args:
        reference, arm: whole blocks; rounds that only one side has are left out.
    """
    rounds = paired_rounds(reference, arm)
    result = {}
    for name, value in LATENCIES.items():
        groups = [_values(pairs, value) for _, _, pairs in rounds]
        groups = [group for group in groups if group.size]
        for statistic, function in STATISTICS.items():
            result[f"{name}_{statistic}"] = _latency_ratio(groups, function)
    for name, amount in THROUGHPUTS.items():
        result[name] = _throughput_ratio(rounds, amount)
    return {name: value for name, value in result.items() if value is not None}


def paired_rounds(
    reference: Sequence[Measured], arm: Sequence[Measured]
) -> list[tuple[Measured, Measured, list[tuple[Request, Request]]]]:
    """(reference block, arm block, pairs of requests) of each round that both have."""
    ours = {block.round: block for block in arm}
    result = []
    for block in reference:
        if block.round not in ours:
            continue
        other = ours[block.round]
        by_place = {(one.index, one.turn): one for one in other.requests if one.ok}
        pairs = [
            (one, by_place[one.index, one.turn])
            for one in block.requests
            if one.ok and (one.index, one.turn) in by_place
        ]
        result.append((block, other, pairs))
    return result


def _values(
    pairs: list[tuple[Request, Request]], value: Callable[[Request], float | None]
) -> np.ndarray:
    """[2, num_pairs] float64: reference above arm, without pairs where one is unknown."""
    known = [(value(one), value(other)) for one, other in pairs]
    known = [pair for pair in known if None not in pair]
    return np.array(known, dtype=np.float64).reshape(-1, 2).T


def _latency_ratio(
    groups: list[np.ndarray], statistic: Callable[[np.ndarray], np.ndarray]
) -> dict[str, Any] | None:
    """reference / arm of a statistic over all pairs; `groups` holds [2, num_pairs] per round."""
    if not groups:
        return None
    everything = np.concatenate(groups, axis=1)
    one, other = statistic(everything)
    if other <= 0:
        return None
    if len(groups) == 1:
        groups = [pair.reshape(2, 1) for pair in everything.T]
    sizes = np.array([group.shape[1] for group in groups])
    widest = int(sizes.max())
    padded = np.stack(_cycled(groups, widest))  # [num_groups, 2, widest]
    random = np.random.default_rng(0)

    def resampled(drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        """drawn: [..., num_groups] indices of rounds -> [...] ratios of one draw each."""
        drawn = drawn.astype(np.int64)
        places = random.random((*drawn.shape, widest)) * sizes[drawn][..., None]
        values = np.moveaxis(padded[drawn], -2, 0)  # [2, ..., num_groups, widest]
        picked = np.take_along_axis(values, places.astype(np.int64)[None], axis=-1)
        above, below = statistic(picked.reshape(*picked.shape[:-2], -1))
        return above / below

    return {
        "ratio": float(one / other),
        **_interval(resampled, len(groups), minimum=2),
        "num_pairs": int(everything.shape[1]),
    }


def _cycled(groups: list[np.ndarray], length: int) -> list[np.ndarray]:
    """Every group repeated to one length; what is repeated is never drawn."""
    return [np.tile(group, (1, -(-length // group.shape[1])))[:, :length] for group in groups]


def _throughput_ratio(
    rounds: list[tuple[Measured, Measured, list[tuple[Request, Request]]]],
    amount: Callable[[Request], int],
) -> dict[str, Any] | None:
    """arm / reference of tokens per second over all rounds, failed requests giving none."""
    table = np.array(
        [
            [
                sum(amount(request) for request in block.requests if request.ok)
                if column == 0
                else block.window_sec
                for block in (one, other)
                for column in (0, 1)
            ]
            for one, other, _ in rounds
        ],
        dtype=np.float64,
    ).reshape(-1, 4)

    def ratio(drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        total = table[drawn.astype(np.int64)].sum(axis=-2)
        return (total[..., 2] / total[..., 3]) / (total[..., 0] / total[..., 1])

    if not len(table) or not table.sum(axis=0).all():
        return None
    return {
        "ratio": float(ratio(np.arange(len(table)))),
        **_interval(ratio, len(table), minimum=MIN_ROUNDS),
        "num_rounds": len(table),
    }


def _interval(
    statistic: Callable[..., np.ndarray], num_units: int, *, minimum: int
) -> dict[str, float | None]:
    """`low` and `high` of the percentile bootstrap over units 0..num_units-1."""
    if num_units < minimum:
        return {"low": None, "high": None}
    found = bootstrap(
        (np.arange(num_units),),
        statistic,
        n_resamples=NUM_RESAMPLES,
        batch=BATCH,
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    return {"low": float(found.low), "high": float(found.high)}
