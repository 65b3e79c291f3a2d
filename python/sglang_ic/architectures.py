"""Which DSA model classes take a pattern from us, and why the others do not.

SGLang calls fifteen model classes DeepSeek-style sparse attention (DSA). Roles are wired through
the decoder loop of `deepseek_v2.py`, so the classes that run that loop with their layers in
order are covered. A class that is not covered keeps whatever sharing SGLang gives it; only a
pattern that the user asks for is refused, because accepting it would change nothing or change
the wrong layers.
"""

COVERED: dict[str, str] = {
    "DeepseekV32ForCausalLM": "DeepSeek-V3.2",
    "GlmMoeDsaForCausalLM": "GLM-5, GLM-5.2 and the GLM-4.7-Flash DSA shape",
    "DeepseekV3ForCausalLM": "DeepSeek-V3 checkpoints whose config.json sets index_topk",
}

_DRAFT = "a draft head takes its first top-k from the target model and has no pattern of its own"

NOT_COVERED: dict[str, str] = {
    "LongcatFlashForCausalLM": "its own model file shares by cli_factor, two attentions per layer",
    "Glm5NextForConditionalGeneration": "its own decoder loop carries the top-k",
    "HYV4ForCausalLM": "its own decoder loop carries the top-k",
    "Dots3NoteForCausalLM": "its own attention runs the indexer on every sparse layer",
    "MistralLarge3ForCausalLM": "its checkpoints use other weight names; sharing was never shown",
    "PixtralForConditionalGeneration": "wraps MistralLarge3 or Mistral; sharing was never shown",
    "DeepseekV3ForCausalLMNextN": _DRAFT,
    "GlmMoeDsaForCausalLMNextN": _DRAFT,
    "Glm5NextForConditionalGenerationNextN": _DRAFT,
    "LongcatFlashForCausalLMNextN": _DRAFT,
    "Dots3NoteForCausalLMNextN": _DRAFT,
    "HYV4ForCausalLMNextN": _DRAFT,
}


def refusal(architecture: str | None, index_topk: int | None) -> str | None:
    """Why this model takes no pattern from us, as one line; None when it does.

    Args:
        architecture: first entry of `architectures` in the model's config, None when it lists none.
        index_topk: tokens each query attends to, None when the model has no indexer.
    """
    if architecture in NOT_COVERED:
        return f"{architecture} is not covered: {NOT_COVERED[architecture]}"
    if architecture not in COVERED:
        name = architecture or "a model that names no architecture"
        return f"{name} is not a DSA model; covered: {', '.join(COVERED)}"
    if index_topk is None:
        return f"{architecture} without index_topk in its config has no indexer to share"
    return None
