"""Bad input is one line that names it, and exit code 2, before an engine is started."""

import json
import socket

import pytest
from _fake_server import serving

from sglang_ic.evaluate.cli import main


def refusal(capsys, *argv) -> str:
    with pytest.raises(SystemExit) as ended:
        main(list(argv))
    shown = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2
    assert len(shown) == 1, shown
    assert shown[0].startswith("error: ")
    return shown[0]


def test_bad_arguments(capsys, model, data):
    refused = {
        ("--context-lengths", "0"): "'0'",
        ("--documents", "-1"): "'-1'",
        ("--frobnicate",): "--frobnicate",
        ("--pattern", "FSS"): "3 letters",
        ("--reference", "preset:none"): "preset",
        ("--control", "best"): "'best'",
        ("--data", "no/such/file.jsonl"): "cannot be read",
        ("--context-lengths", "60"): "below 8 x index_topk (8) = 64",
        ("--pattern", "freq:2", "--pattern", "freq:2,offset:2"): "same pattern",
    }
    for argv, words in refused.items():
        given = () if "--data" in argv else ("--data", data)
        assert words in refusal(capsys, "--model-path", model, *given, *argv)


def test_data_that_is_too_short(capsys, model, tmp_path):
    path = tmp_path / "short.jsonl"
    answers = [{"task": "a", "start": 4, "end": 6}]
    path.write_text(json.dumps({"id": "tiny", "text": "x" * 63, "answers": answers}))
    error = refusal(capsys, "--model-path", model, "--data", str(path))
    assert "document 'tiny' has 63 tokens, below 8 x index_topk (8) = 64" in error
    path.write_text("")
    assert "holds no document" in refusal(capsys, "--model-path", model, "--data", str(path))
    path.write_text(json.dumps({"text": "x" * 5000, "answers": answers}))
    error = refusal(capsys, "--model-path", model, "--data", str(path))
    assert "5000 tokens, the model's context is 4096" in error


def test_models_that_cannot_be_measured(capsys, model, data, tmp_path):
    config = tmp_path / "model" / "config.json"
    dense = {**json.loads(config.read_text()), "architectures": ["LlamaForCausalLM"]}
    config.write_text(json.dumps(dense))
    assert "LlamaForCausalLM" in refusal(capsys, "--model-path", model, "--data", data)
    config.unlink()
    refusal(capsys, "--model-path", model, "--data", data)


def test_servers_that_cannot_be_measured(capsys, model, data):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{probe.getsockname()[1]}"
    assert "no answer" in refusal(capsys, "--url", closed, "--data", data)
    with serving({"/": "hello"}) as url:
        assert "not as an SGLang server" in refusal(capsys, "--url", url, "--data", data)
    assert "is no address" in refusal(capsys, "--url", "localhost", "--data", data)
    error = refusal(capsys, "--url", closed, "--pattern", "full", "--data", data)
    assert "do not go with --url" in error


def test_trained_sharing_has_no_other_pattern(capsys, model, data, tmp_path):
    names = ["wq_b.weight", "wk.weight", "weights_proj.weight", "k_norm.weight", "k_norm.bias"]
    prefix = "model.layers.{}.self_attn.indexer.{}"
    weights = {prefix.format(layer, name): "a" for layer in (0, 2) for name in names}
    index = {"weight_map": weights}
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    error = refusal(capsys, "--model-path", model, "--data", data, "--pattern", "FSSS")
    assert "indexer weights on the Full layers of FSFS only" in error
    error = refusal(capsys, "--model-path", model, "--data", data, "--reference", "FSSS")
    assert "cannot be switched" in error


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "python -m sglang_ic.evaluate --pattern" in capsys.readouterr().out
