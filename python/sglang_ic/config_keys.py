"""Reading a pattern out of model config keys, in upstream's order and across three sources.

Upstream's order inside one config is `indexer_types`, `cli_factor` above 1,
`index_topk_pattern`, then `index_topk_freq` with `index_skip_topk_offset`. Upstream applies it
to one merged config, where `indexer_types` that transformers derived while reading config.json
beats a key that the user typed. Here the sources are ranked first: keys typed in
--json-model-override-args, then config.json, then what transformers derived. A typed key still
replaces the same key below it, also when it is typed to switch it off (null, or cli_factor 1),
as it would in the merged config.
"""

from collections.abc import Mapping
from typing import Any

from sglang_ic.pattern import LayerPattern, PatternError
from sglang_ic.pattern_text import show

OVERRIDE = "--json-model-override-args"
CONFIG_JSON = "config.json"
DERIVED = "transformers"
DEFAULT = "default (all Full)"

OFFSET_KEY = "index_skip_topk_offset"
PATTERN_KEYS = ("indexer_types", "cli_factor", "index_topk_pattern", "index_topk_freq", OFFSET_KEY)


def get(config: Any, key: str) -> Any:
    """Value of `key` in a dict or config object, else in its `text_config`; None when absent."""
    for part in (config, _get(config, "text_config")):
        value = _get(part, key)
        if value is not None:
            return value
    return None


def _get(config: Any, key: str) -> Any:
    if isinstance(config, Mapping):
        return config.get(key)
    return getattr(config, key, None)


def typed_keys(override_args: Mapping) -> list[str]:
    """Pattern keys named in the override args, whatever their value, in upstream's order."""
    nested = override_args.get("text_config")
    nested = nested if isinstance(nested, Mapping) else {}
    return [key for key in PATTERN_KEYS if key in override_args or key in nested]


def effective_keys(override_args: Mapping) -> list[str]:
    """Typed pattern keys that say something: not null, and not cli_factor 1."""
    return [key for key in typed_keys(override_args) if _present(override_args, key)]


def _present(config: Any, key: str) -> bool:
    value = get(config, key)
    return value is not None and not (key == "cli_factor" and value == 1)


def pattern_from_keys(
    override_args: Mapping, config_json: Mapping, derived: Any, num_layers: int
) -> tuple[LayerPattern, str]:
    """Pattern of a model without --index-cache-pattern.

    Args:
        override_args: parsed --json-model-override-args.
        config_json: the raw config.json.
        derived: what transformers made of both, as a config object or a dict.
        num_layers: decoder layers, without MTP layers.
    Returns:
        The pattern and its source: "<where> <key>", or `DEFAULT`.
    Raises:
        PatternError: the deciding key is malformed; nothing falls back to the next source.
    """
    typed = typed_keys(override_args)

    def below(key: str) -> Any:
        """Value from config.json, else derived; None when the user typed the key away."""
        if key in typed:
            return None
        value = get(config_json, key)
        return get(derived, key) if value is None else value

    # As in the merged config, a frequency meets the offset of any source: an offset in config.json
    # still shifts a typed frequency unless the user types another one (or null).
    offset = get(override_args, OFFSET_KEY) if OFFSET_KEY in typed else below(OFFSET_KEY)

    deciding = effective_keys(override_args)
    if deciding == [OFFSET_KEY]:
        freq = below("index_topk_freq")
        if freq is None:
            raise PatternError(
                f"{OVERRIDE}: {OFFSET_KEY} {show(offset)} shifts a frequency but there is none: "
                "type index_topk_freq as well"
            )
        return _build(OVERRIDE, OFFSET_KEY, freq, offset, num_layers), f"{OVERRIDE} {OFFSET_KEY}"
    if deciding:
        key = deciding[0]
        value = get(override_args, key)
        return _build(OVERRIDE, key, value, offset, num_layers), f"{OVERRIDE} {key}"

    for where, config in ((CONFIG_JSON, config_json), (DERIVED, derived)):
        for key in PATTERN_KEYS[:-1]:  # an offset alone shifts nothing
            if key in typed or not _present(config, key):
                continue
            value = _for_layers(get(config, key), num_layers)
            if where is DERIVED and _says_all_full(value):
                return LayerPattern.full(num_layers), DEFAULT
            return _build(where, key, value, offset, num_layers), f"{where} {key}"
    return LayerPattern.full(num_layers), DEFAULT


def _for_layers(value: Any, num_layers: int) -> Any:
    """Drop entries past the last layer: a checkpoint may list its MTP layers, or be run cut short.

    Upstream never looks at them either. A list that is too short is left alone, and refused later:
    upstream reads the missing layers as Full, which nobody wrote.
    """
    return value[:num_layers] if isinstance(value, (list, tuple, str)) else value


def _says_all_full(value: Any) -> bool:
    # transformers writes out the default too, for the layer count before any override.
    return value == 1 or (isinstance(value, (list, tuple)) and "shared" not in value)


def _build(where: str, key: str, value: Any, offset: Any, num_layers: int) -> LayerPattern:
    try:
        if key == "indexer_types":
            return LayerPattern.from_indexer_types(value, num_layers)
        if key == "cli_factor":
            return LayerPattern.from_cli_factor(value, num_layers)
        if key == "index_topk_pattern":
            return LayerPattern.from_index_topk_pattern(value, num_layers)
        return LayerPattern.from_index_topk_freq(value, offset, num_layers)
    except PatternError as error:
        raise PatternError(f"{where}: {error}") from None
