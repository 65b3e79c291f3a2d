"""The patched engine against transformers' own DSA models, in float32 on CPU.

Transformers is given the engine's choices: it scores and chooses for itself, on every Full layer
(which keys) and on every MoE layer (which experts), and that is recorded, but it goes on with what
the engine chose. So each choice is judged on the history that the engine had, and one near-tie
cannot grow into differences further up.

Criteria, over prompts of 16 x index_topk tokens and 16 decode steps:

- choices: sets equal in all but 0.5% of the (layer, row) pairs; where they differ, the best
  candidate that the engine left is above the worst that it took, in transformers' scores, by at
  most `SCORE_ROUNDING` of the row's largest score.
- log-probabilities: every token of the vocabulary, every row, within 1e-4.
- transformers left alone: the same two, on the rows before the first disputed one. Attention is
  causal, so no dispute can reach those.
"""

import random
from dataclasses import dataclass

import pytest
import torch
from _compare import check_choices, check_logprobs, disputed_rows
from _environments import fork
from _hf import HfPass, HfReference
from _parity_jobs import prompt

from sglang_ic.demo.tiny import write_checkpoint

pytestmark = pytest.mark.engine

NUM_LAYERS = 8
INDEX_TOPK = 32
NUM_PREFILL = 16 * INDEX_TOPK
NUM_DECODE = 16

FULL = "FFFFFFFF"
NAMED = {"full": FULL, "freq:2": "FFSFSFSF", "freq:4": "FFSSSFSS", "freq:4,offset:1": "FSSSFSSS"}
# Layer 0 is Full; every other layer is a bit, all Full left out.
RANDOM = [
    "F" + f"{bits:07b}".replace("1", "F").replace("0", "S")
    for bits in random.Random(2603).sample(range(2**7 - 1), 20)
]


@dataclass(frozen=True)
class Case:
    """A pattern on an architecture; `build_all` as in `_pattern_jobs.run_patterns`."""

    pattern: str
    architecture: str = "GlmMoeDsaForCausalLM"
    build_all: bool = True

    def __str__(self) -> str:
        built = "" if self.build_all else "-only_full_layers_built"
        return f"{self.architecture.partition('For')[0]}-{self.pattern}{built}"

    @property
    def is_glm(self) -> bool:
        return self.architecture == "GlmMoeDsaForCausalLM"

    @property
    def ids(self) -> list[int]:
        """Another prompt for every pattern."""
        return prompt(NUM_PREFILL + NUM_DECODE, seed=int(self.pattern.replace("S", "0"), 16))

    @property
    def owners(self) -> list[int]:
        """Per layer, the nearest Full layer at or below it."""
        return [self.pattern.rindex("F", 0, layer + 1) for layer in range(NUM_LAYERS)]

    @property
    def full_layers(self) -> list[int]:
        return [layer for layer, role in enumerate(self.pattern) if role == "F"]


