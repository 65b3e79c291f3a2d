"""Layer roles: every way to write a pattern, and what it says about each layer."""

import ast
import importlib.util
import json
from dataclasses import FrozenInstanceError
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_ic.pattern import LayerPattern, PatternError
from sglang_ic.pattern_file import presets

texts = st.text("FS", max_size=90).map(lambda tail: "F" + tail)
freqs = st.integers(1, 100)
offsets = st.none() | st.integers(1, 100)
layer_counts = st.integers(1, 100)


def freq_flag(freq, offset):
    return f"freq:{freq}" if offset is None else f"freq:{freq},offset:{offset}"


def reference_freq_roles(freq, offset, num_layers):
    """The frequency rule told as a story: a Full head, then one Full layer in every `freq`."""
    last_of_head = 1 if offset is None else offset - 1
    roles = []
    since_full = 0
    for layer in range(num_layers):
        if layer <= last_of_head or since_full == freq - 1:
            roles.append("F")
            since_full = 0
        else:
            roles.append("S")
            since_full += 1
    return "".join(roles)


@given(texts)
def test_text_round_trips(text):
    pattern = LayerPattern.parse(text, len(text))
    assert str(pattern) == pattern.text == text
    assert pattern.source == "text"
    assert LayerPattern.from_indexer_types(pattern.indexer_types, len(text)) == pattern
    assert LayerPattern.from_index_topk_pattern(text, len(text)) == pattern


@given(texts)
def test_owner_is_nearest_full_layer_at_or_below(text):
    pattern = LayerPattern.parse(text, len(text))
    assert pattern.owners == tuple(pattern.owner_of(layer) for layer in range(len(text)))
    for layer in range(len(text)):
        owner = pattern.owner_of(layer)
        assert owner <= layer
        assert pattern.is_full(owner)
        assert not any(pattern.is_full(between) for between in range(owner + 1, layer + 1))
        assert pattern.is_full(layer) == (owner == layer)


@given(texts)
def test_counts_add_up(text):
    pattern = LayerPattern.parse(text, len(text))
    assert pattern.num_full + pattern.num_shared == pattern.num_layers == len(text)
    assert pattern.num_full == len(pattern.full_layers) == len(set(pattern.owners))
    assert pattern.indexer_types.count("shared") == pattern.num_shared


@given(freqs, offsets, layer_counts)
def test_freq_equals_reference_rule(freq, offset, num_layers):
    pattern = LayerPattern.parse(freq_flag(freq, offset), num_layers)
    assert pattern.text == reference_freq_roles(freq, offset, num_layers)
    assert pattern == LayerPattern.from_index_topk_freq(freq, offset, num_layers)
    assert pattern.source == freq_flag(freq, offset)


@pytest.fixture(scope="module")
def upstream_skips_topk():
    """`dsa_layer_skips_topk` cut out of the installed SGLang, without importing its kernels."""
    if importlib.util.find_spec("sglang") is None:
        pytest.skip("sglang is not installed")
    (root,) = importlib.util.find_spec("sglang").submodule_search_locations
    tree = ast.parse(Path(root, "srt/configs/model_config.py").read_text())
    body = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == "dsa_layer_skips_topk"
    ]
    assert body, "upstream moved dsa_layer_skips_topk: find the rule and re-check pattern_text.py"
    scope = {"PretrainedConfig": object, "is_deepseek_dsa": lambda config: True}
    exec(compile(ast.Module(body, []), "model_config.py", "exec"), scope)
    return scope["dsa_layer_skips_topk"]


def upstream_text(skips_topk, num_layers, **keys):
    config = SimpleNamespace(**keys)
    return "".join("S" if skips_topk(config, layer) else "F" for layer in range(num_layers))


@given(freqs, offsets, layer_counts)
def test_freq_equals_upstream(upstream_skips_topk, freq, offset, num_layers):
    keys = {"index_topk_freq": freq, "index_skip_topk_offset": offset}
    theirs = upstream_text(upstream_skips_topk, num_layers, **keys)
    assert LayerPattern.parse(freq_flag(freq, offset), num_layers).text == theirs


@given(texts, st.integers(2, 20))
def test_other_keys_equal_upstream(upstream_skips_topk, text, factor):
    num_layers = len(text)
    types = ["full" if letter == "F" else "shared" for letter in text]
    ours = LayerPattern.from_indexer_types(types, num_layers).text
    assert ours == upstream_text(upstream_skips_topk, num_layers, indexer_types=types)
    ours = LayerPattern.from_index_topk_pattern(text, num_layers).text
    assert ours == upstream_text(upstream_skips_topk, num_layers, index_topk_pattern=text)
    ours = LayerPattern.from_cli_factor(factor, num_layers).text
    assert ours == upstream_text(upstream_skips_topk, num_layers, cli_factor=factor)


def test_freq_without_offset_starts_with_two_full_layers():
    assert LayerPattern.parse("freq:4", 10).text == "FFSSSFSSSF"
    assert LayerPattern.parse("freq:4,offset:1", 10).text == "FSSSFSSSFS"
    assert LayerPattern.parse("freq:4,offset:3", 10).text == "FFFSSSFSSS"


