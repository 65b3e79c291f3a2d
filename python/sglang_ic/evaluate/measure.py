"""The loop: every sample through every arm, the reference first.

Samples are the outer loop, so that arms are always paired, one sample is held at a time, and a run
that is stopped keeps what it has.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tqdm import tqdm

from sglang_ic.evaluate.arms import Arm
from sglang_ic.evaluate.in_process import InProcess, NotProbed
from sglang_ic.evaluate.overlap import Probed, sampled_positions
from sglang_ic.evaluate.samples import Sample
from sglang_ic.evaluate.scores import TokenScores
from sglang_ic.evaluate.summary import Measured, arm_summary, per_document, selections
from sglang_ic.evaluate.wire import EngineError

# Selections are looked at in this many of the longest samples, at this many rows of each.
PROBED_SAMPLES = 4
PROBED_ROWS = 64
LOG_INTERVAL_SEC = 30  # between progress lines when nobody watches


class Engine(Protocol):
    """What scores samples: `InProcess`, or `OverHttp`."""

    def score(self, arm: Arm, input_ids: Sequence[int]) -> TokenScores: ...

    def close(self) -> None: ...


@dataclass
class Measurement:
    """What a run has measured so far, whole samples only."""

    arms: tuple[Arm, ...]
    measured: dict[str, list[Measured]] = field(default_factory=dict)  # by arm name
    probed: dict[str, list[Probed]] = field(default_factory=dict)
    not_probed: str | None = None  # why selections were not looked at
    interrupted: bool = False  # by Ctrl-C or a failure
    failure: str | None = None  # of the engine, when there are samples from before it

    @property
    def num_samples(self) -> int:
        return len(self.measured.get(self.arms[0].name, ()))


def measure(
    engine: Engine, arms: tuple[Arm, ...], samples: Sequence[Sample], index_topk: int
) -> Measurement:
    """Score all samples; Ctrl-C, or an engine that fails later on, ends the loop and is noted.

    Raises:
        EngineError: the engine failed before a sample was measured.
    """
    found = Measurement(arms)
    if not isinstance(engine, InProcess):
        found.not_probed = "selections cannot be read over HTTP"
    watched = sys.stderr.isatty()
    progress = tqdm(
        total=len(arms) * sum(len(sample.input_ids) for sample in samples),
        desc="tokens",
        unit="tok",
        unit_scale=True,
        mininterval=0.2 if watched else LOG_INTERVAL_SEC,
        smoothing=0.05,  # long and short samples take turns
    )
    longest = max(sample.length for sample in samples)
    with progress:
        try:
            for sample in samples:
                wanted = found.not_probed is None and sample.length == longest
                probe = wanted and len(found.probed.get(arms[0].name, ())) < PROBED_SAMPLES
                _one_sample(engine, sample, index_topk if probe else None, found, progress)
        except KeyboardInterrupt:
            found.interrupted = True
        except EngineError as error:
            if not found.num_samples:
                raise
            found.interrupted, found.failure = True, str(error)
    return found


def _one_sample(
    engine: Engine,
    sample: Sample,
    index_topk: int | None,
    found: Measurement,
    progress: tqdm,
) -> None:
    """All arms on one sample, and what they select if `index_topk` is given; then into `found`."""
    reference, measured, probed = None, {}, {}
    for arm in found.arms:
        progress.set_postfix_str(f"{sample.id}, {arm.name}", refresh=False)
        scores = None
        if index_topk is not None and found.not_probed is None:
            positions = sampled_positions(len(sample.input_ids), index_topk, PROBED_ROWS)
            try:
                scores, probed[arm.name] = engine.score_and_probe(arm, sample.input_ids, positions)
            except NotProbed as refused:
                found.not_probed = str(refused)
        if scores is None:
            scores = engine.score(arm, sample.input_ids)
        reference = reference or scores
        measured[arm.name] = Measured.of(sample, reference, scores)
        progress.update(len(sample.input_ids))
    for name, one in measured.items():
        found.measured.setdefault(name, []).append(one)
    for name, one in probed.items():
        found.probed.setdefault(name, []).append(one)


def results(found: Measurement, source: str) -> dict:
    """The measured part of results.json."""
    reference = found.arms[0].name
    base, base_probed = found.measured[reference], found.probed.get(reference, [])
    return {
        "data": {"source": source, "num_samples": _by_length([m.sample for m in base])},
        "interrupted": found.interrupted,
        "reference": reference,
        "not_probed": found.not_probed,
        "selections": selections(base_probed),
        "arms": [_arm(found, arm, base, base_probed) for arm in found.arms],
        "documents": {arm.name: per_document(found.measured[arm.name]) for arm in found.arms},
    }


def _arm(found: Measurement, arm: Arm, base, base_probed) -> dict:
    reference = found.arms[0].pattern
    probed = found.probed.get(arm.name, [])
    return arm_summary(arm, reference, found.measured[arm.name], base, base_probed, probed)


def _by_length(samples: Sequence[Sample]) -> dict[str, int]:
    lengths = [sample.length for sample in samples]
    return {str(length): lengths.count(length) for length in sorted(set(lengths))}
