"""What tests of evaluation share: a folder with a tokenizer and a config, and data for it."""

import json
import sys
from pathlib import Path

import pytest

from sglang_ic.demo.tokenizer import write_tokenizer

sys.path.insert(0, str(Path(__file__).parent))  # for _fake_server

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
    """Six documents of two lengths with two answers each."""
    path = tmp_path / "data.jsonl"
    records = []
    for i in range(6):
        text = "the river stone lights up. " * (4 if i % 2 else 6)
        answers = [
            {"task": "single", "start": 30, "end": 36, "depth": 0.2},
            {"task": "multi", "start": 60, "end": 62},
        ]
        records.append({"id": f"d{i}", "length": len(text), "text": text, "answers": answers})
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)
