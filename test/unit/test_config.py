"""Which source decides the pattern, and what is refused or warned about before a model is built."""

import dataclasses
import json
from types import SimpleNamespace

import pytest

from sglang_ic import architectures
from sglang_ic.candidates.switch import CANDIDATE_PAGES
from sglang_ic.config import IndexCacheConfig, describe_layers, resolve
from sglang_ic.pattern import PatternError

FREQ_4 = "FFSSSFSS"  # 8 layers, no offset
FREQ_4_OFFSET_1 = "FSSSFSSS"
FREQ_4_OFFSET_3 = "FFFSSSFS"
TYPES = ["full", "shared", "full", "full", "shared", "shared", "full", "shared"]
TYPES_TEXT = "FSFFSSFS"
FULL = "FFFFFFFF"
OVERRIDE = "--json-model-override-args"


def derived_config(**keys):
    """What transformers makes of a GLM-MoE-DSA config without sharing keys."""
    base = {
        "architectures": ["GlmMoeDsaForCausalLM"],
        "index_topk": 64,
        "indexer_types": ["full"] * 8,
        "max_position_embeddings": 4096,
    }
    return SimpleNamespace(**{**base, **keys})


def run(flag=None, override=None, config_json=None, derived=None, weights=None, **keys):
    return resolve(
        flag, override or {}, config_json or {}, derived or derived_config(), 8, weights, **keys
    )


