"""What a whole search would take, from a few timed candidates, and what is told of it."""

import json
from types import SimpleNamespace

import pytest
from search_report import sections, speed

from sglang_ic.pattern import LayerPattern
from sglang_ic.search.constraints import Constraints


class Objective:
    """An engine's objective in which every pass runs whole."""

    kept_layers, kept_bytes, host_bytes = (), 0, 0

    def __init__(self, engine, sequences, *_) -> None:
        self.weights = [len(ids) - 1 for ids in sequences]

    def loss(self, pattern: str, sequence: int, whole: bool = False) -> tuple[float, int]:
        return 1.0, len(pattern) * (self.weights[sequence] + 1)

    def rebase(self, pattern: str) -> None:
        pass

    def forget(self) -> None:
        pass


def test_projection_by_hand():
    """Three layers to one Full: candidates 2, then 1; and the start."""
    rules = Constraints.make(LayerPattern.full(3), 1, (), 1)
    lengths = [10] * 8
    whole = {"seconds": 2.0, "layer_tokens": 240}
    timed = [{"layer": 2, "seconds": 1.0, "layer_tokens": 80}]
    found = speed.project(rules, lengths, whole, whole, timed, [1, 2])
    assert found["exhaustive"]["num_candidates"] == 3
    assert found["exhaustive"]["projected_seconds"] == 4 * 2.0
    assert found["fast"]["seconds_per_layer_token"] == 1 / 80
    # At best: the start (3 layers x 80), layer 1 in the first round (2 x 40), the winners 2 and 1
    # (1 x 80 and 2 x 80).
    assert found["fast"]["layer_token_forwards"][0] == 240 + 80 + 80 + 160
    assert found["fast"]["projected_seconds"][0] == pytest.approx(560 / 80)


@pytest.mark.parametrize(
    ("wanted", "layers"), [(1, [46]), (2, [23, 46]), (4, [11, 23, 34, 46]), (99, [*range(1, 47)])]
)
def test_timed_layers_are_spread_and_end_with_the_highest(wanted, layers):
    assert speed.spread(range(1, 47), wanted) == layers


def test_the_result_names_no_folder_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "InProcess", lambda *_: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(speed, "EngineObjective", Objective)
    monkeypatch.chdir(tmp_path)
    own = ["--sequences", "2", "--tokens", "4", "--output", str(tmp_path / "speed.json")]
    server = ["--download-dir", str(tmp_path / "x"), "--api-key", "secret"]
    assert speed.main([*own, "--", *server]) == 0
    found = json.loads((tmp_path / "speed.json").read_text())
    assert found["model"]["path"] == "benchmark/latency/30b-a3b"
    assert found["engine_arguments"] == ["--download-dir", "x", "--api-key", "***"]
    assert found["command"] == (
        "python -m search_report.speed --sequences 2 --tokens 4 --output speed.json "
        "-- --download-dir x --api-key '***'"
    )


def test_the_estimate_by_hand(speed_document):
    """A tenth of 28 passes of 3,200 layer-tokens: 2.8 of 1 s each or, like the start, of 4 s."""
    rows = [
        {"share": "1/2", "num_full": 2, "fast": "FSFS", "work": 0.5},
        {"share": "1/4", "num_full": 1, "fast": "FSSS", "work": 0.1},
    ]
    page = sections.speed(speed_document, {"rows": rows, "num_sequences": 9})
    assert "2.8 s at the candidates' seconds per layer-token, 11.2 s at the start's" in page
    assert "1/10.0, measured on 4 layers and 9 sequences; here are 8 and 4." in page
    assert "estimated" not in sections.speed(speed_document, None)


def test_memory_in_use_is_told_where_it_was_read(speed_document):
    page = sections.speed(speed_document, None)
    assert "1.0 GiB for states, 0.0 GiB of it on the host. In use on the host: 2.0 GiB" in page
    assert "on the device" not in page and "dummies" not in page
    for when in ("before", "after"):
        speed_document["memory"][when]["device_bytes"] = 5 << 30
    speed_document["engine_arguments"] = ["--load-format", "dummy"]
    page = sections.speed(speed_document, None)
    assert "on the device: 5.0 GiB before" in page and "dummies" in page
