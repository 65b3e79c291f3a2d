"""The bundled model: its files, and that it finds what only its indexers can find."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sglang_ic.demo import bundled_model, default_pattern_file
from sglang_ic.demo.documents import TASKS, documents
from sglang_ic.demo.train import measure
from sglang_ic.demo.train.export import INDEX, read_model
from sglang_ic.demo.train.recipe import SHAPE
from sglang_ic.pattern_file import file_text

LENGTH = 2048  # 16 x index_topk
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def tensors():
    return {k: v for f in bundled_model().glob("*.safetensors") for k, v in load_file(f).items()}


@pytest.fixture(scope="module")
def model():
    return read_model(bundled_model(), SHAPE)


@pytest.fixture(scope="module")
def docs():
    return list(documents("test", length=LENGTH, count=3))


def test_weights_fit_into_24_mb_in_shards_of_15():
    sizes = [file.stat().st_size for file in bundled_model().glob("*.safetensors")]
    assert sum(sizes) <= 24_000_000 and max(sizes) <= 15_000_000


def test_a_built_wheel_holds_the_model(tmp_path):
    """In a copy: a build writes into its source tree."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "python", tmp_path / "python", ignore=shutil.ignore_patterns("*.pyc"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-index"]
    command = [*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    for file in [*bundled_model().iterdir(), default_pattern_file()]:
        assert file.relative_to(ROOT / "python").as_posix() in packed


def test_the_index_names_every_tensor(tensors):
    index = json.loads((bundled_model() / INDEX).read_text())
    assert set(index["weight_map"]) == set(tensors)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())


def test_weights_are_exact_in_bf16_and_not_degenerate(tensors):
    for name, tensor in tensors.items():
        wanted = torch.float32 if name.endswith("e_score_correction_bias") else torch.bfloat16
        assert tensor.dtype == wanted, name
        assert tensor.isfinite().all() and tensor.float().std() > 1e-3, name


def test_config_leaves_the_pattern_and_layer_types_open():
    config = json.loads((bundled_model() / "config.json").read_text())
    assert config["architectures"] == ["GlmMoeDsaForCausalLM"]
    assert config["indexer_rope_interleave"] is True
    assert not {"layer_types", "indexer_types", "index_topk_freq"} & set(config)
    assert (config["num_hidden_layers"], config["index_topk"]) == (16, 128)


def test_the_shape_keeps_upstream_kernel_limits():
    assert SHAPE.index_n_heads in (32, 64), "DeepGEMM's index scores on Hopper"
    assert SHAPE.index_head_dim == 128 and SHAPE.index_topk % 128 == 0
    assert (SHAPE.kv_lora_rank, SHAPE.qk_rope_head_dim) == (512, 64) and 64 % SHAPE.num_heads == 0


@torch.no_grad()
def test_transformers_computes_what_the_training_model_computes(bundled, model, docs):
    ids = measure.batch(docs[:1])[:, :700]
    ours, _ = model(ids, roles="F")
    torch.testing.assert_close(ours, bundled(input_ids=ids).logits, atol=2e-3, rtol=0)


def test_it_finds_keys_with_its_own_selection_and_not_with_a_random_one(model, docs):
    keys = ("single_key", "multi_key")
    full = measure.accuracy(model, docs, "F", device="cpu")
    assert min(full[task] for task in keys) >= 0.95
    damaged = measure.accuracy(model, docs, "F" * 8 + "R" * 8, device="cpu")
    assert all(damaged[task] < full[task] - 0.1 for task in keys)


def test_the_default_pattern_shares_layers_and_keeps_most_answers(model, docs):
    pattern = file_text(str(default_pattern_file()), 16)
    assert 0 < pattern.count("S") and len(pattern) == SHAPE.num_layers
    full = measure.accuracy(model, docs, "F", device="cpu")
    shared = measure.accuracy(model, docs, pattern, device="cpu")
    assert shared["all"] > full["all"] - 0.1


def test_measure_prints_a_table_of_every_selection(capsys, tmp_path):
    rows_file = tmp_path / "rows.json"
    argv = ["--lengths", "600", "--documents", "2", "--json", str(rows_file)]
    assert measure.main([*argv, "--device", "cpu"]) == 0
    rows = json.loads(rows_file.read_text())
    assert [row["selection"] for row in rows] == list(measure.arms())
    assert all(0 <= row[task] <= 1 for row in rows for task in (*TASKS, "all"))
    assert capsys.readouterr().out.count("\n| 600 |") == len(rows)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--model", "nowhere"], "nowhere"),
        (["--split", "train"], "split 'train'"),
        (["--lengths", "50"], "length 50"),
    ],
)
def test_measure_refuses_in_one_line(argv, said, capsys):
    assert measure.main([*argv, "--documents", "1", "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1
