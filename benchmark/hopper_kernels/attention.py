"""Sparse attention of one layer and chunk: padded as upstream does, upstream's in Triton, ours."""

import torch

from hopper_kernels.shapes import LATENT, TOPK, VALUE
from hopper_kernels.timing import BF16_TFLOPS, Bench


def attention(bench: Bench, num_rows: int, num_keys: int, num_heads: int, device) -> None:
    """Sparse attention of one layer and chunk, which Full and Shared layers have alike.

    Queries that select alike find their keys in L2: what is left then is not the gather. Keys that
    are sorted lie closer together for queries that run at a time; the sets are the same.
    """
    from sglang_ic.hopper.attention import attend

    case = f"attention {num_rows}x{num_keys}, {num_heads} heads"
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

    def flash_mla(selected):
        return flash_mla_sparse(pad(concat()), kv, selected)

    def triton_mla(selected):
        from sglang.kernels.ops.attention.dsa.triton_sparse_mla_prefill import sparse_mla_prefill

        return sparse_mla_prefill(concat(), kv, selected, LATENT**-0.5, VALUE)

    def as_they_are(selected):
        return attend(nope, rope, kv, selected, LATENT**-0.5)

    bench.time(case, "queries put together", concat)
    bench.time(case, "queries put together, then padded", lambda: pad(concat()))
    ways = {
        "flashmla_sparse": flash_mla,
        "triton_sparse_mla": triton_mla,
        "ours, heads as they are": as_they_are,
    }
    cases = {
        "": draw,
        ", sorted": draw.sort().values,
        ", alike": draw[:1].expand_as(draw).contiguous(),
    }
    for named, selected in cases.items():
        for name, run in ways.items():
            bench.time(
                case, name + named, lambda r=run, s=selected: r(s), gbytes, tflop, BF16_TFLOPS
            )


def attention_by_order(bench: Bench, case: str, chosen: dict[str, torch.Tensor], num_keys) -> None:
    """Our attention over selections as each top-k writes them: alike as sets, in other orders.

    Args:
        chosen: name -> [R, 2048] int32, rows of a cache of `num_keys`.
    """
    from sglang_ic.hopper.attention import attend

    some = chosen["ragged"]
    num_rows, num_heads, device = len(some), 32, some.device
    nope = torch.randn(num_heads, num_rows, VALUE, device=device, dtype=torch.bfloat16)
    nope = nope.transpose(0, 1)
    rope = torch.randn(num_rows, num_heads, LATENT - VALUE, device=device, dtype=torch.bfloat16)
    kv = torch.randn(num_keys, 1, LATENT, device=device, dtype=torch.bfloat16)
    gbytes = num_rows * TOPK * LATENT * 2 / 1e9
    for name, selected in chosen.items():
        if selected is None:
            continue
        bench.time(
            case,
            f"attention, 32 heads, as {name} writes",
            lambda s=selected: attend(nope, rope, kv, s, LATENT**-0.5),
            gbytes,
        )


def flash_mla_sparse(q, kv, selected):
    from sglang.kernels.ops.attention.flash_mla_interface import flash_mla_sparse_fwd

    return flash_mla_sparse_fwd(q, kv, selected[:, None], LATENT**-0.5, d_v=VALUE)[0]
