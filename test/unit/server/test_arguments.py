"""argv in, argv out; pure Python but for the bundled model's paths."""

import json

import pytest

from sglang_ic.server import arguments


def test_our_flag_is_taken_out_and_the_rest_keeps_its_order():
    own, rest = arguments.split(["--port", "1", "--index-cache-pattern", "freq:4", "--tp", "8"])
    assert own.index_cache_pattern == "freq:4"
    assert rest == ["--port", "1", "--tp", "8"]


def test_a_shortened_flag_is_left_to_sglang():
    own, rest = arguments.split(["--index-cache", "freq:4"])
    assert own.index_cache_pattern is None
    assert rest == ["--index-cache", "freq:4"]


@pytest.mark.parametrize("argv", [["--device", "cpu"], ["--device=cpu"]])
def test_cpu_flags_fill_in_only_what_was_not_typed(argv):
    assert arguments.wants_cpu(argv)
    filled = arguments.with_defaults([*argv, "--dtype=bfloat16"], arguments.CPU_FLAGS)
    assert filled.count("--device") + filled.count("--device=cpu") == 1
    assert "--dtype" not in filled
    assert filled[filled.index("--attention-backend") + 1] == "torch_native"


def test_another_device_is_not_cpu():
    assert not arguments.wants_cpu(["--device", "cuda"])


def test_a_typed_model_is_served_as_it_is():
    assert arguments.with_model(["--model-path", "m"]) == ["--model-path", "m"]
    assert arguments.with_model(["--config=c.yaml"]) == ["--config=c.yaml"]


def test_the_flag_travels_in_the_override_args():
    sent = arguments.override_args("freq:4", '{"index_topk_freq": 2}', bundled_model=False)
    assert json.loads(sent) == {"index_topk_freq": 2, "index_cache_pattern": "freq:4"}


def test_a_pattern_file_travels_as_an_absolute_path(tmp_path, monkeypatch):
    (tmp_path / "p.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    sent = arguments.override_args("p.json@12", "{}", bundled_model=False)
    assert json.loads(sent)["index_cache_pattern"] == f"{tmp_path}/p.json@12"


def test_bundled_model_has_a_default_pattern_unless_something_was_said():
    sent = arguments.override_args(None, "{}", bundled_model=True)
    assert json.loads(sent)["index_cache_default_pattern"].endswith("pattern.json")
    said = arguments.override_args(None, '{"index_topk_freq": 2}', bundled_model=True)
    assert json.loads(said) == {"index_topk_freq": 2}
    assert arguments.override_args(None, "{}", bundled_model=False) == "{}"


@pytest.mark.parametrize("text", ["{", "[1]", "3"])
def test_override_args_that_are_no_object_are_refused(text):
    with pytest.raises(ValueError, match="--json-model-override-args"):
        arguments.override_args("full", text, bundled_model=False)
