"""The report's package lies in benchmark/, beside what it reports on."""

import copy
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmark"))

HARDWARE = {"cpu": "a cpu", "num_cores": 2, "gpus": []}
FACTS = {"hardware": HARDWARE, "versions": {"python": "3.11"}, "command": "python -m x"}
WEIGHTS = [100, 100, 100, 100]
# Sums of losses of four sequences; all of 8 layers.
LOSSES = {
    "FFFFFFFF": [100.0, 200.0, 300.0, 400.0],
    "FFFFSSSS": [104.0, 204.0, 304.0, 404.0],  # +0.04 per token, everywhere
    "FFFSFSSS": [103.0, 206.0, 303.0, 405.0],  # a near equal: -1, 2, -1, 1
    "FSFSFSFS": [120.0, 220.0, 321.0, 421.0],  # uniform
    "FSSSSFFF": [140.0, 241.0, 340.0, 441.0],  # random
    "FSSSFSSS": [150.0, 250.0, 350.0, 450.0],
    "FSSSSSSS": [190.0, 290.0, 390.0, 490.0],
}
ON_B = {**LOSSES, "FFFSFSSS": [107.0, 210.0, 307.0, 409.0]}  # 4 more, everywhere


def search(source: str, patterns: list[str], order: list[int], work: int, method="fast") -> dict:
    """pattern.json of a search from all Full."""
    texts = ["FFFFFFFF", *patterns]
    return {
        **FACTS,
        "complete": True,
        "num_layers": 8,
        "patterns": {str(text.count("F")): text for text in texts},
        "loss": {str(text.count("F")): sum(LOSSES[text]) / 400 for text in texts},
        "loss_stderr": {str(text.count("F")): 0.01 for text in texts},
        "increase": {str(text.count("F")): (sum(LOSSES[text]) - 1000) / 400 for text in texts},
        "increase_stderr": {str(text.count("F")): 0.001 for text in texts},
        "order": order,
        "steps": [
            {"pattern": text, "layer_token_forwards": work * (number + 1)}
            for number, text in enumerate(patterns)
        ],
        "layer_token_forwards": work * len(patterns),
        "settings": {"method": method},
        "model": {"fingerprint": "m"},
        "noise": {"repeated": 0.0, "resumed": 1e-6},
        "data": {"source": source, "fingerprint": source, "num_tokens": 404, "weights": WEIGHTS},
        "seconds": 12.0,
    }


def losses(tables: dict[str, dict[str, list[float]]]) -> dict:
    """losses.json."""
    kinds = {"FFFFFFFF": "reference", "FSFSFSFS": "uniform", "FSSSSFFF": "random"}
    return {
        **FACTS,
        "seconds": 3.0,
        "data": [
            {"source": source, "fingerprint": source, "num_tokens": 404, "weights": WEIGHTS}
            for source in tables
        ],
        "patterns": [
            {
                "names": [text],
                "kind": kinds.get(text, "pattern"),
                "pattern": text,
                "num_full": text.count("F"),
                "seed": None,
            }
            for text in LOSSES
        ],
        "losses": tables,
    }


def evaluation(arms: dict[str, tuple[str, str, list[float], list[int]]]) -> dict:
    """results.json of documents of 100 tokens with 4 answers each.

    Args:
        arms: name -> (kind, pattern, dNLL sums by document, right answers by document).
    """
    document = {
        "command": "python -m sglang_ic.evaluate",
        "seconds": 5.0,
        "hardware": HARDWARE,
        "software": {"python": "3.11"},
        "interrupted": False,
        "model": {"path": "m"},
        "data": {"source": "test", "num_samples": {"100": 4}},
        "arms": [],
        "documents": {},
    }
    for name, (kind, pattern, dnll, right) in arms.items():
        tokens, answers = 100 * len(dnll), 4 * len(right)
        document["arms"].append(
            {
                "name": name,
                "kind": kind,
                "pattern": pattern,
                "num_full": pattern.count("F"),
                "overall": {
                    "dnll": sum(dnll) / tokens,
                    "dnll_ci95": [sum(dnll) / tokens - 0.01, sum(dnll) / tokens + 0.01],
                    "num_documents": len(dnll),
                    "num_tokens": tokens,
                },
                "accuracy": [
                    {
                        "task": "all",
                        "length": None,
                        "accuracy": sum(right) / answers,
                        "ci95": [0.0, 1.0],
                    }
                ],
            }
        )
        document["documents"][name] = [
            {
                "dnll_sum": loss,
                "num_tokens": 100,
                "answers": [{"task": "t", "right": number < count} for number in range(4)],
            }
            for loss, count in zip(dnll, right, strict=True)
        ]
    return document


