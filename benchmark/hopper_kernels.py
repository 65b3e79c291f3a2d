"""Times of the indexer's steps on one Hopper GPU, upstream's and ours, without a server.

    python benchmark/hopper_kernels.py --output benchmark/reports/hopper-kernels.json

Needs the CUDA environment (SGLang, DeepGEMM, sgl-kernel). Shapes are those of one layer and one
chunk of prefill, one request: 8,192 queries at the end of a context, 32 index heads of 128, 2,048
selected keys, pages of 64 tokens; and of one decode step. Scores come from random keys and queries
through DeepGEMM, so their distribution is not made up. Each time is the median of runs between CUDA
events. `floor` is the least that the step's bytes (at the measured copy bandwidth) or products (at
the datasheet's rate) take. A step that cannot run is listed with the reason. The last line is
JSON.
"""

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

SCHEMA_VERSION = 1
TOPK, PAGE, HEAD_DIM = 2048, 64, 128
LATENT, VALUE = 576, 512  # numbers of a token in the KV cache, and those that are its value
FP8_TFLOPS, BF16_TFLOPS = 1979, 989  # dense, H200 datasheet
SCORE_SIZES = [(8, 64, 4, 3, False), (8, 64, 4, 3, True), (8, 64, 4, 4, False)]


class Bench:
    """Rows of the table, measured until the deadline."""

    def __init__(self, deadline: float, bandwidth_tb_s: float):
        self.deadline = deadline
        self.bandwidth = bandwidth_tb_s * 1e12
        self.rows: list[dict] = []

    def time(self, case: str, name: str, run: Callable, gbytes=0.0, tflop=0.0, peak=FP8_TFLOPS):
        """Measure `run()`; returns what it returned, or None."""
        row = {"case": case, "name": name, "median_ms": None, "gbytes": gbytes, "tflop": tflop}
        self.rows.append(row)
        if time.monotonic() > self.deadline:
            row["skipped"] = "past the deadline"
            return None
        try:
            result = run()
            torch.cuda.synchronize()
            times = sorted(self._once(run) for _ in range(9))
        except Exception as error:  # one step that fails must not cost the lease its other numbers
            row["skipped"] = " ".join(f"{type(error).__name__}: {error}".split())
            print(self.line(row), file=sys.stderr, flush=True)
            return None
        floor = max(gbytes * 1e9 / self.bandwidth, tflop / peak) * 1e3
        row.update(
            median_ms=statistics.median(times), min_ms=times[0], max_ms=times[-1], floor_ms=floor
        )
        print(self.line(row), file=sys.stderr, flush=True)
        return result

    @staticmethod
    def _once(run) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    @staticmethod
    def line(row: dict) -> str:
        if row["median_ms"] is None:
            return f"{row['case']:<22} {row['name']:<34} {row['skipped'][:60]}"
        rate = ""
        if row["tflop"]:
            rate = f"{row['tflop'] / row['median_ms'] * 1e3:6.0f} TFLOP/s"
        elif row["gbytes"]:
            rate = f"{row['gbytes'] / row['median_ms']:6.2f} TB/s"
        return (
            f"{row['case']:<22} {row['name']:<34} {row['median_ms']:8.3f} ms "
            f"({row['min_ms']:.3f}-{row['max_ms']:.3f})  floor {row['floor_ms']:6.3f}  {rate}"
        )


