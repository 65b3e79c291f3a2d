"""The sum over heads of a score, in DeepGEMM's order: scores are then its own to the last bit.

    score = scale * sum_h weight[h] * max(product[h], 0)

As `sm90_fp8_mqa_logits` has it (include/deep_gemm/impls of sgl-deep-gemm 0.2.3.post2): heads come
in groups of eight, and a group in four pairs. Each of four threads adds up the two heads of its
pair over all groups, each apart; then it adds the two and scales; then the four are added, in
pairs. Of a thread's additions the compiler (CUDA 13.0) makes

    total = fma(p[0], w[0], p[1] * w[1]), then fma(p[j], w[j], total) for every further group j

and nothing else becomes one. So what calls these is compiled without fusing multiplications and
additions (`UNFUSED`): the ones to be fused are written here. Once in Triton, once in
Gluon, its lower level: neither can call the other.

Not where a product is NaN, which DeepGEMM's maximum takes for 0, nor for weights below 2**-125, of
which half is not exact.

# K = keys of a tile, Q = queries, H = heads, GROUPS = H / 8
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

UNFUSED = {"enable_fp_fusion": False}  # for every launch of a kernel that sums over heads


@triton.jit
def weighted_sum(product, weight, scale, K: tl.constexpr, Q: tl.constexpr, H: tl.constexpr):
    """[K, Q] scores.

    Args:
        product: [K, Q * H], twice what is above zero; columns as in `scoring.load_block`.
        weight: [Q * H], halves.
        scale: [K].
    """
    product, weight = tl.broadcast(product, weight[None, :])
    product, weight = _by_group(product, K, Q, H), _by_group(weight, K, Q, H)
    even, odd = tl.split(_sum_groups(product, weight, K, Q, H // 8))
    total = tl.reshape((even + odd) * scale[:, None, None], (K, Q, 2, 2))
    return tl.sum(tl.sum(total, 3), 2)


@triton.jit
def _by_group(columns, K: tl.constexpr, Q: tl.constexpr, H: tl.constexpr):
    """[K, Q, 4, 2, GROUPS]: pairs, and heads of a pair."""
    HALVES: tl.constexpr = 2 if Q > 1 else 1
    split = tl.reshape(columns, (K, HALVES, H // 8, 4, Q // HALVES, 2))
    return tl.reshape(tl.trans(split, (0, 1, 4, 3, 5, 2)), (K, Q, 4, 2, H // 8))


@triton.jit
def _sum_groups(product, weight, K: tl.constexpr, Q: tl.constexpr, GROUPS: tl.constexpr):
    """[K, Q, 4, 2] from [K, Q, 4, 2, GROUPS]."""
    one: tl.constexpr = (K, Q, 4, 2)
    if GROUPS == 1:
        return tl.reshape(product, one) * tl.reshape(weight, one)
    else:
        first, last = _halves(product, K, Q, GROUPS)
        of_first, of_last = _halves(weight, K, Q, GROUPS)
        if GROUPS == 2:
            total = tl.reshape(last, one) * tl.reshape(of_last, one)
            return tl.fma(tl.reshape(first, one), tl.reshape(of_first, one), total)
        else:
            total = _sum_groups(first, of_first, K, Q, GROUPS // 2)
            return _add_groups(total, last, of_last, K, Q, GROUPS // 2)


@triton.jit
def _add_groups(total, product, weight, K: tl.constexpr, Q: tl.constexpr, GROUPS: tl.constexpr):
    if GROUPS == 1:
        one: tl.constexpr = (K, Q, 4, 2)
        return tl.fma(tl.reshape(product, one), tl.reshape(weight, one), total)
    else:
        first, last = _halves(product, K, Q, GROUPS)
        of_first, of_last = _halves(weight, K, Q, GROUPS)
        total = _add_groups(total, first, of_first, K, Q, GROUPS // 2)
        return _add_groups(total, last, of_last, K, Q, GROUPS // 2)


@triton.jit
def _halves(terms, K: tl.constexpr, Q: tl.constexpr, GROUPS: tl.constexpr):
    """The first and the last groups."""
    split = tl.reshape(terms, (K, Q, 4, 2, 2, GROUPS // 2))
    return tl.split(tl.trans(split, (0, 1, 2, 3, 5, 4)))


@gluon.jit
def totals_of_pairs(product, weight, K: gl.constexpr, Q: gl.constexpr, H: gl.constexpr):
    """[K, Q, 4], what each of DeepGEMM's threads has before it scales.

    Args:
        product: [K, Q * H]; columns as in `keeping`. weight: [Q * H], halves.
    """
    product, weight = gl.broadcast(product + gl.abs(product), weight[None, :])
    product = gl.permute(gl.reshape(product, [K, H // 8, 4, Q, 2]), [0, 3, 2, 4, 1])
    weight = gl.permute(gl.reshape(weight, [K, H // 8, 4, Q, 2]), [0, 3, 2, 4, 1])
    even, odd = gl.split(_sum_groups_(product, weight, K, Q, H // 8))
    return even + odd


@gluon.jit
def sum_of_pairs(total, scale, K: gl.constexpr, Q: gl.constexpr):
    """[K, Q] scores from [K, Q, 4] and [K]."""
    return gl.sum(gl.sum(gl.reshape(total * scale[:, None, None], [K, Q, 2, 2]), 3), 2)


@gluon.jit
def _sum_groups_(product, weight, K: gl.constexpr, Q: gl.constexpr, GROUPS: gl.constexpr):
    one: gl.constexpr = [K, Q, 4, 2]
    if GROUPS == 1:
        return gl.reshape(product, one) * gl.reshape(weight, one)
    else:
        first, last = _halves_(product, K, Q, GROUPS)
        of_first, of_last = _halves_(weight, K, Q, GROUPS)
        if GROUPS == 2:
            total = gl.reshape(last, one) * gl.reshape(of_last, one)
            return gl.fma(gl.reshape(first, one), gl.reshape(of_first, one), total)
        else:
            total = _sum_groups_(first, of_first, K, Q, GROUPS // 2)
            return _add_groups_(total, last, of_last, K, Q, GROUPS // 2)


@gluon.jit
def _add_groups_(total, product, weight, K: gl.constexpr, Q: gl.constexpr, GROUPS: gl.constexpr):
    if GROUPS == 1:
        one: gl.constexpr = [K, Q, 4, 2]
        return gl.fma(gl.reshape(product, one), gl.reshape(weight, one), total)
    else:
        first, last = _halves_(product, K, Q, GROUPS)
        of_first, of_last = _halves_(weight, K, Q, GROUPS)
        total = _add_groups_(total, first, of_first, K, Q, GROUPS // 2)
        return _add_groups_(total, last, of_last, K, Q, GROUPS // 2)


@gluon.jit
def _halves_(terms, K: gl.constexpr, Q: gl.constexpr, GROUPS: gl.constexpr):
    split = gl.reshape(terms, [K, Q, 4, 2, 2, GROUPS // 2])
    return gl.split(gl.permute(split, [0, 1, 2, 3, 5, 4]))
