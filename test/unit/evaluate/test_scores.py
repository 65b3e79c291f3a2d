"""Per-token differences against hand-computed values."""

import numpy as np
import pytest

from sglang_ic.evaluate.samples import Sample, Span
from sglang_ic.evaluate.scores import TokenScores, answers_right, differences
from sglang_ic.evaluate.wire import EngineError, token_scores


def scores(logprobs, ids, probabilities, targets=None):
    return TokenScores(
        np.zeros(len(ids), np.int32) if targets is None else np.array(targets, np.int32),
        np.array(logprobs, float),
        np.array(ids, np.int32),
        np.log(np.array(probabilities, float)),
    )


def test_dnll_is_positive_where_the_arm_is_worse():
    reference = scores([-1.0, -2.0], [[1, 2], [1, 2]], [[0.6, 0.4], [0.6, 0.4]])
    arm = scores([-1.5, -1.0], [[1, 2], [2, 1]], [[0.6, 0.4], [0.6, 0.4]])
    found = differences(reference, arm)
    assert found.dnll.tolist() == [0.5, -1.0]
    assert found.same_top1.tolist() == [True, False]


def test_answer_is_right_iff_every_token_is_on_top():
    ids = (9, 1, 2, 3, 4)
    sample = Sample("s", "s", 5, ids, (Span("a", 1, 3), Span("a", 3, 5), Span("b", 4, 5)))
    # Predictions are about tokens 1, 2, 3, 4; the third is wrong.
    found = scores([0] * 4, [[1, 0], [2, 0], [0, 3], [4, 0]], [[0.9, 0.1]] * 4, ids[1:])
    assert answers_right(sample, found).tolist() == [True, False, True]
    assert answers_right(Sample("s", "s", 5, ids), found).tolist() == []


def answer(ids):
    top = [None] + [[(-0.1, 7, None), (-3.0, 8, None)] for _ in ids[1:]]
    tokens = [(None, ids[0], None)] + [(-0.5, token, None) for token in ids[1:]]
    return {"meta_info": {"input_token_logprobs": tokens, "input_top_logprobs": top}}


def test_engine_answer_becomes_arrays():
    found = token_scores(answer([5, 6, 7]), [5, 6, 7])
    assert found.logprobs.tolist() == [-0.5, -0.5]
    assert found.targets.tolist() == [6, 7]
    assert found.top_ids.tolist() == [[7, 8], [7, 8]]
    assert found.top_logprobs[0].tolist() == [-0.1, -3.0]


def test_excluded_tokens_stay_finite():
    sent = answer([5, 6])
    sent["meta_info"]["input_top_logprobs"][1][1] = (float("-inf"), 8, None)
    found = token_scores(sent, [5, 6])
    assert np.isfinite(found.top_logprobs).all()
    assert differences(found, found).kl.tolist() == [0.0]


def test_numbers_that_overflow_are_refused():
    sent = answer([5, 6, 7])
    sent["meta_info"]["input_token_logprobs"][2] = (float("nan"), 7, None)
    with pytest.raises(EngineError, match="gives token 2 of a sample the log-probability nan"):
        token_scores(sent, [5, 6, 7])


@pytest.mark.parametrize(
    "bad", [None, [], {}, {"meta_info": {}}, {"object": "error", "message": "no"}]
)
def test_another_answer_is_refused(bad):
    with pytest.raises(EngineError, match="no log-probabilities"):
        token_scores(bad, [5, 6, 7])


def test_scores_of_other_tokens_are_refused():
    with pytest.raises(EngineError, match="not the 3 that were sent"):
        token_scores(answer([5, 6]), [5, 6, 7])
