"""What cannot be combined with a pattern yet, refused when the server starts.

A decision only: ``facts_of`` reads SGLang's resolved arguments, ``refusal`` says no and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

SUPPORTED_DEVICES = ("cuda", "cpu")


class ServerFacts(NamedTuple):
    """The part of SGLang's resolved arguments that a pattern can clash with."""

    device: str
    two_batch_overlap: bool
    torch_compile: bool
    prefill_graph: str  # disabled, breakable, full, tc_piecewise
    decode_graph: str
    pp_size: int
    speculative: bool
    hierarchical_cache: bool
    hisparse: bool
    disaggregation: bool


def facts_of(args: Any) -> ServerFacts:
    """Read the facts from upstream's ``resolving_view(server_args)``."""
    graphs = args.cuda_graph_config
    return ServerFacts(
        device=args.device,
        two_batch_overlap=args.enable_two_batch_overlap,
        torch_compile=args.enable_torch_compile,
        prefill_graph=_backend_name(graphs.prefill.backend),
        decode_graph=_backend_name(graphs.decode.backend),
        pp_size=args.pp_size,
        speculative=args.speculative_algorithm is not None,
        hierarchical_cache=args.enable_hierarchical_cache,
        hisparse=args.enable_hisparse,
        disaggregation=args.disaggregation_mode != "null",
    )


def _backend_name(backend: Any) -> str:
    return str(getattr(backend, "value", backend))


def refusal(resolved: Mapping[str, Any], facts: ServerFacts) -> str | None:
    """One line saying what clashes, or None.

    Args:
        resolved: ``IndexCacheConfig.as_dict()``.
    """
    build_all = resolved["build"] == "all"
    if not resolved["num_shared"] + resolved["num_candidate"] and not build_all:
        return None  # all Full is upstream's own way; everything upstream allows is allowed
    pattern = f"the pattern {resolved['pattern']} (from {resolved['source']})"
    if facts.device not in SUPPORTED_DEVICES:
        return (
            f"device {facts.device!r} cannot serve {pattern}; accepted: "
            f"{', '.join(SUPPORTED_DEVICES)}; or serve all layers Full"
        )
    if facts.two_batch_overlap:
        return (
            f"--enable-two-batch-overlap cannot be combined with {pattern}: the two halves of a "
            "batch would share one set of indices; drop the flag, or serve all layers Full"
        )
    if facts.torch_compile:
        return (
            f"--enable-torch-compile cannot be combined with {pattern}: a compiled pass does not "
            "see the forward-batch state; drop the flag, or serve all layers Full"
        )
    if facts.prefill_graph == "tc_piecewise":
        return (
            f"the prefill CUDA-graph backend tc_piecewise cannot be combined with {pattern}; "
            "use --cuda-graph-backend-prefill breakable or disabled"
        )
    if build_all and (reason := _build_all_refusal(facts)) is not None:
        return reason
    return _candidates_refusal(pattern, facts) if resolved["num_candidate"] else None


def _candidates_refusal(pattern: str, facts: ServerFacts) -> str | None:
    """What candidate layers cannot be combined with: they need the selection of this very pass."""
    clashes = {
        "pipeline parallelism (--pp-size > 1)": facts.pp_size > 1,
        "prefill CUDA graphs (give --disable-prefill-cuda-graph)": facts.device == "cuda"
        and facts.prefill_graph != "disabled",
        "speculative decoding": facts.speculative,
    }
    found = [name for name, clash in clashes.items() if clash]
    if not found:
        return None
    return (
        f"{pattern} has candidate layers (C), which cannot be combined with {', '.join(found)}; "
        "drop those, or make the candidate layers F"
    )


def _build_all_refusal(facts: ServerFacts) -> str | None:
    """What the internal mode (index_cache_build: all) cannot be combined with."""
    clashes = {
        "pipeline parallelism (--pp-size > 1)": facts.pp_size > 1,
        "decode CUDA graphs (give --disable-decode-cuda-graph)": facts.device == "cuda"
        and facts.decode_graph != "disabled",
        "prefill CUDA graphs (give --disable-prefill-cuda-graph)": facts.device == "cuda"
        and facts.prefill_graph != "disabled",
        "speculative decoding": facts.speculative,
        "--enable-hierarchical-cache": facts.hierarchical_cache,
        "--enable-hisparse": facts.hisparse,
        "--disaggregation-mode": facts.disaggregation,
    }
    found = [name for name, clash in clashes.items() if clash]
    if not found:
        return None
    return (
        "index_cache_build 'all' changes roles between forward passes and cannot be combined "
        f"with {', '.join(found)}; drop those, or leave index_cache_build out"
    )
