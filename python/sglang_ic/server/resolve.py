"""Resolve the pattern of every ``ModelConfig`` that SGLang builds, in every process.

SGLang reads the model's config again in each process from the model path and
``--json-model-override-args``. Our flag travels in those arguments under ``FLAG_KEY``, so every
process resolves the same pattern from the same inputs. The result is written back in upstream's
own words (``indexer_types``), which upstream's policy function ``dsa_layer_skips_topk`` prefers
over everything else; pools, loaders and pipeline buffers therefore agree without a patch.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from sglang_ic.checkpoint import indexer_layers, read_config_json
from sglang_ic.config import BUILD_KEY, IndexCacheConfig, resolve
from sglang_ic.pattern import PatternError

# Keys of ours inside --json-model-override-args: the flag, and what the bundled model runs when
# nothing was said about its layers.
FLAG_KEY = "index_cache_pattern"
DEFAULT_KEY = "index_cache_default_pattern"
DEFAULT_SOURCE = "default of the bundled model"


def resolve_model_config(_result: None, model_config: Any, *_args: Any, **_kwargs: Any) -> None:
    """AFTER hook on ``ModelConfig.__init__``: put the resolved pattern on the HF config.

    Raises:
        PatternError: a pattern that this model cannot take.
    """
    overrides = dict(model_config.model_override_args)
    flag = overrides.pop(FLAG_KEY, None)
    default = overrides.pop(DEFAULT_KEY, None)
    if model_config.is_draft_model:
        flag = default = None  # a draft has its own layers; our keys are about the target
        overrides.pop(BUILD_KEY, None)
    hf_config, text_config = model_config.hf_config, model_config.hf_text_config
    path, revision = model_config.model_path, model_config.revision
    config = resolve(
        flag=default if flag is None else flag,
        override_args=overrides,
        config_json=read_config_json(path, revision),
        derived=text_config,
        num_layers=text_config.num_hidden_layers,
        indexer_layers=indexer_layers(path, revision),
        context_length=model_config.context_len,
    )
    if config is not None:
        if flag is None and default is not None:
            config = dataclasses.replace(config, source=DEFAULT_SOURCE)
        for target in {id(c): c for c in (hf_config, text_config)}.values():
            write_back(config, target)


def write_back(config: IndexCacheConfig, hf_config: Any) -> None:
    """Say the resolved pattern in upstream's words, once, and keep ours beside it.

    With ``build`` "all" upstream sees every layer as Full, so it builds every indexer and every
    index-K buffer; the roles come from ``hf_config.index_cache`` alone.
    """
    build_all = config.build == "all"
    hf_config.indexer_types = (
        ["full"] * config.pattern.num_layers if build_all else list(config.pattern.indexer_types)
    )
    # Two places of upstream look at the raw fields before indexer_types; leave them nothing else.
    for name, neutral in (("cli_factor", 1), ("index_topk_pattern", None), ("index_topk_freq", 1)):
        if hasattr(hf_config, name):
            setattr(hf_config, name, neutral)
    hf_config.index_cache = {
        **config.as_dict(),
        "log_line": config.log_line(),
        "warnings": list(config.warnings),
    }


def check_server_args(server_args: Any, previous: Any) -> None:
    """Resolution hook around ``handle_model_specific_adjustments``: refuse what clashes.

    Raises:
        PatternError: the pattern cannot be combined with another flag.
    """
    from sglang.srt.arg_groups.model_override_base import model_config_of
    from sglang.srt.arg_groups.overrides import resolving_view

    from sglang_ic.server.compat import facts_of, refusal

    model_config = model_config_of(server_args)
    resolved = getattr(model_config.hf_config, "index_cache", None)
    if resolved is not None:
        reason = refusal(resolved, facts_of(resolving_view(server_args)))
        if reason is not None:
            raise PatternError(reason)
    previous(server_args)
