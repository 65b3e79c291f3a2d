"""Prefill up to the scores: keys out of pages, DeepGEMM, ours, and with top-k in one pass."""

import torch

from hopper_kernels.chunk import Chunk
from hopper_kernels.shapes import HEAD_DIM, PAGE, TOPK
from hopper_kernels.timing import Bench


def score_steps(bench: Bench, chunk: Chunk) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Scores as upstream has them, and what the fused kernel selected."""
    products = 2 * chunk.pairs * chunk.q.shape[1] * HEAD_DIM / 1e12
    gather_index_k(bench, chunk)

    def deep_gemm_scores():
        import deep_gemm

        return deep_gemm.fp8_mqa_logits(*chunk.scored, clean_logits=False)

    gbytes = chunk.pairs * 4 / 1e9
    scores = bench.time(chunk.name, "scores: DeepGEMM", deep_gemm_scores, gbytes, products)
    if scores is None:
        scores = in_triton(*chunk.scored)
    ours = bench.time(
        chunk.name, "scores: ours, written", lambda: in_triton(*chunk.scored), 0, products
    )
    if ours is not None:
        width = len(chunk.keys[0])
        error = (ours[-1, :width] - scores[-1, :width]).norm() / scores[-1].norm()
        bench.rows[-1]["relative_difference"] = error.item()
    del ours
    selected = bench.time(chunk.name, "scores and top-k: fused", lambda: fused(chunk), 0, products)
    fused_parts(bench, chunk)
    return scores, selected


def fused(chunk: Chunk) -> torch.Tensor:
    from sglang_ic.hopper.fused import score_and_select

    q, keys, weights, starts, lengths = chunk.scored
    return score_and_select(
        *(q, *keys, weights, starts, lengths, TOPK, chunk.page_table, chunk.requests)
    )


def fused_parts(bench: Bench, chunk: Chunk) -> None:
    """The steps of the fused kernel, each over all rows at once."""
    from sglang_ic.hopper import fused, sampling

    case, (q, keys, weights, starts, ends) = chunk.name, chunk.scored

    sizes = fused.Sizes.of(TOPK, q.shape[1])
    numbers = {"step": sizes.step, "aim": sizes.aim, "capacity": sizes.lanes * sizes.levels}

    def sample():
        samples = sampling.gather_samples(*keys, sizes.step)
        return sampling.sample_bounds(q, samples, weights, starts, ends, **numbers)

    bounds = bench.time(case, "  of it: bounds from samples", sample)
    if bounds is None:
        return
    arguments = (q, *keys, weights, starts, ends)
    kept = bench.time(case, "  of it: kept", lambda: fused.keep(*arguments, bounds, sizes))
    if kept is None:
        return
    selected = starts.new_empty((len(q), TOPK))
    rows = (bounds, starts, ends, None, None, selected)
    failed = bench.time(case, "  of it: chosen", lambda: fused.choose(*kept, *rows))
    if failed is not None:
        kept_per_row = kept[2].sum(1).float().mean().item()
        found = {"rows_rescued": int(failed.sum()), "kept_per_row": kept_per_row}
        bench.rows.append({"case": case, "name": "fused", **found})


def in_triton(q, keys, weights, starts, ends):
    from sglang_ic.hopper.scoring import score

    return score(q, *keys, weights, starts, ends)


def gather_index_k(bench: Bench, chunk: Chunk) -> None:
    """Keys and scales out of their pages, once per layer and chunk."""
    num_keys, device = len(chunk.keys[0]), chunk.q.device
    num_pages = -(-num_keys // PAGE)
    pages = torch.randint(0, 100, (num_pages, PAGE * 132), dtype=torch.uint8, device=device)
    table = torch.randperm(num_pages, device=device).to(torch.int32)[None]
    length = torch.tensor([num_keys], device=device)

    def run():
        from sglang.kernels.ops.kvcache.dsa_index_k_cache import _get_k_and_s_triton

        return _get_k_and_s_triton(pages, table, length, num_keys, num_keys, PAGE, HEAD_DIM)

    bench.time(chunk.name, "index-K out of its pages", run, num_keys * 132 * 2 / 1e9)