# name: (flag, override args, config.json, keys of the derived config, pattern, source)
PRECEDENCE = {
    "nothing is set": (None, {}, {}, {}, FULL, "default (all Full)"),
    "nothing is set and nothing derived": (
        None,
        {},
        {},
        {"indexer_types": None},
        FULL,
        "default (all Full)",
    ),
    "flag beats all": (
        "FSSSSSSS",
        {"index_topk_freq": 4},
        {"indexer_types": TYPES},
        {"indexer_types": TYPES},
        "FSSSSSSS",
        "--index-cache-pattern",
    ),
    "typed freq beats derived types": (
        None,
        {"index_topk_freq": 4},
        {},
        {"index_topk_freq": 4},
        FREQ_4,
        f"{OVERRIDE} index_topk_freq",
    ),
    "typed freq beats types of config.json": (
        None,
        {"index_topk_freq": 4},
        {"indexer_types": TYPES},
        {"indexer_types": TYPES},
        FREQ_4,
        f"{OVERRIDE} index_topk_freq",
    ),
    "typed freq 1 means all Full": (
        None,
        {"index_topk_freq": 1},
        {"index_topk_freq": 4},
        {"indexer_types": TYPES},
        FULL,
        f"{OVERRIDE} index_topk_freq",
    ),
    "typed pattern beats typed freq": (
        None,
        {"index_topk_freq": 4, "index_topk_pattern": "FSFSFSFS"},
        {},
        {},
        "FSFSFSFS",
        f"{OVERRIDE} index_topk_pattern",
    ),
    "typed cli_factor beats typed pattern": (
        None,
        {"index_topk_pattern": "FSFSFSFS", "cli_factor": 4},
        {},
        {},
        FREQ_4_OFFSET_1,
        f"{OVERRIDE} cli_factor",
    ),
    "typed types beat all typed": (
        None,
        {"index_topk_freq": 4, "cli_factor": 4, "index_topk_pattern": FULL, "indexer_types": TYPES},
        {},
        {},
        TYPES_TEXT,
        f"{OVERRIDE} indexer_types",
    ),
    "typed cli_factor 1 counts as absent": (
        None,
        {"cli_factor": 1, "index_topk_freq": 4},
        {},
        {},
        FREQ_4,
        f"{OVERRIDE} index_topk_freq",
    ),
    "typed cli_factor 1 switches off the one below": (
        None,
        {"cli_factor": 1},
        {"cli_factor": 4},
        {"indexer_types": None, "cli_factor": 1},
        FULL,
        "default (all Full)",
    ),
    "typed null types uncover the freq of config.json": (
        None,
        {"indexer_types": None},
        {"indexer_types": TYPES, "index_topk_freq": 4},
        {"indexer_types": None},
        FREQ_4,
        "config.json index_topk_freq",
    ),
    "typed null in all counts as nothing typed": (
        None,
        {"indexer_types": None, "cli_factor": None, "index_topk_freq": None},
        {"index_topk_pattern": "FSFSFSFS"},
        {},
        "FSFSFSFS",
        "config.json index_topk_pattern",
    ),
    "typed freq meets offset of config.json": (
        None,
        {"index_topk_freq": 4},
        {"index_skip_topk_offset": 3},
        {},
        FREQ_4_OFFSET_3,
        f"{OVERRIDE} index_topk_freq",
    ),
    "typed offset replaces the one below": (
        None,
        {"index_topk_freq": 4, "index_skip_topk_offset": 1},
        {"index_skip_topk_offset": 3},
        {},
        FREQ_4_OFFSET_1,
        f"{OVERRIDE} index_topk_freq",
    ),
    "typed null offset restores the plain rule": (
        None,
        {"index_topk_freq": 4, "index_skip_topk_offset": None},
        {"index_skip_topk_offset": 3},
        {},
        FREQ_4,
        f"{OVERRIDE} index_topk_freq",
    ),
    "typed offset alone shifts the freq of config.json": (
        None,
        {"index_skip_topk_offset": 1},
        {"index_topk_freq": 4, "index_skip_topk_offset": 3},
        {"indexer_types": TYPES},
        FREQ_4_OFFSET_1,
        f"{OVERRIDE} index_skip_topk_offset",
    ),
    "typed in text_config": (
        None,
        {"text_config": {"index_topk_freq": 4}},
        {},
        {},
        FREQ_4,
        f"{OVERRIDE} index_topk_freq",
    ),
    "config.json types beat its freq": (
        None,
        {},
        {"index_topk_freq": 4, "indexer_types": TYPES},
        {},
        TYPES_TEXT,
        "config.json indexer_types",
    ),
    "config.json freq beats derived types": (
        None,
        {},
        {"index_topk_freq": 4, "index_skip_topk_offset": 1},
        {"indexer_types": TYPES},
        FREQ_4_OFFSET_1,
        "config.json index_topk_freq",
    ),
    "config.json cli_factor": (
        None,
        {},
        {"cli_factor": 4},
        {},
        FREQ_4_OFFSET_1,
        "config.json cli_factor",
    ),
    "config.json text_config": (
        None,
        {},
        {"text_config": {"index_topk_pattern": "FSFSFSFS"}},
        {},
        "FSFSFSFS",
        "config.json index_topk_pattern",
    ),
    "config.json freq 1 is its own word": (
        None,
        {},
        {"index_topk_freq": 1},
        {},
        FULL,
        "config.json index_topk_freq",
    ),
    "config.json offset alone shifts nothing": (
        None,
        {},
        {"index_skip_topk_offset": 3},
        {},
        FULL,
        "default (all Full)",
    ),
    "config.json lists MTP layers too": (
        None,
        {},
        {"indexer_types": [*TYPES, "shared", "full"]},
        {},
        TYPES_TEXT,
        "config.json indexer_types",
    ),
    "config.json text is longer than the model": (
        None,
        {},
        {"index_topk_pattern": "FSFSFSFSFS"},
        {},
        "FSFSFSFS",
        "config.json index_topk_pattern",
    ),
    "derived types": (
        None,
        {},
        {},
        {"indexer_types": TYPES},
        TYPES_TEXT,
        "transformers indexer_types",
    ),
    "derived types for a longer model": (
        None,
        {"num_hidden_layers": 8},
        {},
        {"indexer_types": TYPES * 2},
        TYPES_TEXT,
        "transformers indexer_types",
    ),
    "derived all Full for a shorter model": (
        None,
        {"num_hidden_layers": 8},
        {},
        {"indexer_types": ["full"] * 4},
        FULL,
        "default (all Full)",
    ),
    "derived in text_config": (
        None,
        {},
        {},
        {"indexer_types": None, "text_config": SimpleNamespace(index_topk_freq=4)},
        FREQ_4,
        "transformers index_topk_freq",
    ),
}


@pytest.mark.parametrize("name", PRECEDENCE)
def test_source_that_decides(name):
    flag, override, config_json, derived_keys, pattern, source = PRECEDENCE[name]
    config = run(flag, override, config_json, derived_config(**derived_keys))
    assert (config.pattern.text, config.source) == (pattern, source)


