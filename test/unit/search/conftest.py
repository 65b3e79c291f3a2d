"""What tests of the search share: objectives with known answers, and a model's folder."""

import json
import sys
from pathlib import Path

import pytest

from sglang_ic.demo.tokenizer import write_tokenizer

sys.path.insert(0, str(Path(__file__).parent))  # for _objectives

INDEX_TOPK = 8


@pytest.fixture
def model(tmp_path) -> str:
    """A checkpoint's folder without weights; a token is a byte."""
    folder = tmp_path / "model"
    folder.mkdir()
    write_tokenizer(folder, max_length=4096)
    config = {
        "architectures": ["GlmMoeDsaForCausalLM"],
        "num_hidden_layers": 4,
        "index_topk": INDEX_TOPK,
        "max_position_embeddings": 4096,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.fixture
def data(tmp_path) -> str:
    path = tmp_path / "data.jsonl"
    record = {"text": "the river stone lights up. " * 6}
    path.write_text("".join(json.dumps({"id": f"d{i}", **record}) + "\n" for i in range(4)))
    return str(path)