def prefill(bench: Bench, num_rows: int, num_keys: int, num_heads: int, device) -> None:
    """One layer, one chunk: `num_rows` queries at the end of `num_keys` keys of one request."""
    from sglang_ic.hopper import hooks
    from sglang_ic.hopper.fused import score_and_select
    from sglang_ic.hopper.select import select
    from sglang_ic.hopper.slots import to_slots_

    case = f"prefill {num_rows}x{num_keys}"
    lengths = torch.arange(num_keys - num_rows + 1, num_keys + 1, dtype=torch.int32, device=device)
    starts, requests = torch.zeros_like(lengths), torch.zeros_like(lengths)
    page_table = torch.randperm(num_keys, device=device).to(torch.int32)[None]
    pairs = int(lengths.sum())
    score_gb = pairs * 4 / 1e9
    products = 2 * pairs * num_heads * HEAD_DIM / 1e12
    q = torch.randn(num_rows, num_heads, HEAD_DIM, device=device).to(torch.float8_e4m3fn)
    k = torch.randn(num_keys, HEAD_DIM, device=device).to(torch.float8_e4m3fn)
    k_scale = torch.rand(num_keys, device=device) + 0.5
    weights = torch.randn(num_rows, num_heads, device=device)
    arguments = (q, (k, k_scale), weights, starts, lengths)

    gather_index_k(bench, case, num_keys, device)

    def deep_gemm_scores():
        import deep_gemm

        return deep_gemm.fp8_mqa_logits(*arguments, clean_logits=False)

    scores = bench.time(case, "scores: DeepGEMM", deep_gemm_scores, score_gb, products)
    if scores is None:
        scores = in_triton(*arguments)
    for block_q, block_k, num_warps, stages, by_descriptor in SCORE_SIZES:
        sizes = dict(block_q=block_q, block_k=block_k, num_warps=num_warps, stages=stages)
        sizes |= {"block_q": max(1, block_q * 32 // num_heads), "by_descriptor": by_descriptor}
        name = f"scores: triton {block_q}x{block_k} w{num_warps} s{stages}"
        name += ", descriptor" if by_descriptor else ""
        ours = bench.time(case, name, lambda s=sizes: in_triton(*arguments, **s), 0, products)
        if ours is not None:
            error = (ours[-1, :num_keys] - scores[-1, :num_keys]).norm() / scores[-1].norm()
            bench.rows[-1]["relative_difference"] = error.item()
        del ours
    fused_found = bench.time(
        case,
        "scores and top-k: fused",
        lambda: score_and_select(
            q, k, k_scale, weights, starts, lengths, TOPK, page_table, requests
        ),
        0,
        products,
    )
    fused_parts(bench, case, q, (k, k_scale), weights, starts, lengths)

    def older(table, bounds, rows):
        from sgl_kernel import fast_topk_transform_fused

        return fast_topk_transform_fused(
            score=scores[rows],
            lengths=lengths[rows],
            page_table_size_1=table,
            cu_seqlens_q=bounds,
            topk=TOPK,
            row_starts=starts[rows],
        )

    whole = slice(0, num_rows)
    one_request = torch.tensor([0, num_rows], dtype=torch.int32, device=device)
    each_row = torch.arange(num_rows + 1, dtype=torch.int32, device=device)
    expected = bench.time(
        case,
        "top-k: upstream, whole chunk",
        lambda: older(page_table, one_request, whole),
        score_gb,
    )

    def in_two_pieces():
        cut = num_rows * 7 // 8
        return [
            older(page_table[requests[rows]], each_row[: rows.stop - rows.start + 1], rows)
            for rows in (slice(0, cut), slice(cut, num_rows))
        ]

    bench.time(case, "top-k: upstream, in two pieces", in_two_pieces, score_gb)
    bench.time(case, "  of it: page-table rows copied", lambda: page_table[requests], score_gb)

    rows = hooks.Rows(starts, lengths, requests)
    found = {}
    found["ragged"] = bench.time(
        case,
        "top-k: ragged",
        lambda: hooks._ragged_slots(scores, TOPK, rows, page_table),
        score_gb,
    )
    found["triton"] = bench.time(
        case,
        "top-k: triton",
        lambda: select(scores, starts, lengths, TOPK, page_table, requests),
        score_gb,
    )
    if fused_found is not None:
        scores = in_triton(*arguments)  # the sets of the pair that it stands for
        pair = select(scores, starts, lengths, TOPK, page_table, requests).sort().values
        wrong = int((fused_found.sort().values != pair).any(1).sum())
        bench.rows.append({"case": case, "name": "fused", "rows_unlike_pair": wrong})
    positions = torch.randint(0, num_keys, (num_rows, TOPK), dtype=torch.int32, device=device)
    bench.time(
        case,
        "  of it: slots looked up",
        lambda: to_slots_(positions.clone(), page_table, requests),
        positions.nbytes * 4 / 1e9,
    )

    if expected is not None:
        sets = expected.sort().values
        for name, slots in found.items():
            if slots is not None:
                wrong = int((slots.sort().values != sets).any(1).sum())
                bench.rows.append({"case": case, "name": name, "rows_unlike_upstream": wrong})
    result = torch.empty((num_rows, TOPK), dtype=torch.int32, device=device)
    bench.time(
        case,
        "result filled, then copied",
        lambda: result.fill_(-1).copy_(positions),
        result.nbytes * 3 / 1e9,
    )


def attention(bench: Bench, num_rows: int, num_keys: int, num_heads: int, device) -> None:
    """Sparse attention of one layer and chunk, which Full and Shared layers have alike.

    Queries that select alike find their keys in L2: what is left then is not the gather.
    """
    from sglang_ic.hopper import padding

    case = f"attention {num_rows}x{num_keys}"
    nope = torch.randn(num_heads, num_rows, VALUE, device=device, dtype=torch.bfloat16)
    nope = nope.transpose(0, 1)
    rope = torch.randn(num_rows, num_heads, LATENT - VALUE, device=device, dtype=torch.bfloat16)
    kv = torch.randn(num_keys, 1, LATENT, device=device, dtype=torch.bfloat16)
    draw = torch.randint(0, num_keys, (num_rows, TOPK), dtype=torch.int32, device=device)
    gbytes = draw.numel() * LATENT * 2 / 1e9
    tflop = draw.numel() * num_heads * (LATENT + VALUE) * 2 / 1e12

    def concat():
        from sglang.kernels.ops.attention.concat_mla import concat_mla_absorb_q

        return concat_mla_absorb_q(nope, rope)

    def pad(q):  # as upstream does
        padded = q.new_zeros((num_rows, -(-num_heads // 64) * 64, LATENT))
        padded[:, :num_heads] = q
        return padded

    def roomy():
        return padding.concat_with_room(None, nope, rope)

    def flash_mla(selected):
        return flash_mla_sparse(pad(concat()), kv, selected)

    def overlapping(selected):
        return flash_mla_sparse(padding.overlapping(roomy(), 64), kv, selected)

    def triton_mla(selected):
        from sglang.kernels.ops.attention.dsa.triton_sparse_mla_prefill import sparse_mla_prefill

        return sparse_mla_prefill(concat(), kv, selected, LATENT**-0.5, VALUE)

    bench.time(case, "queries put together", concat)
    bench.time(case, "queries put together, then padded", lambda: pad(concat()))
    bench.time(case, "queries put together, with room", roomy)
    ways = {
        "flashmla_sparse": flash_mla,
        "flashmla_sparse, overlapping": overlapping,
        "triton_sparse_mla": triton_mla,
    }
    for named, selected in {"": draw, ", alike": draw[:1].expand_as(draw).contiguous()}.items():
        for name, run in ways.items():
            bench.time(
                case, name + named, lambda r=run, s=selected: r(s), gbytes, tflop, BF16_TFLOPS
            )


def flash_mla_sparse(q, kv, selected):
    from sglang.kernels.ops.attention.flash_mla_interface import flash_mla_sparse_fwd

    return flash_mla_sparse_fwd(q, kv, selected[:, None], LATENT**-0.5, d_v=VALUE)[0]


def fused_parts(bench: Bench, case: str, q, keys, weights, starts, ends) -> None:
    """The steps of the fused kernel, each over all rows at once."""
    from sglang_ic.hopper import fused, sampling

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
    bench.time(
        case,
        "  of it: kept, descriptor",
        lambda: fused.keep(*arguments, bounds, sizes, by_descriptor=True),
    )
    if kept is None:
        return
    selected = starts.new_empty((len(q), TOPK))
    rows = (bounds, starts, ends, None, None, selected)
    failed = bench.time(case, "  of it: chosen", lambda: fused.choose(*kept, *rows))
    if failed is not None:
        kept_per_row = kept[1].sum(1).float().mean().item()
        found = {"rows_rescued": int(failed.sum()), "kept_per_row": kept_per_row}
        bench.rows.append({"case": case, "name": "fused", **found})


def in_triton(q, keys, weights, starts, ends, **sizes):
    from sglang_ic.hopper.scoring import score

    return score(q, *keys, weights, starts, ends, **sizes)


def gather_index_k(bench: Bench, case: str, num_keys: int, device) -> None:
    """Keys and scales out of their pages, once per layer and chunk."""
    num_pages = -(-num_keys // PAGE)
    pages = torch.randint(0, 100, (num_pages, PAGE * 132), dtype=torch.uint8, device=device)
    table = torch.randperm(num_pages, device=device).to(torch.int32)[None]
    length = torch.tensor([num_keys], device=device)

    def run():
        from sglang.kernels.ops.kvcache.dsa_index_k_cache import _get_k_and_s_triton

        return _get_k_and_s_triton(pages, table, length, num_keys, num_keys, PAGE, HEAD_DIM)

    bench.time(case, "index-K out of its pages", run, num_keys * 132 * 2 / 1e9)


def decode(bench: Bench, batch: int, num_keys: int, num_heads: int, device) -> None:
    """One layer, one step: `batch` requests of `num_keys` tokens."""
    case = f"decode {batch}x{num_keys}"
    num_pages = -(-num_keys // PAGE)
    pages = torch.randint(0, 100, (batch * num_pages, PAGE, 1, 132), dtype=torch.uint8)
    pages = pages.to(device)
    table = torch.randperm(batch * num_pages, device=device).to(torch.int32).view(batch, num_pages)
    lengths = torch.full((batch,), num_keys, dtype=torch.int32, device=device)
    q = torch.randn(batch, 1, num_heads, HEAD_DIM, device=device).to(torch.float8_e4m3fn)
    weights = torch.randn(batch, num_heads, device=device)
    key_gb = batch * num_keys * 132 / 1e9

    def schedule():
        import deep_gemm

        return deep_gemm.get_paged_mqa_logits_metadata(
            lengths[:, None], PAGE, deep_gemm.get_num_sms()
        )

    plan = bench.time(case, "schedule (once a step)", schedule)

    def paged_scores():
        import deep_gemm

        return deep_gemm.fp8_paged_mqa_logits(
            *(q, pages, weights, lengths[:, None], table, plan, num_pages * PAGE),
            clean_logits=False,
        )

    products = 2 * batch * num_keys * num_heads * HEAD_DIM / 1e12
    bench.time(case, "scores: DeepGEMM paged", paged_scores, key_gb, products)
    scores = torch.randn(batch, num_pages * PAGE, device=device)

    def paged_topk():
        from sglang.kernels.ops.attention.dsv4.topk import plan_topk_v2, topk_transform_paged_v2

        selected = torch.empty((batch, TOPK), dtype=torch.int32, device=device)
        topk_transform_paged_v2(scores, lengths, table, selected, PAGE, plan_topk_v2(lengths))
        return selected

    bench.time(case, "top-k: upstream v2, with its plan", paged_topk, scores.nbytes / 1e9)


def copy_bandwidth(device) -> float:
    """TB/s of a large copy, bytes read and written."""
    source = torch.randint(0, 100, (1 << 30,), dtype=torch.int32, device=device)
    target = torch.empty_like(source)
    times = [Bench._once(lambda: target.copy_(source)) for _ in range(6)]
    return 2 * source.nbytes / statistics.median(times[1:]) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=8192, help="queries of a chunk (%(default)s)")
    parser.add_argument("--keys", default="139264,200000,65536", help="contexts (%(default)s)")
    parser.add_argument("--heads", type=int, default=32, help="index heads (%(default)s)")
    parser.add_argument("--batches", default="1,16", help="decode batches (%(default)s)")
    parser.add_argument("--decode-keys", type=int, default=200_000)
    parser.add_argument("--bandwidth", type=float, help="TB/s for the floors; measured if left out")
    parser.add_argument("--deadline", type=float, default=170, help="seconds (%(default)s)")
    parser.add_argument("--output", type=Path, help="write the JSON here too")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("this benchmark needs an NVIDIA GPU")
    began = time.monotonic()
    device = torch.device("cuda")
    torch.manual_seed(0)
    bandwidth = args.bandwidth or copy_bandwidth(device)
    torch.cuda.empty_cache()
    bench = Bench(began + args.deadline, bandwidth)
    for batch in map(int, args.batches.split(",")):
        decode(bench, batch, args.decode_keys, args.heads, device)
    for num_keys in map(int, args.keys.split(",")):
        prefill(bench, args.rows, num_keys, args.heads, device)
        torch.cuda.empty_cache()
    attention(bench, args.rows, 139_264, args.heads, device)
    for row in bench.rows:
        print(bench.line(row) if "median_ms" in row else row)
    versions = {"torch": torch.__version__, "triton": __import__("triton").__version__}
    document = {
        "schema_version": SCHEMA_VERSION,
        "command": "python benchmark/hopper_kernels.py " + shlex.join(sys.argv[1:]),
        "hardware": torch.cuda.get_device_name(device),
        "software": versions,
        "copy_tb_per_sec": bandwidth,
        "seconds": time.monotonic() - began,
        "rows": bench.rows,
    }
    if args.output:
        args.output.write_text(json.dumps(document, indent=2) + "\n")
    print(json.dumps(document))


if __name__ == "__main__":
    main()
