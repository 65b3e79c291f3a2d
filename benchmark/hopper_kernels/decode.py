"""One step of decode: the indexer's part, and attention."""

import torch

from hopper_kernels.shapes import HEAD_DIM, LATENT, PAGE, TOPK, VALUE
from hopper_kernels.timing import Bench


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


def decode_attention(bench: Bench, num_tokens: int, num_heads: int, device) -> None:
    """Attention of one layer and step, with keys at random in a cache that no L2 holds."""
    from sglang_ic.hopper.decode_attention import attend

    case = f"decode attention {num_tokens} tokens, {num_heads} heads"
    num_slots = 1_000_000
    nope = torch.randn(num_heads, num_tokens, VALUE, device=device, dtype=torch.bfloat16)
    nope = nope.transpose(0, 1)
    rope = torch.randn(num_tokens, num_heads, LATENT - VALUE, device=device, dtype=torch.bfloat16)
    kv = torch.randn(num_slots, 1, LATENT, device=device, dtype=torch.bfloat16)
    shape = (num_tokens, TOPK)
    selected = torch.randint(0, num_slots, shape, dtype=torch.int32, device=device).sort().values
    selected = selected.contiguous()
    lengths = torch.full((num_tokens,), TOPK, dtype=torch.int32, device=device)
    each = torch.arange(num_tokens + 1, dtype=torch.int32, device=device)
    gbytes = selected.numel() * LATENT * 2 / 1e9

    def flash_attention():  # as upstream's _forward_fa3 calls it
        from sglang.kernels.ops.attention.flash_attention import flash_attn_with_kvcache

        return flash_attn_with_kvcache(
            q=rope,
            k_cache=kv[:, :, VALUE:].unsqueeze(1),
            v_cache=kv[:, :, :VALUE].unsqueeze(1),
            qv=nope,
            page_table=selected,
            cache_seqlens=lengths,
            cu_seqlens_q=each,
            cu_seqlens_k_new=each * TOPK,
            max_seqlen_q=1,
            softmax_scale=LATENT**-0.5,
            causal=True,
        )

    def in_splits():
        return attend(nope, rope, kv, selected, LATENT**-0.5, lengths)

    bench.time_in_graph(case, "FlashAttention 3", flash_attention, gbytes)
    bench.time_in_graph(case, "ours, in splits", in_splits, gbytes)
