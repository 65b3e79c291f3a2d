"""Kernel time of a torch profiler trace, by what the kernels are for. Pure but for reading it.

Names are those of SGLang 0.5.23 on Hopper: DeepGEMM's mqa_logits, sgl-kernel's top-k transforms,
FlashMLA and FlashAttention 3, fused MoE, cuBLAS (nvjet) and DeepGEMM products; and those of
sglang_ic.hopper.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang_ic.latency.alone import alone_us

NAME_LENGTH = 160
KERNEL_KINDS = ("kernel", "gpu_memcpy", "gpu_memset")
REST = "rest"
# Kernels of sglang_ic.hopper, by their whole names.
OURS = {
    **dict.fromkeys(("score_kernel", "keep_kernel", "rescue_kernel"), "mqa_logits"),
    **dict.fromkeys(("bound_kernel", "choose_kept_kernel", "_slots_kernel"), "top-k"),
    **dict.fromkeys(("gather_kernel", "count_kernel", "look_up_kernel"), "other indexer"),
    **dict.fromkeys(
        ("sparse_attention_kernel", "attend_to_split_kernel", "combine_splits_kernel"),
        "sparse attention",
    ),
}
# The first category with a word that is part of the lower-case name. Order matters: a router's
# top-k is MoE, mqa_logits' metadata is no scoring, and a norm of FlashInfer is no attention.
CATEGORIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "MoE",
        ("moe", "expert", "router", "fused_gate", "grouped_topk", "topk_sigmoid", "act_and_mul"),
    ),
    ("other indexer", ("mqa_logits_metadata", "indexer", "index_k", "get_k_and_s", "hadamard")),
    ("mqa_logits", ("mqa_logits",)),
    ("top-k", ("topk", "bitonicsort", "radixsort")),
    ("page-table gather", ("vectorized_gather",)),
    ("norm", ("norm",)),
    ("sparse attention", ("flash", "sparse_attn", "sparse_prefill", "sparse_fwd", "mla_decode")),
    ("GEMM", ("gemm", "nvjet", "splitk", "cutlass")),
)
NAMES = (*(name for name, _ in CATEGORIES), REST)
INDEXER = ("mqa_logits", "top-k", "page-table gather", "other indexer")
# As they are shown: the indexer's, and then what it leaves over.
SHOWN = (*INDEXER, "sparse attention", "MoE", "GEMM", "norm", REST)


class TraceError(ValueError):
    """A trace that tells nothing about a GPU; the message is one line."""


@dataclass(frozen=True)
class Kernels:
    """Launches and time of every kernel, by name."""

    counts: dict[str, int]
    total_us: dict[str, float]
    alone_us: dict[str, float]  # by category, while none of another one ran
    busy_us: float  # while any ran

    def category_ms(self) -> dict[str, float]:
        """Category -> milliseconds, in the order of `NAMES`; those without a kernel are 0."""
        found = dict.fromkeys(NAMES, 0.0)
        for name, microseconds in self.total_us.items():
            found[category(name)] += microseconds / 1e3
        return found

    def alone_ms(self) -> dict[str, float]:
        """Category -> milliseconds in which only its kernels ran, in the order of `NAMES`."""
        return {name: self.alone_us.get(name, 0.0) / 1e3 for name in NAMES}

    def launches(self, of: str) -> int:
        """Kernel launches of one category."""
        return sum(number for name, number in self.counts.items() if category(name) == of)

    def without(self, others: Kernels) -> Kernels:
        """What is left of a trace when the launches of another one, all in this one too, are not
        counted; a kernel that was launched as often in both is not there at all."""
        more = {name: num - others.counts.get(name, 0) for name, num in self.counts.items()}
        names = [name for name, num in more.items() if num > 0]
        return Kernels(
            {name: more[name] for name in names},
            {name: self.total_us[name] - others.total_us.get(name, 0.0) for name in names},
            {name: self.alone_us.get(name, 0.0) - others.alone_us.get(name, 0.0) for name in NAMES},
            self.busy_us - others.busy_us,
        )

    def longest(self, num: int) -> list[dict[str, Any]]:
        """The kernels that took most of the time."""
        names = sorted(self.total_us, key=lambda name: -self.total_us[name])[:num]
        return [
            {
                "name": name[:NAME_LENGTH],
                "category": category(name),
                "num": self.counts[name],
                "total_ms": self.total_us[name] / 1e3,
            }
            for name in names
        ]


def category(name: str) -> str:
    """What a kernel is for, by its name."""
    if name in OURS:
        return OURS[name]
    lower = name.lower()
    for found, words in CATEGORIES:
        if any(word in lower for word in words):
            return found
    return REST


def _precedes(one: str, other: str) -> bool:
    return NAMES.index(one) < NAMES.index(other)


def refiled(
    category_ms: Mapping[str, float], longest: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Times by category as `category` has it now, for a journal from before a name was known.

    Args:
        longest: of `Kernels.longest`, with the category of then. Shorter kernels stay in theirs.
    """
    found = dict(category_ms)
    for one in longest:
        now = category(one["name"])
        # A name that was cut may have lost the word that decided, and keeps then what it was.
        is_whole = len(one["name"]) < NAME_LENGTH
        if now != one["category"] and (is_whole or _precedes(now, one["category"])):
            found[one["category"]] -= one["total_ms"]
            found[now] += one["total_ms"]
    return found


def kernels(trace: Mapping[str, Any]) -> Kernels:
    """Kernels of a Chrome trace.

    Raises:
        TraceError: it holds no GPU kernel.
    """
    counts: dict[str, int] = {}
    total: dict[str, float] = {}
    spans = []
    for event in trace["traceEvents"]:
        if event.get("cat") in KERNEL_KINDS:
            name = event["name"]
            counts[name] = counts.get(name, 0) + 1
            total[name] = total.get(name, 0.0) + event["dur"]
            spans.append((category(name), event["ts"], event["dur"]))
    if not counts:
        raise TraceError("the trace holds no GPU kernel: profile a server that runs on a GPU")
    return Kernels(counts, total, *alone_us(spans))


def read(path: Path) -> Kernels:
    """Kernels of a trace file, .json or .json.gz.

    Raises:
        TraceError: see `kernels`.
    """
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    return kernels(json.loads(data))


def launches_per_run(found: Kernels, indexer_run: int | None) -> float | None:
    """Scoring kernels for each indexer layer-pass that the server counted; None if it told of none.

    A pass launches one, or one for every block of a long prefill, the same number in each layer:
    so a fraction says that the counter, or the pattern that runs, is not what the server tells.
    """
    return found.launches("mqa_logits") / indexer_run if indexer_run else None
