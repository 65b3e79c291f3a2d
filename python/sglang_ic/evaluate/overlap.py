"""How alike the layers' selections are, and how much attention mass they hold.

Everything is taken from sampled query rows of passes with a probe (sglang_ic.server.probe):

L = layers    R = sampled query rows    k = index_topk
"""

from dataclasses import dataclass

import numpy as np

from sglang_ic.pattern import LayerPattern


@dataclass(frozen=True)
class Probed:
    """What the layers selected and attended to in one sample."""

    positions: np.ndarray  # [R] int, of the query rows, ascending
    topk: np.ndarray  # [L, R, k] int32 positions, ascending or not; -1 where unused
    # [L, L, R] float64: mass of layer l's attention over all tokens before the query, averaged over
    # heads, that lies in the selection of layer j <= l; NaN for j > l.
    mass: np.ndarray


def overlap_matrix(topk: np.ndarray) -> np.ndarray:
    """[L, L] float64: mean over rows of |A n B| / |A|, A the row layer's set, B the column layer's.

    Sets of one row have the same size in all layers, so the matrix is symmetric.
    """
    num_layers, num_rows, _ = topk.shape
    last = int(topk.max()) + 1
    matrix = np.zeros((num_layers, num_layers))
    for row in range(num_rows):
        # member[l, s]: has layer l selected position s? Unused places fall on the spare column.
        member = np.zeros((num_layers, last + 1), dtype=np.float32)
        np.put_along_axis(member, np.where(topk[:, row] < 0, last, topk[:, row]), 1.0, axis=1)
        member = member[:, :last]
        matrix += member @ member.T / member.sum(axis=1, keepdims=True)
    return matrix / num_rows


def mean_overlap(probed: list[Probed]) -> np.ndarray:
    """[L, L] over all rows of all samples."""
    return np.average(
        [overlap_matrix(one.topk) for one in probed],
        axis=0,
        weights=[one.topk.shape[1] for one in probed],
    )


def chance_overlap(probed: list[Probed]) -> float:
    """Mean overlap of two sets of k tokens drawn at random from those that a row sees."""
    shares = [one.topk.shape[2] / (one.positions + 1) for one in probed]
    return float(np.concatenate(shares).clip(max=1).mean())


def mean_mass(probed: list[Probed]) -> np.ndarray:
    """[L, L] mean mass over all rows of all samples; NaN above the diagonal."""
    return np.concatenate([one.mass for one in probed], axis=2).mean(axis=2)


def recalled(mass: np.ndarray, pattern: LayerPattern) -> np.ndarray:
    """[L] of `mass` [L, L] that each layer finds in its owner's selection under `pattern`."""
    return mass[np.arange(pattern.num_layers), list(pattern.owners)]


def sampled_positions(length: int, index_topk: int, num_rows: int) -> list[int]:
    """Query positions to look at, evenly spaced, where the selection is at most a quarter."""
    first = min(4 * index_topk, length - 1)
    return sorted({int(at) for at in np.linspace(first, length - 1, num_rows)})