REFUSED_KEYS = {
    "typed freq 0": ({"index_topk_freq": 0}, {}, "index_topk_freq 0"),
    "typed freq as text": ({"index_topk_freq": "4"}, {}, "index_topk_freq '4'"),
    "typed offset 0": (
        {"index_topk_freq": 4, "index_skip_topk_offset": 0},
        {},
        "index_skip_topk_offset 0",
    ),
    "typed offset without any freq": ({"index_skip_topk_offset": 3}, {}, "there is none"),
    "typed offset beside a freq typed away": (
        {"index_topk_freq": None, "index_skip_topk_offset": 1},
        {"index_topk_freq": 4},
        "type index_topk_freq as well",
    ),
    "typed offset on a pattern": (
        {"index_skip_topk_offset": 3},
        {"index_topk_pattern": "FSFSFSFS"},
        "index_topk_freq",
    ),
    "typed cli_factor 0": ({"cli_factor": 0}, {}, "cli_factor 0"),
    "typed pattern is short": ({"index_topk_pattern": "FSFS"}, {}, "'FSFS' has 4 letters"),
    "typed pattern is long": ({"index_topk_pattern": "FSFSFSFSF"}, {}, "9 letters"),
    "typed pattern is empty": ({"index_topk_pattern": ""}, {}, "''"),
    "typed pattern is a list": ({"index_topk_pattern": ["F"] * 8}, {}, "list"),
    "typed types are long": ({"indexer_types": [*TYPES, "full"]}, {}, "9 entries"),
    "config.json pattern starts Shared": ({}, {"index_topk_pattern": "SSFFSSFF"}, "'SSFFSSFF'"),
    "config.json types are short": ({}, {"indexer_types": TYPES[:5]}, "5 entries"),
    "config.json freq is negative": ({}, {"index_topk_freq": -1}, "index_topk_freq -1"),
}


@pytest.mark.parametrize("name", REFUSED_KEYS)
def test_malformed_key_is_refused_and_nothing_falls_back(name):
    override, config_json, named = REFUSED_KEYS[name]
    with pytest.raises(PatternError) as caught:
        run(override=override, config_json=config_json)
    message = str(caught.value)
    assert named in message
    assert message.startswith(f"{OVERRIDE}: " if override else "config.json: ")
    assert "\n" not in message


def test_derived_list_that_is_too_short_is_refused():
    with pytest.raises(PatternError, match="^transformers: .*4 entries"):
        run(derived=derived_config(indexer_types=TYPES[:4]))


def test_malformed_flag_names_the_flag():
    with pytest.raises(PatternError, match="^--index-cache-pattern: .*'FSFS' has 4 letters"):
        run("FSFS")


def test_result_does_not_depend_on_the_form_of_the_derived_config():
    derived = derived_config(indexer_types=TYPES)
    assert run(derived=derived) == run(derived=vars(derived))


SHARED_WEIGHTS = frozenset({0, 2, 3, 6, 8})  # TYPES, and one MTP layer


def test_full_layer_without_weights_is_refused():
    with pytest.raises(PatternError) as caught:
        run("FFFFFSFS", weights=SHARED_WEIGHTS)
    message = str(caught.value)
    assert message.startswith("--index-cache-pattern: layers 1, 4 cannot be Full")
    assert "only on layers 0, 2-3, 6 " in message
    assert "the weights, not indexer_types, decide what may be Full" in message
    assert message.endswith(TYPES_TEXT), "the repair is a pattern that this checkpoint can run"
    assert run(message.split()[-1], weights=SHARED_WEIGHTS).pattern.text == TYPES_TEXT


@pytest.mark.parametrize(
    ("config_json", "derived_keys", "source"),
    [
        ({}, {}, "default (all Full)"),
        ({"indexer_types": ["full"] * 8}, {}, "config.json indexer_types"),
        ({}, {"indexer_types": [*TYPES[:7], "full"]}, "transformers indexer_types"),
    ],
)
def test_full_layer_without_weights_is_refused_whoever_said_it(config_json, derived_keys, source):
    with pytest.raises(PatternError) as caught:
        run(config_json=config_json, derived=derived_config(**derived_keys), weights=SHARED_WEIGHTS)
    assert str(caught.value).startswith(f"{source}: ")


