"""The objective's end of the scheduler's methods, against a stand-in that answers as they do."""

import pytest
from _objectives import Answering

from sglang_ic.evaluate.wire import EngineError
from sglang_ic.search.engine import EngineObjective

SEQUENCES = [(1, 2, 3), tuple(range(40)), (7, 8)] * 5


def test_sequences_arrive_in_order_and_losses_come_back():
    engine, advanced = Answering(), []
    objective = EngineObjective(engine, SEQUENCES, [2, 1], 99)
    objective.advance = advanced.append
    assert engine.sequences == [list(ids) for ids in SEQUENCES]
    assert objective.weights == [2, 39, 1] * 5
    assert (objective.kept_layers, objective.kept_bytes) == ((1, 2), 99)
    assert objective.losses("FSS", range(1, 3)) == [12.0, 22.0]
    assert objective.layer_token_forwards == 8 and advanced == [4, 4]
    objective.rebase("FSF")
    objective.close()
    assert engine.calls == ["begin", "loss", "loss", "rebase", "close"]


def test_without_a_limit_the_host_gives_what_it_has_beside_the_device():
    objective = EngineObjective(Answering(), SEQUENCES, [1], None, 30)
    assert (objective.kept_bytes, objective.host_bytes) == (30, 10)


def test_overlap_looks_at_the_longest_sequences():
    objective = EngineObjective(Answering(), SEQUENCES, [], 0)
    assert objective.overlap("FF", 8).tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_too_little_memory_names_the_flag():
    objective = EngineObjective(Answering("CUDA out of memory. Tried 2 GiB"), SEQUENCES, [1], 9)
    with pytest.raises(EngineError, match="--cache-gib"):
        objective.losses("FF", [0])


def test_other_failures_come_as_they_are():
    objective = EngineObjective(Answering("it broke"), SEQUENCES, [1], 9)
    with pytest.raises(EngineError, match="^it broke$"):
        objective.losses("FF", [0])
