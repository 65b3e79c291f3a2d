"""What is known of a model before it is loaded: from its config.json and its tensor names."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sglang_ic.architectures import refusal
from sglang_ic.checkpoint import indexer_layers, read_config_json
from sglang_ic.evaluate.arms import own_pattern
from sglang_ic.pattern import LayerPattern, PatternError
from sglang_ic.server import arguments

OVERRIDE_FLAG = "--json-model-override-args"


@dataclass(frozen=True)
class ModelFacts:
    """The part of a checkpoint that a plan depends on."""

    path: str
    architecture: str
    num_layers: int
    index_topk: int
    context_length: int | None
    own_pattern: LayerPattern | None  # of a checkpoint that ships trained sharing


def model_facts(model_path: str, server_argv: Sequence[str]) -> ModelFacts:
    """Read config.json and the tensor names; keys typed in the override arguments win.

    Raises:
        ValueError: not a model that takes a pattern, or override arguments that are no object.
        OSError: there is no such model.
    """
    given = arguments.value_of(list(server_argv), OVERRIDE_FLAG) or "{}"
    typed = json.loads(arguments.override_args(None, given, bundled_model=False))
    config = {**read_config_json(model_path), **typed}
    architecture = (config.get("architectures") or ["an unknown class"])[0]
    reason = refusal(architecture, config.get("index_topk"))
    if reason is not None:
        raise PatternError(f"--model-path {model_path!r}: {reason}")
    num_layers = config["num_hidden_layers"]
    return ModelFacts(
        path=model_path,
        architecture=architecture,
        num_layers=num_layers,
        index_topk=config["index_topk"],
        context_length=config.get("max_position_embeddings"),
        own_pattern=own_pattern(indexer_layers(model_path), num_layers),
    )
