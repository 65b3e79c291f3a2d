"""Every malformed pattern is refused, in one line of its own that names the offending value."""

import json

import pytest

from sglang_ic.pattern import LayerPattern, PatternError

LAYERS = 8

# (what the user wrote, what the message must name). Read for a model with 8 layers.
TEXTS = [
    ("", "''"),
    (" ", "' '"),
    ("\n", "'\\n'"),
    (" FSFSFSFS", "' FSFSFSFS'"),
    ("FSFSFSFS\n", "'FSFSFSFS\\n'"),
    ("FSFS FSFS", "'FSFS FSFS'"),
    ("F,S,F,S,", "','"),
    ("SFFFFFFF", "starts with S"),
    ("SSSSSSSS", "'SSSSSSSS'"),
    ("S", "'S'"),
    ("F", "1 letters"),
    ("FSFS", "4 letters but the model has 8 layers"),
    ("FSFSFSF", "7 letters but the model has 8 layers"),
    ("FSFSFSFSF", "9 letters but the model has 8 layers"),
    ("F" * 300, "300 letters but the model has 8 layers"),
    ("fsfsfsfs", "'fsfsfsfs'"),
    ("Fsfsfsfs", "'Fsfsfsfs'"),
    ("FCFCFCFc", "lower-case"),
    ("CFFFFFFF", "starts with C"),
    ("FCSCFCSC", "SGLANG_IC_APPROXIMATE_CANDIDATE_PAGES"),
    ("FSFSFSFs", "'FSFSFSFs'"),
    ("FSFSXSFS", "'X' at position 4"),
    ("FSFS-FSF", "'-' at position 4"),
    ("10101010", "'1' at position 0"),
    ("FFFFFFFＦ", "'Ｆ' at position 7"),
    ("FSFSFSF\x00", "'\\x00' at position 7"),
    ("Full", "'Full'"),
    ("FULL", "'FULL'"),
    ("none", "'none'"),
    ("full,full", "'full,full'"),
    ('["F","S"]', '\'["F","S"]\''),
    ("freq", "'freq'"),
    ("freq=4", "'freq=4'"),
    ("Freq:4", "'Freq:4'"),
    ("4", "'4'"),
    ("preset", "'preset'"),
]
FREQUENCIES = [
    ("freq:", "''"),
    ("freq:0", "'0'"),
    ("freq:-4", "'-4'"),
    ("freq:4.0", "'4.0'"),
    ("freq:1/4", "'1/4'"),
    ("freq:four", "'four'"),
    ("freq: 4", "' 4'"),
    ("freq:+4", "'+4'"),
    ("freq:٤", "'٤'"),
    ("freq:12345678901", "'12345678901'"),
    ("freq:4,", "''"),
    ("freq:4,offset", "'offset'"),
    ("freq:4,offset=1", "'offset=1'"),
    ("freq:4,offset:", "'freq:4,offset:'"),
    ("freq:4,offset:0", "'0'"),
    ("freq:4,offset:-1", "'-1'"),
    ("freq:4,offset:x", "'x'"),
    ("freq:4, offset:1", "' offset:1'"),
    ("freq:4,skip:1", "'skip:1'"),
    ("freq:4,offset:1,offset:1", "twice"),
    ("freq:offset:1", "'offset:1'"),
]
PRESETS = [
    ("preset:", "''"),
    ("preset:glm-5", "'glm-5'"),
    ("preset:GLM-5-1/4", "'GLM-5-1/4'"),
    ("preset:glm-5-1/4 ", "'glm-5-1/4 '"),
    ("preset:deepseek-v3.2", "'deepseek-v3.2'"),
    ("preset:glm-5-1/4", "is for 78 layers, the model has 8"),
    ("preset:30b-a3b-1/2", "is for 47 layers, the model has 8"),
]
VALUES = [
    (None, "None"),
    (4, "4 is a int"),
    (True, "True"),
    (4.0, "4.0"),
    (b"FSFSFSFS", "b'FSFSFSFS'"),
    (["F", "S"] * 4, "is a list"),
    (("F", "S"), "is a tuple"),
    ({"freq": 4}, "{'freq': 4}"),
]

