"""What servers answer, and how far two answers are apart in log-probability."""

import json

import torch


def ask(server, ids, new_tokens: int, start: int = 0):
    """`start` of the log-probabilities: 0 computes the whole prompt, -1 reads it from the cache."""
    parameters = {"max_new_tokens": new_tokens, "temperature": 0, "ignore_eos": True}
    body = {"input_ids": ids, "sampling_params": parameters}
    return server.post("/generate", {**body, "return_logprob": True, "logprob_start_len": start})


def logprobs(answer) -> torch.Tensor:
    """Of prompt tokens after the first, then of the answer's."""
    meta = answer["meta_info"]
    rows = meta["input_token_logprobs"][1:] + meta["output_token_logprobs"]
    return torch.tensor([row[0] for row in rows])


def check_gap(name: str, ours: torch.Tensor, theirs: torch.Tensor, limits: dict) -> None:
    """Print the differences, and fail where one of `limits` (median, mean) is exceeded."""
    gap = (ours - theirs).abs()
    found = {"median": gap.median().item(), "mean": gap.mean().item(), "max": gap.max().item()}
    print(json.dumps({name: found}))
    assert all(found[key] <= limit for key, limit in limits.items()), (name, found, limits)
