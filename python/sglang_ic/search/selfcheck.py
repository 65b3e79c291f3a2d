"""How exactly an engine repeats itself: noise below which a difference of losses means nothing.

On CPU a pass repeats bit for bit, and so does one that begins at the changed layer. GPU kernels may
add in another order from run to run. Passes are always of one sequence, from empty pools, so what
else is in a batch plays no part.
"""

from dataclasses import dataclass

from sglang_ic.search.constraints import Constraints, convert
from sglang_ic.search.engine import EngineObjective

NUM_SEQUENCES = 2  # the first ones


@dataclass(frozen=True)
class Noise:
    """Largest differences of a sequence's loss, nats per token."""

    repeated: float  # of the start pattern in two whole passes
    resumed: float  # of a conversion, between a pass that may begin at it and a whole one

    @property
    def sentence(self) -> str:
        return (
            "The engine repeats itself: the same pass again differs by at most "
            f"{self.repeated:.2g} nats per token, one from the changed layer by {self.resumed:.2g}."
        )


def measure(objective: EngineObjective, constraints: Constraints) -> Noise:
    """Five passes over some sequences, which count for no search and leave no state behind."""
    start = constraints.start.text
    candidates = constraints.candidates(start)
    changed = convert(start, candidates[len(candidates) // 2])
    objective.rebase(start)
    repeated, resumed = [0.0], [0.0]
    for sequence in range(min(NUM_SEQUENCES, len(objective.weights))):
        first = objective.loss(start, sequence, whole=True)[0]
        whole = objective.loss(changed, sequence, whole=True)[0]
        objective.loss(start, sequence)  # keeps what the next one begins with
        from_there = objective.loss(changed, sequence)[0]
        again = objective.loss(start, sequence, whole=True)[0]
        weight = objective.weights[sequence]
        repeated.append(abs(again - first) / weight)
        resumed.append(abs(from_there - whole) / weight)
    objective.forget()
    return Noise(max(repeated), max(resumed))