# (file name, content as JSON or raw bytes, selection, what the message must name besides the path).
GOOD = {"num_layers": LAYERS, "patterns": {"1": "FSSSSSSS", "4": "FSFSFSFS"}}
FILES = [
    ("missing.json", None, "", "No such file"),
    ("folder.json", "folder", "", "Is a directory"),
    ("empty.json", b"", "", "not valid JSON"),
    ("cut.json", b'{"num_layers": 8,', "", "not valid JSON"),
    ("binary.json", b"\xff\xfe\x00", "", "not valid JSON"),
    ("digits.json", b"1" * 5000, "", "not valid JSON"),
    ("deep.json", b"[" * 200_000, "", "not valid JSON"),
    ("list.json", ["FSFSFSFS"], "", "holds a list"),
    ("text.json", "FSFSFSFS", "", "holds a str"),
    ("null.json", b"null", "", "holds a NoneType"),
    ("no_layers.json", {"pattern": "FSFSFSFS"}, "", "no num_layers"),
    ("layers_text.json", {**GOOD, "num_layers": "8"}, "", "'8'"),
    ("layers_bool.json", {**GOOD, "num_layers": True}, "", "True"),
    ("layers_float.json", {**GOOD, "num_layers": 8.0}, "", "8.0"),
    ("layers_zero.json", {**GOOD, "num_layers": 0}, "", "0"),
    ("other_model.json", {"num_layers": 47, "pattern": "F" * 47}, "", "47 layers but the model"),
    ("neither.json", {"num_layers": 8, "model": "m"}, "", "model, num_layers"),
    ("patterns_empty.json", {"num_layers": 8, "patterns": {}}, "", "empty patterns"),
    ("patterns_list.json", {"num_layers": 8, "patterns": ["FSFSFSFS"]}, "", "list"),
    ("patterns_null.json", {"num_layers": 8, "patterns": None}, "", "None"),
    ("patterns_text.json", {"num_layers": 8, "patterns": "FSFSFSFS"}, "", "'FSFSFSFS'"),
    ("entry_list.json", {"num_layers": 8, "patterns": {"4": ["F"]}}, "", "['F']"),
    ("entry_short.json", {"num_layers": 8, "patterns": {"2": "FSFS"}}, "", "4 letters"),
    ("entry_shared.json", {"num_layers": 8, "patterns": {"4": "SFSFSFSF"}}, "", "starts with S"),
    ("entry_lower.json", {"num_layers": 8, "patterns": {"4": "fsfsfsfs"}}, "", "'fsfsfsfs'"),
    ("wrong_key.json", {"num_layers": 8, "patterns": {"3": "FSFSFSFS"}}, "", "'3'"),
    ("odd_key.json", {"num_layers": 8, "patterns": {"four": "FSFSFSFS"}}, "", "'four'"),
    ("single_null.json", {"num_layers": 8, "pattern": None}, "", "None"),
    ("single_empty.json", {"num_layers": 8, "pattern": ""}, "", "''"),
    ("single_word.json", {"num_layers": 8, "pattern": "freq:4"}, "", "'freq:4'"),
    ("several.json", GOOD, "", "select one of 1, 4"),
    ("absent.json", GOOD, "@2", "2 Full layers: select one of 1, 4"),
    ("select_none.json", GOOD, "@", "''"),
    ("select_zero.json", GOOD, "@0", "'0'"),
    ("select_negative.json", GOOD, "@-1", "'-1'"),
    ("select_word.json", GOOD, "@half", "'half'"),
    ("select_float.json", GOOD, "@4.0", "'4.0'"),
]


