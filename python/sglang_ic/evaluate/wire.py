"""SGLang's `/generate` answer as arrays; in process it is the same dictionary.

One prefill scores a whole sample: log-probability of every token, and the N best tokens at every
place. Nothing is generated.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sglang_ic.evaluate.scores import TokenScores

# Best tokens asked for at each place. On the bundled model (1,024 tokens), with freq:4 and with one
# Full layer of 16, the mean of the KL bound from 64 is 93% and 96% of the exact mean.
NUM_TOP = 64
# exp() of it is 0 in every float; keeps -inf, as for tokens that a mask excludes, out of sums.
LOWEST_LOGPROB = -1e4


class EngineError(RuntimeError):
    """An engine or server that failed, or answered something else; the message is one line."""


def request(input_ids: Sequence[int]) -> dict[str, Any]:
    """The fields of a scoring request."""
    return {
        "input_ids": list(input_ids),
        "sampling_params": {"temperature": 0, "max_new_tokens": 0},
        "return_logprob": True,
        "logprob_start_len": 0,  # from the first token on; this also keeps prefix caches out
        "top_logprobs_num": NUM_TOP,
    }


def token_scores(answer: Any, input_ids: Sequence[int]) -> TokenScores:
    """Read the answer to `request(input_ids)`.

    Raises:
        EngineError: it is not the answer to that request.
    """
    try:
        meta = answer["meta_info"]
        tokens, top = meta["input_token_logprobs"], meta["input_top_logprobs"]
        if [token for _, token, _ in tokens] != list(input_ids):
            raise EngineError(
                f"the engine scored {len(tokens)} tokens, not the {len(input_ids)} that were sent"
            )
        # Nothing predicts the first token: SGLang reports None there.
        logprobs = np.array([value for value, _, _ in tokens[1:]], dtype=np.float64)
        if not np.isfinite(logprobs).all():
            at = int(np.flatnonzero(~np.isfinite(logprobs))[0]) + 1
            raise EngineError(
                f"the engine gives token {at} of a sample the log-probability {logprobs[at - 1]}: "
                "its numbers overflow"
            )
        pairs = np.array([[(value, token) for value, token, _ in row] for row in top[1:]])
        return TokenScores(
            targets=np.array(input_ids[1:], dtype=np.int32),
            logprobs=logprobs,
            top_ids=pairs[:, :, 1].astype(np.int32),
            top_logprobs=np.maximum(pairs[:, :, 0], LOWEST_LOGPROB),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise EngineError(
            "the engine's answer has no log-probabilities of the prompt "
            f"({type(error).__name__}: {error}): is it an SGLang server?"
        ) from error
