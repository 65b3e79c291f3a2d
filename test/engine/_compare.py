"""When an engine and transformers agree: on what they choose, and on what they predict.

`T` is the number of rows. What differs is shown by layer, row and both values.
"""

import torch
from _hf import Choice, choice_mask

MAX_DISPUTED_SHARE = 0.005
# Of the row's largest score: float32 against float64 gave 2.1e-6 at most here, and a dispute
# compares two candidates in two engines.
SCORE_ROUNDING = 1e-5
MAX_LOGPROB_GAP = 1e-4


def disputed_rows(
    ours: dict[int, torch.Tensor], theirs: dict[int, Choice]
) -> list[tuple[int, int]]:
    """(layer, row) pairs whose chosen sets differ."""
    found = []
    for layer, indices in ours.items():
        mask = theirs[layer].mask
        rows = (choice_mask(indices, mask.shape[1]) != mask).any(1).nonzero().flatten()
        found += [(layer, row) for row in rows.tolist()]
    return found


def check_choices(kind: str, ours: dict[int, torch.Tensor], theirs: dict[int, Choice]) -> None:
    """`kind` ("keys" or "experts") names what is compared; sets may differ by rounding alone."""
    disputed, lines = disputed_rows(ours, theirs), []
    for layer, row in disputed:
        scores, wanted = theirs[layer].scores[row], theirs[layer].mask[row]
        took = choice_mask(ours[layer][row : row + 1], len(wanted))[0]
        extra, left = took & ~wanted, wanted & ~took
        scale = scores[scores.isfinite()].abs().max()
        # Unequal numbers of candidates leave one side empty, which is no rounding.
        same_size = took.sum() == wanted.sum()
        if not same_size or scores[left].max() - scores[extra].min() > SCORE_ROUNDING * scale:
            lines.append(
                f"layer {layer} row {row}: the engine took {_list(extra)} scored "
                f"{_list(scores[extra])}, left {_list(left)} scored {_list(scores[left])}; "
                f"the largest score is {scale:.7g}"
            )
    assert not lines, f"{kind} differ beyond rounding in {len(lines)} rows:\n" + "\n".join(
        lines[:10]
    )
    num_rows = sum(len(indices) for indices in ours.values())
    assert len(disputed) <= MAX_DISPUTED_SHARE * num_rows, (
        f"{kind} differ in {len(disputed)} of {num_rows} rows: (layer, row) {disputed[:20]}"
    )


def _list(values: torch.Tensor) -> list:
    return (values.nonzero().flatten() if values.dtype == torch.bool else values).tolist()


def check_logprobs(
    ours: torch.Tensor, theirs: torch.Tensor, num_prefill: int, max_gap: float = MAX_LOGPROB_GAP
) -> None:
    """Both [T, vocab]; rows from `num_prefill` on come from decode steps."""
    assert ours.shape == theirs.shape
    gap = (ours - theirs).abs().nan_to_num(float("inf"))
    bad = (gap > max_gap).any(1).nonzero().flatten().tolist()
    lines = []
    for row in bad[:10]:
        token = int(gap[row].argmax())
        kind = "prefill" if row < num_prefill else "decode"
        lines.append(
            f"row {row} ({kind}) token {token}: {ours[row, token]:.7g}, "
            f"transformers {theirs[row, token]:.7g}"
        )
    assert not bad, f"log-probability differs in {len(bad)} rows:\n" + "\n".join(lines)