@pytest.fixture
def given_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content, _, _ in FILES:
        if content == "folder":
            (tmp_path / name).mkdir()
        elif isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        elif content is not None:
            (tmp_path / name).write_text(json.dumps(content))


def refusal_of(given):
    with pytest.raises(PatternError) as caught:
        LayerPattern.parse(given, LAYERS)
    return str(caught.value)


@pytest.mark.parametrize(("given", "named"), TEXTS + FREQUENCIES + PRESETS + VALUES)
def test_malformed_value_is_refused_by_name(given, named):
    message = refusal_of(given)
    assert named in message
    assert "\n" not in message
    assert ": " in message, "a refusal says what to do after the colon"


@pytest.mark.parametrize(("name", "content", "selection", "named"), FILES)
def test_malformed_file_is_refused_by_name(given_files, name, content, selection, named):
    message = refusal_of(name + selection)
    assert named in message
    assert name in message
    assert "\n" not in message


def test_every_refusal_has_its_own_message(given_files):
    words = [given for given, _ in TEXTS + FREQUENCIES + PRESETS + VALUES]
    words += [name + selection for name, _, selection, _ in FILES]
    messages = [refusal_of(given) for given in words]
    assert len(words) >= 60
    assert len(set(messages)) == len(messages)


def test_unknown_preset_lists_the_known_ones():
    message = refusal_of("preset:nope")
    for name in ("30b-a3b-1/4", "30b-a3b-1/2", "glm-5-1/4", "glm-5-1/2", "glm-5.2"):
        assert name in message


def test_long_value_is_cut_in_the_message():
    assert len(refusal_of("F" * 10_000)) < 300


KEYS = [
    (LayerPattern.from_indexer_types, (None,), "None"),
    (LayerPattern.from_indexer_types, ("FSFSFSFS",), "'FSFSFSFS'"),
    (LayerPattern.from_indexer_types, ([],), "0 entries but the model has 8 layers"),
    (LayerPattern.from_indexer_types, (["full"] * 7,), "7 entries"),
    (LayerPattern.from_indexer_types, (["full"] * 9,), "9 entries"),
    (LayerPattern.from_indexer_types, (["shared"] + ["full"] * 7,), 'starts with "shared"'),
    (LayerPattern.from_indexer_types, (["full", "Shared"] * 4,), "'Shared' at layer 1"),
    (LayerPattern.from_indexer_types, (["full", None] * 4,), "None at layer 1"),
    (LayerPattern.from_indexer_types, (["full", ["shared"]] * 4,), "['shared'] at layer 1"),
    (LayerPattern.from_cli_factor, (0,), "cli_factor 0 is below 1"),
    (LayerPattern.from_cli_factor, (-2,), "cli_factor -2"),
    (LayerPattern.from_cli_factor, (2.0,), "cli_factor 2.0 is a float"),
    (LayerPattern.from_index_topk_pattern, (["full", "shared"] * 4,), "is a list"),
    (LayerPattern.from_index_topk_pattern, ("freq:4",), "'freq:4'"),
    (LayerPattern.from_index_topk_pattern, ("",), "index_topk_pattern '' is empty"),
    (LayerPattern.from_index_topk_freq, (0, None), "index_topk_freq 0 is below 1"),
    (LayerPattern.from_index_topk_freq, ("4", None), "index_topk_freq '4' is a str"),
    (LayerPattern.from_index_topk_freq, (True, None), "index_topk_freq True is a bool"),
    (LayerPattern.from_index_topk_freq, (4, 0), "index_skip_topk_offset 0 is below 1"),
    (LayerPattern.from_index_topk_freq, (4, "1"), "index_skip_topk_offset '1' is a str"),
]


@pytest.mark.parametrize(("build", "values", "named"), KEYS)
def test_malformed_config_key_is_refused_by_name(build, values, named):
    with pytest.raises(PatternError) as caught:
        build(*values, LAYERS)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