def test_fewer_full_layers_than_weights_are_fine():
    config = run("FSSSSSFS", weights=SHARED_WEIGHTS)
    assert config.indexer_layers == {0, 2, 3, 6}, "MTP layers have no role"


def test_checkpoint_without_any_indexer_cannot_run():
    with pytest.raises(PatternError, match="on no layer .*cannot run"):
        run("FSSSSSSS", weights=frozenset())


def test_unknown_weights_are_not_checked():
    assert run("full", weights=None).indexer_layers is None


def test_build_all_needs_every_indexer():
    override = {"index_cache_build": "all"}
    assert run("freq:4", override, weights=range(8)).build == "all"
    assert run("freq:4", override, weights=None).build == "all"
    assert run("freq:4", weights=range(8)).build == "pattern"
    with pytest.raises(PatternError, match="index_cache_build 'all' lacks .* layers 1, 4-5, 7,"):
        run(TYPES_TEXT, override, weights=SHARED_WEIGHTS)


@pytest.mark.parametrize("build", ["none", "", 1, True, ["all"]])
def test_unknown_build_is_refused(build):
    with pytest.raises(PatternError, match="index_cache_build .*use pattern or all"):
        run(override={"index_cache_build": build})


@pytest.mark.parametrize("architecture", architectures.COVERED)
def test_covered_architecture_takes_a_flag(architecture):
    config = run("freq:4", derived=derived_config(architectures=[architecture]))
    assert (config.architecture, config.pattern.text) == (architecture, FREQ_4)


@pytest.mark.parametrize("architecture", [*architectures.NOT_COVERED, "LlamaForCausalLM", None])
def test_uncovered_architecture_refuses_a_flag_by_name_and_is_else_left_alone(architecture):
    derived = derived_config(architectures=architecture and [architecture])
    with pytest.raises(PatternError, match=architecture or "names no architecture") as caught:
        run("freq:4", derived=derived)
    assert "\n" not in str(caught.value)
    assert run(derived=derived) is None
    assert run(override={"index_topk_freq": 4}, derived=derived) is None
    with pytest.raises(PatternError, match="index_cache_build"):
        run(override={"index_cache_build": "all"}, derived=derived)


def test_model_without_index_topk_has_nothing_to_share():
    derived = derived_config(architectures=["DeepseekV3ForCausalLM"], index_topk=None)
    assert run(derived=derived) is None
    with pytest.raises(PatternError, match="DeepseekV3ForCausalLM without index_topk"):
        run("freq:4", derived=derived)


def test_every_class_upstream_calls_dsa_has_a_word_here():
    """A new upstream release may add classes: decide for each whether it is covered."""
    import ast
    import importlib.util
    from pathlib import Path

    if importlib.util.find_spec("sglang") is None:
        pytest.skip("sglang is not installed")
    (root,) = importlib.util.find_spec("sglang").submodule_search_locations
    tree = ast.parse(Path(root, "srt/configs/model_config.py").read_text())
    (body,) = [node for node in tree.body if getattr(node, "name", "") == "is_deepseek_dsa"]
    names = {node.value for node in ast.walk(body) if isinstance(node, ast.Constant)}
    theirs = {name for name in names if isinstance(name, str) and name[0].isupper()}
    assert theirs == {*architectures.COVERED, *architectures.NOT_COVERED}


def test_architecture_and_index_topk_fall_back_to_config_json():
    config_json = {"architectures": ["DeepseekV32ForCausalLM"], "index_topk": 2048}
    config = resolve(None, {}, config_json, {}, 8, None)
    assert (config.architecture, config.index_topk) == ("DeepseekV32ForCausalLM", 2048)


@pytest.mark.parametrize(
    ("context_length", "max_position", "warned"),
    [(64, 4096, True), (65, 64, False), (None, 64, True), (None, 65, False), (None, None, False)],
)
def test_short_context_warns_that_the_pattern_changes_nothing(context_length, max_position, warned):
    derived = derived_config(max_position_embeddings=max_position)
    config = run("freq:4", derived=derived, context_length=context_length)
    assert bool(config.warnings) is warned
    if warned:
        assert "context length 64" in config.warnings[0] and "index_topk 64" in config.warnings[0]
    assert run("full", derived=derived, context_length=context_length).warnings == ()


