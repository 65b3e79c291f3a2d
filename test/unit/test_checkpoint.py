"""Which layers of a checkpoint carry indexer weights, from every place that knows."""

import json

import pytest

from sglang_ic.checkpoint import (
    CheckpointError,
    complete_indexer_layers,
    indexer_layers,
    read_config_json,
)

PARTS = ("wq_b.weight", "wk.weight", "weights_proj.weight", "k_norm.weight", "k_norm.bias")
SCALES = ("wq_b.weight_scale_inv", "wk.weight_scale_inv")


def tensors(layer, parts=PARTS, prefix="model."):
    return [f"{prefix}layers.{layer}.self_attn.indexer.{part}" for part in parts]


def write_safetensors(path, names):
    """Header-only file: all tensors empty, as `safetensors` lays them out."""
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({"__metadata__": {"format": "pt"}, **dict.fromkeys(names, entry)})
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode())


def write_index(folder, names):
    weight_map = dict.fromkeys(names, "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_layer_with_all_parts_counts():
    names = (
        tensors(0) + tensors(3) + ["model.layers.1.self_attn.kv_b_proj.weight", "lm_head.weight"]
    )
    assert complete_indexer_layers(names) == {0, 3}


@pytest.mark.parametrize("missing", PARTS)
def test_layer_without_one_part_does_not_count(missing):
    partial = tensors(1, [part for part in PARTS if part != missing])
    assert complete_indexer_layers(tensors(0) + partial) == {0}


def test_scales_are_extra_and_replace_nothing():
    assert complete_indexer_layers(tensors(0, PARTS + SCALES)) == {0}
    assert complete_indexer_layers(tensors(0, PARTS[1:] + SCALES)) == set()


@pytest.mark.parametrize("value", ["qweight", "weight_packed"])
def test_quantized_projections_count(value):
    parts = (f"wq_b.{value}", f"wk.{value}", f"wk.{value}_scale", *PARTS[2:])
    assert complete_indexer_layers(tensors(2, parts)) == {2}


def test_k_norm_without_bias_counts_when_no_layer_has_one():
    assert complete_indexer_layers(tensors(0, PARTS[:-1]) + tensors(1, PARTS[:-1])) == {0, 1}


@pytest.mark.parametrize("prefix", ["", "model.language_model.", "language_model.model."])
def test_wrapper_prefix_is_seen_through(prefix):
    assert complete_indexer_layers(tensors(5, prefix=prefix)) == {5}


def test_module_with_a_similar_name_does_not_count():
    parts = [f"old_{part}" for part in PARTS]
    assert complete_indexer_layers(tensors(0, parts)) == set()
    names = [name.replace(".indexer.", ".indexer_old.") for name in tensors(0)]
    assert complete_indexer_layers(names) == set()


def test_index_file_is_read(tmp_path):
    write_index(tmp_path, tensors(0) + tensors(2) + tensors(61))
    assert indexer_layers(str(tmp_path)) == {0, 2, 61}


def test_headers_are_read_without_an_index(tmp_path):
    write_safetensors(tmp_path / "a.safetensors", tensors(0) + tensors(1, PARTS[:2]))
    write_safetensors(tmp_path / "b.safetensors", tensors(1, PARTS[2:]) + tensors(2, PARTS[:3]))
    assert indexer_layers(str(tmp_path)) == {0, 1}


def test_written_by_safetensors_itself(tmp_path):
    numpy = pytest.importorskip("numpy")
    safetensors = pytest.importorskip("safetensors.numpy")
    values = {name: numpy.zeros(3, dtype="float32") for name in tensors(4)}
    safetensors.save_file(values, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert indexer_layers(str(tmp_path)) == {4}


def test_checkpoint_without_any_indexer_is_known_to_have_none(tmp_path):
    write_safetensors(tmp_path / "model.safetensors", ["lm_head.weight"])
    assert indexer_layers(str(tmp_path)) == frozenset()


def test_nothing_is_known_without_safetensors(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert indexer_layers(str(tmp_path)) is None
    assert indexer_layers(str(tmp_path / "model.gguf")) is None
    assert indexer_layers("s3://bucket/model") is None


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "0 bytes"),
        (b"\x00" * 8, "header of 0 bytes"),
        (b"\xff" * 16, "18446744073709551615"),
        ((2).to_bytes(8, "little") + b"{", "header of 2 bytes"),
        ((2).to_bytes(8, "little") + b"{]", "valid JSON"),
        ((2).to_bytes(8, "little") + b"[]", "JSON list"),
    ],
)
def test_broken_header_is_refused(tmp_path, content, named):
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=named) as caught:
        indexer_layers(str(tmp_path))
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "named"),
    [("{", "valid JSON"), ("[]", "JSON list"), ("{}", "weight_map"), ('{"weight_map": []}', "map")],
)
def test_broken_index_is_refused(tmp_path, content, named):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match=named):
        indexer_layers(str(tmp_path))


def test_config_json_is_returned_raw(tmp_path):
    config = {"index_topk_freq": 4, "text_config": {"index_topk": 2048}, "indexer_types": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_config_json(str(tmp_path)) == config


def test_config_json_may_be_absent(tmp_path):
    assert read_config_json(str(tmp_path)) == {}
    assert read_config_json("s3://bucket/model") == {}


def test_broken_config_json_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="config.json"):
        read_config_json(str(tmp_path))


class StandInHub:
    """Stands for transformers' cached_file: a folder is the hub, nothing is downloaded."""

    def __init__(self, folder):
        self.folder = folder
        self.calls = []

    def __call__(self, model_path, name, revision=None, **kwargs):
        self.calls.append((model_path, name, revision))
        assert kwargs == {"_raise_exceptions_for_missing_entries": False}
        return str(self.folder / name) if (self.folder / name).is_file() else None


@pytest.fixture
def hub(tmp_path, monkeypatch):
    module = pytest.importorskip("transformers.utils.hub")
    stand_in = StandInHub(tmp_path)
    monkeypatch.setattr(module, "cached_file", stand_in)
    return stand_in


def test_hub_id_reads_the_index_at_its_revision(tmp_path, hub):
    write_index(tmp_path, tensors(0))
    assert indexer_layers("org/model", revision="abc") == {0}
    assert hub.calls == [("org/model", "model.safetensors.index.json", "abc")]


def test_hub_id_with_a_single_file_reads_its_header(tmp_path, hub):
    write_safetensors(tmp_path / "model.safetensors", tensors(1))
    assert indexer_layers("org/model") == {1}


def test_hub_id_without_safetensors_is_unknown(hub):
    assert indexer_layers("org/model") is None
    assert read_config_json("org/model") == {}


def test_hub_seam_missing_entries_are_answered_with_none():
    """checkpoint._find leans on a private option of transformers: re-check it when this fails."""
    import inspect

    module = pytest.importorskip("transformers.utils.hub")
    assert (
        "_raise_exceptions_for_missing_entries" in inspect.signature(module.cached_files).parameters
    )