HELD_OUT = {
    "full": ("reference", "FFFFFFFF", [0.0] * 6, [4] * 6),
    "searched": ("pattern", "FFFFSSSS", [1.0, 1.2, 0.9, 1.1, 1.0, 0.8], [4, 3, 4, 4, 3, 4]),
    "uniform@4": ("uniform", "FSFSFSFS", [5.0, 5.2, 4.9, 5.1, 5.0, 4.8], [1, 1, 0, 1, 2, 1]),
    "random@4/0": ("random", "FSSSSFFF", [6.0, 6.2, 5.9, 6.1, 6.0, 5.8], [0, 1, 0, 0, 1, 0]),
    "random@4/1": ("random", "FFSSSSFF", [3.0, 3.2, 2.9, 3.1, 3.0, 2.8], [2, 2, 1, 2, 2, 1]),
    "random@4/2": ("random", "FSSFSSFF", [0.5, 0.7, 0.4, 0.6, 0.5, 0.3], [4, 4, 4, 4, 3, 4]),
}
SPEED = {
    **FACTS,
    "model": {"path": "p", "num_layers": 8},
    "num_full": 2,
    "num_sequences": 4,
    "tokens_per_sequence": 100,
    "exhaustive": {
        "seconds_per_candidate": 2.0,
        "num_candidates": 27,
        "layer_token_forwards": 28 * 3200,
        "projected_seconds": 56.0,
    },
    "fast": {
        "kept_layers": [1, 4],
        "seconds_of_the_pass_that_keeps_states": 4.0,
        "candidates": [{"layer": 7, "seconds": 0.5, "layer_tokens": 1600}],
        "seconds_per_layer_token": 0.5 / 1600,
        "layer_token_forwards": [1000, 90000],
        "projected_seconds": [0.3, 28.0],
    },
    "memory": {
        "kept_bytes": 1 << 30,
        "kept_bytes_on_host": 0,
        "before": {"device_bytes": None, "host_bytes": 2 << 30},
        "after": {"device_bytes": None, "host_bytes": 3 << 30},
    },
    "noise": {"repeated": 0.0, "resumed": 0.0},
    "engine_arguments": [],
}


@pytest.fixture
def speed_document() -> dict:
    """speed.json, free to be changed."""
    return copy.deepcopy(SPEED)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Results of every step."""
    near = ["FFFSFSSS", "FSSSFSSS", "FSSSSSSS"]
    best = ["FFFFSSSS", "FSSSFSSS", "FSSSSSSS"]
    written = {
        "exhaustive/pattern.json": search("a", best, [7, 6, 5, 4, 3, 2, 1], 10_000, "exhaustive"),
        "fast-1/pattern.json": search("a", near, [7, 6, 5, 3, 4, 2, 1], 1_000),
        "fast-2/pattern.json": search("b", best, [1, 2, 3, 4, 5, 6, 7], 1_100),
        "losses-1/losses.json": losses({"a": LOSSES}),
        "losses-2/losses.json": losses({"b": ON_B}),
        "test/results.json": evaluation(HELD_OUT),
        "speed.json": SPEED,
    }
    for name, document in written.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(document))
    return tmp_path