@pytest.mark.parametrize(
    ("flag", "override", "unused"),
    [
        ("freq:4", {"index_topk_freq": 2}, "index_topk_freq of"),
        (None, {"index_topk_freq": 2, "indexer_types": TYPES}, "index_topk_freq of"),
        (None, {"index_topk_freq": 2, "index_skip_topk_offset": 1}, None),
        (None, {"index_topk_freq": 2, "cli_factor": 1}, None),
        ("freq:4", {"index_topk": 64}, None),
    ],
)
def test_typed_key_that_is_not_used_is_warned_about(flag, override, unused):
    warnings = run(flag, override).warnings
    assert (warnings == ()) if unused is None else (unused in warnings[0])


def test_config_is_frozen():
    config = run("freq:4")
    assert isinstance(config, IndexCacheConfig)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.build = "all"


def test_as_dict_is_json_and_complete():
    assert json.loads(json.dumps(run("freq:4,offset:1").as_dict())) == {
        "pattern": FREQ_4_OFFSET_1,
        "num_layers": 8,
        "num_full": 2,
        "num_shared": 6,
        "num_candidate": 0,
        "candidate_pages": None,
        "owners": [0, 0, 0, 0, 4, 4, 4, 4],
        "source": "--index-cache-pattern",
        "index_topk": 64,
        "build": "pattern",
    }


def test_log_line_is_one_line_with_pattern_source_and_counts():
    line = run("freq:4", {"index_cache_build": "all"}).log_line()
    assert "\n" not in line
    for part in (FREQ_4, "--index-cache-pattern", "freq:4", "3 Full", "5 Shared", "all layers"):
        assert part in line
    assert (
        "transformers indexer_types" in run(derived=derived_config(indexer_types=TYPES)).log_line()
    )


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        ([], "no layer"),
        ([3], "layer 3"),
        ([3, 4], "layers 3-4"),
        ([6, 0, 1, 2], "layers 0-2, 6"),
    ],
)
def test_layers_are_described_in_runs(layers, text):
    assert describe_layers(layers) == text


def test_candidate_layers_are_refused_unless_the_environment_allows_them(monkeypatch):
    monkeypatch.delenv(CANDIDATE_PAGES, raising=False)
    with pytest.raises(PatternError, match=f"--index-cache-pattern: .* set {CANDIDATE_PAGES}"):
        run("FCSCFCSC")
    monkeypatch.setenv(CANDIDATE_PAGES, "16")
    with pytest.raises(PatternError, match=f"{CANDIDATE_PAGES}=16 is too small for index_topk 64"):
        run("FCSCFCSC")


def test_candidate_layers_are_called_approximate_everywhere(monkeypatch):
    monkeypatch.setenv(CANDIDATE_PAGES, "24")
    config = run("FCSCFCSC")
    assert (config.candidate_pages, config.as_dict()["candidate_pages"]) == (24, 24)
    assert (config.as_dict()["num_full"], config.as_dict()["num_candidate"]) == (2, 4)
    assert config.warnings[0].startswith(f"APPROXIMATE RESULTS ({CANDIDATE_PAGES}=24)")
    assert "layers 1, 3, 5, 7 score 24 pages of 64 tokens" in config.warnings[0]
    for part in ("4 candidate (APPROXIMATE), 2 Full and 2 Shared", "on Full and candidate layers"):
        assert part in config.log_line()


def test_the_environment_changes_nothing_without_candidate_layers(monkeypatch):
    for flag in (None, "full", "FFSSFFSS"):
        monkeypatch.delenv(CANDIDATE_PAGES, raising=False)
        plain = run(flag)
        for value in ("24", "many"):
            monkeypatch.setenv(CANDIDATE_PAGES, value)
            assert run(flag) == plain and run(flag).log_line() == plain.log_line()


def test_a_candidate_layer_without_indexer_weights_is_refused(monkeypatch):
    monkeypatch.setenv(CANDIDATE_PAGES, "24")
    with pytest.raises(PatternError, match="layer 3 cannot be Full or candidate"):
        run("FCSCFCSC", weights={0, 1, 2, 4, 5, 6, 7})
