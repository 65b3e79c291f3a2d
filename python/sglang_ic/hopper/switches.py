"""Which replacements run: environment variables, read once by the plugin in every process.

Unset or empty means what was measured to be faster on a Hopper GPU (an H200, bf16 KV, 32 heads);
"off" means upstream's code, for which nothing is attached.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# ragged: upstream's own newer kernel, which its prefill uses for flashmla_sparse with fp8 KV only,
# and then one lookup per index.
PREFILL_TOPK = "SGLANG_IC_PREFILL_TOPK"
# fused: where contexts are long, our kernels score and select in one pass over the keys; scores are
# not written. They are DeepGEMM's to the last bit, so the sets are the same.
PREFILL_SCORES = "SGLANG_IC_PREFILL_SCORES"
# heads: our kernel in place of FlashMLA's, for ranks of 8, 16 or 32 heads. Other rounding.
PREFILL_ATTENTION = "SGLANG_IC_PREFILL_ATTENTION"
# split: our kernels in place of FlashAttention 3's in decode steps of few tokens, for the same
# ranks. Other rounding. Calls that a kernel does not know go upstream's way, here as in prefill.
DECODE_ATTENTION = "SGLANG_IC_DECODE_ATTENTION"
# indexer: in decode graphs it has a stream to itself. roles: and Shared layers have one in all.
DECODE_STREAMS = "SGLANG_IC_DECODE_STREAMS"

OFF = "off"
_CHOICES = {
    PREFILL_TOPK: ("ragged",),
    PREFILL_SCORES: ("fused",),
    PREFILL_ATTENTION: ("heads",),
    DECODE_ATTENTION: ("split",),
    DECODE_STREAMS: ("indexer", "roles"),
}
_DEFAULTS = {
    PREFILL_TOPK: "ragged",
    PREFILL_SCORES: "fused",
    PREFILL_ATTENTION: "heads",
    DECODE_ATTENTION: "split",
}
NAMES = tuple(_CHOICES)


@dataclass(frozen=True)
class Switches:
    """What runs in place of upstream's steps; None for upstream's own.

    Attributes:
        prefill_topk: how prefill selects from scores that are written: "ragged".
        prefill_scores: how prefill of long contexts scores: "fused", which selects too.
        prefill_attention: how queries of few heads attend in prefill: "heads".
        decode_attention: how tokens attend in decode: "split".
        decode_streams: which streams a layer has in a decode graph: "indexer" or "roles".
    """

    prefill_topk: str | None = None
    prefill_scores: str | None = None
    prefill_attention: str | None = None
    decode_attention: str | None = None
    decode_streams: str | None = None

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Switches:
        """The switches in `environment`.

        Raises:
            ValueError: a value that is not one of ours.
        """
        return cls(**{field_of(name): _choice(environment, name) for name in NAMES})


def field_of(name: str) -> str:
    """The field of `Switches` that a variable sets."""
    return name.removeprefix("SGLANG_IC_").lower()


def asked_for(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The variables that name a replacement, which is then attached or stops the server."""
    return tuple(name for name in NAMES if _given(environment, name) not in ("", OFF))


def _given(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name, "").strip()


def _choice(environment: Mapping[str, str], name: str) -> str | None:
    value = _given(environment, name)
    if value and value not in (*_CHOICES[name], OFF):
        accepted = ", ".join((*_CHOICES[name], OFF))
        raise ValueError(f"{name}={value}: accepted is {accepted}; unset it for the default")
    return None if value == OFF else value or _DEFAULTS.get(name)