def test_full_makes_every_layer_full():
    pattern = LayerPattern.parse("full", 5)
    assert (pattern.text, pattern.source, pattern.num_shared) == ("FFFFF", "full", 0)
    assert LayerPattern.parse("freq:1", 5) == pattern


@pytest.mark.parametrize("name", presets())
def test_preset_is_consistent(name):
    entry = presets()[name]
    pattern = LayerPattern.parse(f"preset:{name}", entry["num_layers"])
    assert pattern.source == f"preset:{name}"
    assert pattern.num_full == entry["num_full"]
    assert entry["source"]


def test_glm_5_2_preset_follows_its_published_rule():
    pattern = LayerPattern.parse("preset:glm-5.2", 78)
    assert pattern.full_layers == (0, 1, 2, *range(6, 78, 4))
    assert pattern == LayerPattern.parse("freq:4,offset:3", 78)


def test_equality_ignores_where_a_pattern_came_from():
    assert LayerPattern("FSFS") == LayerPattern.parse("freq:2,offset:1", 4)
    assert hash(LayerPattern("FS", "a")) == hash(LayerPattern("FS", "b"))


def test_pattern_is_frozen_and_always_valid():
    with pytest.raises(FrozenInstanceError):
        LayerPattern("FS").text = "FF"
    with pytest.raises(PatternError):
        LayerPattern("SF")
    with pytest.raises(PatternError):
        LayerPattern(["F", "S"])


@pytest.mark.parametrize("layer", [-1, 4, 61])
def test_layer_outside_the_model_is_refused(layer):
    pattern = LayerPattern("FSFS")
    with pytest.raises(IndexError, match=str(layer)):
        pattern.is_full(layer)
    with pytest.raises(IndexError, match=str(layer)):
        pattern.owner_of(layer)


def write(path, **document):
    path.write_text(json.dumps(document))
    return str(path)


def test_file_with_one_pattern_needs_no_selection(tmp_path):
    file = write(tmp_path / "p.json", num_layers=4, patterns={"2": "FSFS"}, model="m", data={})
    pattern = LayerPattern.parse(file, 4)
    assert (pattern.text, pattern.source) == ("FSFS", f"file:{file}")


def test_file_selects_by_full_count(tmp_path):
    file = write(tmp_path / "p.json", num_layers=4, patterns={"1": "FSSS", "2": "FSFS"})
    assert LayerPattern.parse(f"{file}@1", 4).text == "FSSS"
    assert LayerPattern.parse(f"{file}@2", 4).source == f"file:{file}@2"


def test_file_default_pattern_wins_when_none_is_selected(tmp_path):
    file = write(
        tmp_path / "p.json", num_layers=4, pattern="FFSS", patterns={"1": "FSSS", "3": "FFFS"}
    )
    assert LayerPattern.parse(file, 4).text == "FFSS"
    assert LayerPattern.parse(f"{file}@3", 4).text == "FFFS"
    assert LayerPattern.parse(f"{file}@2", 4).text == "FFSS"


def test_file_may_have_at_signs_in_its_path(tmp_path):
    folder = tmp_path / "run@7"
    folder.mkdir()
    plain = write(folder / "pattern", num_layers=2, pattern="FS")
    odd = write(folder / "a@3.json", num_layers=2, pattern="FS")
    for given_text in (plain, f"{plain}@1", odd, f"{odd}@1"):
        assert LayerPattern.parse(given_text, 2).text == "FS"


def test_file_name_without_folder_is_read(tmp_path, monkeypatch):
    write(tmp_path / "found.json", num_layers=2, pattern="FS")
    monkeypatch.chdir(tmp_path)
    assert LayerPattern.parse("found.json@1", 2).text == "FS"


@given(st.text("FSC", min_size=1, max_size=80).map(lambda rest: "F" + rest))
def test_a_candidate_layer_owns_its_selection_and_is_full_to_upstream(text):
    pattern = LayerPattern(text)
    assert pattern.num_full + pattern.num_candidate + pattern.num_shared == len(text)
    assert pattern.indexer_types.count("full") == pattern.num_full + pattern.num_candidate
    assert pattern.owners == LayerPattern(text.replace("C", "F")).owners
    assert set(pattern.indexer_layers) == set(pattern.owners)
    for layer, letter in enumerate(text):
        roles = pattern.is_full(layer), pattern.is_candidate(layer), pattern.runs_indexer(layer)
        assert roles == (letter == "F", letter == "C", letter != "S")


def test_a_candidate_layer_has_no_layer_before_layer_0():
    with pytest.raises(PatternError, match="starts with C: layer 0 has no layer below"):
        LayerPattern("CFFF")


def test_upstreams_key_takes_no_candidate_layers():
    with pytest.raises(PatternError, match="index_topk_pattern 'FC' has C .* Full to SGLang"):
        LayerPattern.from_index_topk_pattern("FC", 2)
