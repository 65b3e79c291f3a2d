"""How exactly an engine repeats itself."""

import pytest
from _objectives import Answering

from sglang_ic.pattern import LayerPattern
from sglang_ic.search import selfcheck
from sglang_ic.search.constraints import Constraints
from sglang_ic.search.engine import EngineObjective

SEQUENCES = [(1, 2, 3), tuple(range(40)), (7, 8)]
RULES = Constraints.make(LayerPattern.full(4), 2, (), 1)


def test_an_engine_that_repeats_itself_has_no_noise():
    engine = Answering()
    noise = selfcheck.measure(EngineObjective(engine, SEQUENCES, [1, 2, 3]), RULES)
    assert (noise.repeated, noise.resumed) == (0.0, 0.0)
    # The search that follows starts from nothing, as one without a check would.
    assert engine.calls[-1] == "forget"


def test_the_largest_difference_per_token_is_reported():
    """Every whole pass costs 1 more than the last, and resumed ones are not affected."""
    engine = Answering()
    engine.drift = 1.0
    noise = selfcheck.measure(EngineObjective(engine, SEQUENCES, [1, 2, 3]), RULES)
    # Sequence 0 has 2 predictions; its whole passes are the engine's 1st, 2nd and 5th.
    assert noise.repeated == pytest.approx((5 - 1) / 2)
    assert noise.resumed == pytest.approx(2 / 2)
    assert "2 nats per token" in noise.sentence
