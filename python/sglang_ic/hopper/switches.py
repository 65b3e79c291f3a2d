"""Which replacements run: environment variables, read once by the plugin in every process.

Environment variables, because a replacement that has not been measured is for measurements. Unset
or empty means upstream's code, untouched: nothing is attached.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# ragged: upstream's own newer kernel, which it uses for fp8 KV only, and then one lookup per index.
PREFILL_TOPK = "SGLANG_IC_PREFILL_TOPK"
# fused: our kernels score and select in one pass over the keys; scores are not written. Other
# rounding than DeepGEMM's, so near-ties may be selected otherwise.
PREFILL_SCORES = "SGLANG_IC_PREFILL_SCORES"

# overlap: heads that pad a query for flashmla_sparse are those of the next token, read in place.
PREFILL_PADDING = "SGLANG_IC_PREFILL_PADDING"
# heads: our kernel in place of FlashMLA's, for ranks of 8, 16 or 32 heads. Other rounding.
PREFILL_ATTENTION = "SGLANG_IC_PREFILL_ATTENTION"
# indexer: in decode graphs it has a stream to itself. roles: and Shared layers have one in all.
DECODE_STREAMS = "SGLANG_IC_DECODE_STREAMS"

_CHOICES = {
    PREFILL_TOPK: ("ragged",),
    PREFILL_SCORES: ("fused",),
    PREFILL_PADDING: ("overlap",),
    PREFILL_ATTENTION: ("heads",),
    DECODE_STREAMS: ("indexer", "roles"),
}
NAMES = tuple(_CHOICES)


@dataclass(frozen=True)
class Switches:
    """What runs in place of upstream's steps; None for upstream's own.

    Attributes:
        prefill_topk: how prefill selects: "ragged"; None with fused scores.
        prefill_scores: how prefill scores: "fused".
        prefill_padding: how queries of few heads are padded: "overlap"; None with our attention.
        prefill_attention: how queries of few heads attend in prefill: "heads".
        decode_streams: which streams a layer has in a decode graph: "indexer" or "roles".
    """

    prefill_topk: str | None = None
    prefill_scores: str | None = None
    prefill_padding: str | None = None
    prefill_attention: str | None = None
    decode_streams: str | None = None

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Switches:
        """The switches in `environment`.

        Raises:
            ValueError: a value that is not one of ours, or two that do the same step.
        """
        topk, scores = _choice(environment, PREFILL_TOPK), _choice(environment, PREFILL_SCORES)
        if scores == "fused" and topk:
            raise ValueError(
                f"{PREFILL_TOPK}={topk}: {PREFILL_SCORES}=fused selects too; unset one of them"
            )
        padding, attention, streams = (
            _choice(environment, name)
            for name in (PREFILL_PADDING, PREFILL_ATTENTION, DECODE_STREAMS)
        )
        if attention and padding:
            raise ValueError(
                f"{PREFILL_PADDING}={padding}: {PREFILL_ATTENTION}={attention} pads nothing; "
                "unset one of them"
            )
        return cls(topk, scores, padding, attention, streams)


def _choice(environment: Mapping[str, str], name: str) -> str | None:
    value = environment.get(name, "").strip()
    if value and value not in _CHOICES[name]:
        accepted = ", ".join(_CHOICES[name])
        raise ValueError(f"{name}={value}: accepted is {accepted}; unset it for upstream's own")
    return value or None
