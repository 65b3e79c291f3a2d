"""Models and data are told apart."""

from pathlib import Path

from sglang_ic.demo.tiny import write_checkpoint
from sglang_ic.search import fingerprint


def test_checkpoints_differ_by_config_weights_and_layers(tmp_path):
    def of(name: str, **kwargs) -> str:
        return fingerprint.of_model(Path(write_checkpoint(tmp_path / name, **kwargs)))

    prints = [of("a"), of("b", seed=1), of("c", index_topk=64), of("d", num_layers=4)]
    assert len(set(prints)) == 4
    assert of("again") == prints[0]


def test_data_differs_by_tokens_order_and_borders():
    prints = [
        fingerprint.of_tokens(one)
        for one in ([[1, 2], [3]], [[3], [1, 2]], [[1], [2, 3]], [[1, 2], [4]], [[1, 2, 3]])
    ]
    assert len(set(prints)) == 5
    assert fingerprint.of_tokens([(1, 2), (3,)]) == prints[0]
