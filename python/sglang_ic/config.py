"""One resolved pattern per server: flag, config keys and checkpoint facts in, a frozen config out.

Everything is decided and checked here, once, before a model is built; what runs later only reads
the result. Precedence: --index-cache-pattern, then keys typed in --json-model-override-args,
then config.json, then what transformers derived, then all Full (config_keys.py has the order
inside one source).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sglang_ic.architectures import refusal
from sglang_ic.candidates.switch import CANDIDATE_PAGES, PAGE_TOKENS, candidate_pages
from sglang_ic.config_keys import OFFSET_KEY, OVERRIDE, effective_keys, get, pattern_from_keys
from sglang_ic.pattern import LayerPattern, PatternError
from sglang_ic.pattern_text import check_count, show

FLAG = "--index-cache-pattern"
BUILD_KEY = "index_cache_build"
BUILDS = ("pattern", "all")


@dataclass(frozen=True)
class IndexCacheConfig:
    """The pattern a server runs, where it came from, and what it was checked against."""

    pattern: LayerPattern
    source: str  # "--index-cache-pattern", "<where> <key>" of config_keys, or "default (all Full)"
    index_topk: int  # tokens each query attends to
    architecture: str
    indexer_layers: frozenset[int] | None = None  # layers with indexer weights; None when unknown
    # "pattern": Shared layers get neither indexer nor index-K, as upstream saves them.
    # "all": every layer gets both, so that it can turn Full at run time.
    build: str = "pattern"
    warnings: tuple[str, ...] = ()  # one line each, for the log
    candidate_pages: int | None = None  # that candidate layers score; None without such layers

    def as_dict(self) -> dict:
        """JSON-ready facts for `/index_cache`."""
        return {
            "pattern": self.pattern.text,
            "num_layers": self.pattern.num_layers,
            "num_full": self.pattern.num_full,
            "num_shared": self.pattern.num_shared,
            "num_candidate": self.pattern.num_candidate,
            "candidate_pages": self.candidate_pages,
            "owners": list(self.pattern.owners),
            "source": self.source,
            "index_topk": self.index_topk,
            "build": self.build,
        }

    def log_line(self) -> str:
        """The resolved pattern in one line."""
        origin = f"{self.source} ({self.pattern.source})" if self.source == FLAG else self.source
        built = "all layers" if self.build == "all" else "Full layers"
        candidates = ""
        if self.pattern.num_candidate:
            candidates = f"{self.pattern.num_candidate} candidate (APPROXIMATE), "
            built = built.replace("Full", "Full and candidate")
        return (
            f"IndexCache pattern {self.pattern} from {origin}: {candidates}"
            f"{self.pattern.num_full} Full and {self.pattern.num_shared} Shared of "
            f"{self.pattern.num_layers} layers, "
            f"index_topk {self.index_topk}, indexers on {built}"
        )


def resolve(
    flag: str | None,
    override_args: Mapping,
    config_json: Mapping,
    derived: Any,
    num_layers: int,
    indexer_layers: Iterable[int] | None,
    context_length: int | None = None,
) -> IndexCacheConfig | None:
    """Resolve and check the pattern of a target model (a draft model has none of its own).

    Args:
        flag: --index-cache-pattern, None when not given.
        override_args: parsed --json-model-override-args, {} when not given.
        config_json: the checkpoint's raw config.json, {} when there is none.
        derived: the config transformers made of both, as an object or a dict.
        num_layers: decoder layers, without MTP layers.
        indexer_layers: layers with indexer weights (ids past num_layers are ignored); None when
            unknown, as with dummy weights.
        context_length: longest context in tokens, None for the model's own.
    Returns:
        The resolved config; None for a model we do not cover, which keeps SGLang's own behaviour.
    Raises:
        PatternError: a malformed pattern, a flag on a model that is not covered, or a Full layer
            without indexer weights.
    """
    # The derived config has the override args in it, and the draft's class name for a draft.
    sources = (derived, override_args, config_json)
    architecture = (_first(sources, "architectures") or [None])[0]
    index_topk = _first(sources, "index_topk")
    refused = refusal(architecture, index_topk)
    if refused is not None:
        if flag is not None:
            raise PatternError(f"{FLAG} {show(flag)}: {refused}; leave the flag out")
        if get(override_args, BUILD_KEY) is not None:
            raise PatternError(f"{OVERRIDE} {BUILD_KEY}: {refused}; leave the key out")
        return None

    index_topk = check_count(index_topk, "index_topk")
    if flag is not None:
        pattern, source = _from_flag(flag, num_layers), FLAG
    else:
        pattern, source = pattern_from_keys(override_args, config_json, derived, num_layers)
    build = _build_mode(override_args)
    if indexer_layers is not None:
        indexer_layers = frozenset(layer for layer in indexer_layers if 0 <= layer < num_layers)
        _check_weights(pattern, source, build, indexer_layers)
    if context_length is None:
        context_length = _first(sources, "max_position_embeddings")
    pages = candidate_pages(pattern.text, index_topk)
    warnings = (
        _approximate(pattern, pages)
        + _unused_keys(flag, override_args)
        + _short_context(pattern, index_topk, context_length)
    )
    return IndexCacheConfig(
        pattern, source, index_topk, architecture, indexer_layers, build, warnings, pages
    )


def _first(sources: Iterable[Any], key: str) -> Any:
    return next((value for config in sources if (value := get(config, key)) is not None), None)


def _from_flag(flag: str, num_layers: int) -> LayerPattern:
    try:
        return LayerPattern.parse(flag, num_layers)
    except PatternError as error:
        raise PatternError(f"{FLAG}: {error}") from None


def _build_mode(override_args: Mapping) -> str:
    build = get(override_args, BUILD_KEY)
    if build is None:
        return "pattern"
    if build not in BUILDS:
        raise PatternError(f"{OVERRIDE}: {BUILD_KEY} {show(build)} is unknown: use pattern or all")
    return build


def _check_weights(
    pattern: LayerPattern, source: str, build: str, indexer_layers: frozenset[int]
) -> None:
    only = f" only on {describe_layers(indexer_layers)}" if indexer_layers else " on no layer"
    weights = f"the checkpoint has indexer weights{only}"
    missing = set(pattern.indexer_layers) - indexer_layers
    if missing:
        wanted = "Full" if missing <= set(pattern.full_layers) else "Full or candidate"
        roles = "".join("FS"[layer not in indexer_layers] for layer in range(pattern.num_layers))
        repair = (
            f"make them S, as in {FLAG} {roles}"
            if roles[0] == "F"
            else "this checkpoint cannot run, layer 0 must be Full"
        )
        raise PatternError(
            f"{source}: {describe_layers(missing)} cannot be {wanted}, {weights} "
            f"(the weights, not indexer_types, decide what may be Full): {repair}"
        )
    missing = set(range(pattern.num_layers)) - indexer_layers
    if build == "all" and missing:
        raise PatternError(
            f"{OVERRIDE}: {BUILD_KEY} 'all' lacks indexer weights for {describe_layers(missing)}, "
            f"{weights}: leave {BUILD_KEY} out"
        )


def _approximate(pattern: LayerPattern, pages: int | None) -> tuple[str, ...]:
    if pages is None:
        return ()
    layers = describe_layers(x for x in range(pattern.num_layers) if pattern.is_candidate(x))
    return (
        f"APPROXIMATE RESULTS ({CANDIDATE_PAGES}={pages}): in prefill, candidate {layers} score "
        f"{pages} pages of {PAGE_TOKENS} tokens and never look at the others",
    )


def _unused_keys(flag: str | None, override_args: Mapping) -> tuple[str, ...]:
    typed = effective_keys(override_args)
    if flag is not None:
        unused, winner = typed, FLAG
    else:
        unused, winner = typed[1:], typed[0] if typed else None
        if winner == "index_topk_freq":
            unused = [key for key in unused if key != OFFSET_KEY]
    if not unused:
        return ()
    return (f"{', '.join(unused)} of {OVERRIDE} not used: {winner} decides the pattern",)


def _short_context(
    pattern: LayerPattern, index_topk: int, context_length: int | None
) -> tuple[str, ...]:
    if context_length is None or context_length > index_topk or not pattern.num_shared:
        return ()
    return (
        f"context length {context_length} is not above index_topk {index_topk}: "
        "every token is selected on every layer, so the pattern changes no output",
    )


def describe_layers(layers: Iterable[int]) -> str:
    """Layer ids as text with runs joined: `layers 0-2, 6`, `layer 3`, `no layer`."""
    runs: list[list[int]] = []
    ordered = sorted(layers)
    for layer in ordered:
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    text = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
    if not ordered:
        return "no layer"
    return f"layers {text}" if len(ordered) > 1 else f"layer {text}"