ALONE = [Case(pattern) for pattern in NAMED.values()]
ALONE += [Case(pattern, build_all=False) for pattern in RANDOM[:2]]
ALONE += [Case(FULL, "DeepseekV32ForCausalLM")]
CASES = [*ALONE, *(Case(pattern) for pattern in RANDOM)]
# Transformers has no sharing there, so it follows only with the selections given.
CASES += [Case(NAMED["freq:4"], "DeepseekV32ForCausalLM")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Architecture -> folder."""
    folder = tmp_path_factory.mktemp("hf-parity")
    return {
        name: str(write_checkpoint(folder / name, architecture=name, index_topk=INDEX_TOPK))
        for name in ("GlmMoeDsaForCausalLM", "DeepseekV32ForCausalLM")
    }


@pytest.fixture(scope="module")
def engine_runs(checkpoint):
    """Case -> what the engine selected and predicted; one engine per group of cases."""
    groups: dict[object, list[Case]] = {}
    for case in CASES:
        groups.setdefault(case.architecture if case.build_all else case, []).append(case)
    jobs = [
        fork().submit(
            "_pattern_jobs:run_patterns",
            model=checkpoint[cases[0].architecture],
            requests=[(case.pattern, case.ids) for case in cases],
            num_decode=NUM_DECODE,
            build_all=cases[0].build_all,
        )
        for cases in groups.values()
    ]
    runs = {}
    for cases, job in zip(groups.values(), jobs, strict=True):
        runs.update(zip(cases, job.result(), strict=True))
    return runs


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """As in the engine's processes: small operations lose more to threads than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=CASES, ids=str)
def compared(request, checkpoint, engine_runs) -> tuple[Case, dict, HfPass]:
    """A case, the engine's run of it, and transformers' with the engine's selections."""
    case = request.param
    run = engine_runs[case]
    return case, run, follow(case, run, checkpoint[case.architecture])


def test_full_layers_select_the_keys_that_transformers_selects(compared):
    case, run, hf = compared
    assert sorted(hf.keys) == (case.full_layers if case.is_glm else list(range(NUM_LAYERS)))
    check_choices("keys", selections(case, run), hf.keys)


def test_rows_go_to_the_experts_that_transformers_picks(compared):
    _, run, hf = compared
    check_choices("experts", run["experts"], hf.experts)


def test_log_probabilities_equal_transformers_given_the_choices(compared):
    _, run, hf = compared
    check_logprobs(run["logprobs"], hf.logprobs, NUM_PREFILL)


@pytest.mark.parametrize("compared", ALONE, ids=str, indirect=True)
def test_transformers_alone_agrees_before_the_first_disputed_row(compared, checkpoint):
    case, run, hf = compared
    disputed = disputed_rows(selections(case, run), hf.keys)
    disputed += disputed_rows(run["experts"], hf.experts)
    num_rows = min([row for _, row in disputed], default=len(case.ids))
    assert num_rows > 2 * INDEX_TOPK, f"row {num_rows} is disputed: too little left to compare"
    alone = HfReference(checkpoint[case.architecture], case.pattern).run(case.ids[:num_rows])
    ours = {layer: topk[:num_rows] for layer, topk in selections(case, run).items()}
    assert not disputed_rows(ours, alone.keys)
    check_logprobs(run["logprobs"][:num_rows], alone.logprobs, NUM_PREFILL)


# What each line below breaks must not pass: pattern FFSSSFSS has a Full layer before the owner.
BROKEN_LINES = {
    "indices off by one": (
        "sglang_ic.runtime.state:IndexCacheState.topk_for",
        "return self.topk_indices",
        "return (self.topk_indices - 1).clamp(min=-1)",
    ),
    "the owner before the nearest": (
        "sglang_ic.runtime.state:IndexCacheState.publish",
        "= layer_id, topk_indices",
        "= layer_id, topk_indices if self.topk_indices is None else self.topk_indices",
    ),
}


@pytest.mark.parametrize("broken", BROKEN_LINES.values(), ids=BROKEN_LINES)
def test_comparison_sees_a_wrong_reuse(broken, checkpoint):
    case = Case(NAMED["freq:4"])
    run = run_alone(case, checkpoint, broken=broken)
    with pytest.raises(AssertionError, match="log-probability"):
        hf = follow(case, run, checkpoint[case.architecture])
        check_logprobs(run["logprobs"], hf.logprobs, NUM_PREFILL)


def test_comparison_sees_the_other_rope_convention_of_the_indexer(checkpoint):
    case = Case(FULL)
    run = run_alone(case, checkpoint, override={"indexer_rope_interleave": False})
    hf = follow(case, run, checkpoint[case.architecture])
    with pytest.raises(AssertionError, match="beyond rounding"):
        check_choices("keys", selections(case, run), hf.keys)


def run_alone(case: Case, checkpoint: dict[str, str], **kwargs) -> dict:
    """One case in an engine of its own."""
    (run,) = fork().run(
        "_pattern_jobs:run_patterns",
        model=checkpoint[case.architecture],
        requests=[(case.pattern, case.ids)],
        num_decode=NUM_DECODE,
        **kwargs,
    )
    return run


def follow(case: Case, run: dict, model: str) -> HfPass:
    """Transformers with the choices of `run`; a Shared layer's keys are those of its owner."""
    keys = {layer: run["topk"][owner] for layer, owner in enumerate(case.owners)}
    return HfReference(model, case.pattern).run(case.ids, keys, run["experts"])


def selections(case: Case, run: dict) -> dict[int, torch.Tensor]:
    """Full layer -> [T, index_topk]."""
    return {layer: run["topk"][layer] for layer in case.full_layers}
