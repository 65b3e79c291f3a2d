"""The CUDA path of candidate layers on CPU tensors: reference kernels, upstream's torch top-k.

A pool of shuffled pages, three requests in one pass, and a dense mask of candidate pages as truth.
"""

from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from sglang_ic.candidates import pages as rule
from sglang_ic.hopper import candidates, fused_hooks, reference
from sglang_ic.hopper.marks import marked

pytest.importorskip("sglang.srt.plugins.hook_registry", exc_type=ImportError)

K, HEADS, DIM, POOL_PAGES, PAGES = 64, 4, 128, 200, 20
# One request that goes past its candidates in this pass, one that is short, one with a prefix.
SEQ_LENS, EXTEND_LENS = [1700, 300, 3000], [900, 300, 130]
FIRST = [length - rows for length, rows in zip(SEQ_LENS, EXTEND_LENS, strict=True)]
BASES = [0, 1700, 2000]
NUM_ROWS = sum(EXTEND_LENS)


def int32(values):
    return torch.tensor(values, dtype=torch.int32)


def page_table():
    """[B, pages] int32; the first two pages of requests 0 and 2 are the same: a shared prefix."""
    order = torch.randperm(POOL_PAGES, generator=torch.Generator().manual_seed(3)).int()
    table = order[: 3 * 48].view(3, 48).clone()
    table[2, :2] = table[0, :2]
    return table


class Pool:
    """Index-K in pages, gathered as upstream's pool does it."""

    index_page_size = 64

    def __init__(self):
        generator = torch.Generator().manual_seed(4)
        keys = torch.randint(-2, 3, (POOL_PAGES, 64, DIM), generator=generator)
        self.keys = keys.to(torch.float8_e4m3fn).view(torch.uint8)
        self.scales = torch.ones(POOL_PAGES, 64, 1)

    def get_index_k_scale_buffer(self, layer_id, lengths, pages, total, longest):
        assert layer_id == 1 and pages.is_contiguous() and pages.dtype == torch.int32
        assert lengths.tolist() == [longest] * len(pages) and total == longest * len(pages)
        at = pages.long()
        keys = self.keys[at].view(-1, DIM)
        return keys, self.scales[at].view(-1, 1).view(torch.uint8)


def score(q, kv, weights, starts, ends, clean_logits=False):
    """DeepGEMM's signature; what is outside a row's window is garbage, as there."""
    keys, scales = kv
    assert keys.dtype == torch.float8_e4m3fn and scales.shape == (len(keys),)
    per_head = torch.einsum("thd,sd->ths", q.float(), keys.float()).relu()
    scores = torch.einsum("ths,th->ts", per_head, weights) * scales
    column = torch.arange(len(keys))
    outside = (column < starts[:, None]) | (column >= ends[:, None])
    return scores.masked_fill(outside, 1e9)


def make_call(domain, pattern="FC"):
    """Arguments of `topk_of_candidates` behind `original`, and what makes the truth."""
    from sglang.srt.layers.attention.dsa.dsa_topk_backend import DSATopKBackend, TopkTransformMethod
    from sglang.srt.model_executor.forward_batch_info import ForwardMode

    from sglang_ic.pattern import LayerPattern
    from sglang_ic.runtime.roles import LayerRoles
    from sglang_ic.runtime.state import IndexCacheState

    method = TopkTransformMethod.RAGGED if domain == "offsets" else TopkTransformMethod.PAGED
    table = page_table()
    metadata = SimpleNamespace(
        attn_metadata=SimpleNamespace(indexer_logical_page_table=None, pooled_index_kpool=1),
        topk_backend=DSATopKBackend.TORCH,
        topk_transform_method=method,
        force_unfused_topk=domain == "positions",
        get_logical_page_table=lambda: table,
        get_indexer_seq_len_cpu=lambda: torch.tensor(SEQ_LENS),
    )
    generator = torch.Generator().manual_seed(5)
    q = torch.randint(-2, 3, (NUM_ROWS, HEADS, DIM), generator=generator)
    weights = torch.randint(-2, 3, (NUM_ROWS, HEADS, 1), generator=generator).float()
    positions = torch.cat([torch.arange(f, n) for f, n in zip(FIRST, SEQ_LENS, strict=True)])
    # The middle of what a row sees, which no other rule would choose.
    drawn = 0.4 + 0.1 * torch.rand(NUM_ROWS, K, generator=generator)
    previous = (drawn * (positions.unsqueeze(1) + 1)).int()
    previous[::7, 5:] = -1
    roles = LayerRoles(LayerPattern(pattern), 0, 2, build_all=False, index_topk=K)
    state = IndexCacheState(roles)
    state.publish(0, into_domain(previous, domain, table))
    forward_batch = SimpleNamespace(
        forward_mode=ForwardMode.EXTEND,
        attn_cp_metadata=None,
        extend_seq_lens_cpu=EXTEND_LENS,
        index_cache=state,
    )
    indexer = SimpleNamespace(
        index_topk=K,
        num_init_tokens=0,
        num_local_tokens=0,
        _with_real_sm_count=nullcontext,
        _pad_heads_for_deep_gemm=lambda q, w: (q, w, HEADS),
        _get_index_k_read_buffer=lambda pool, layer_id: pool.keys,
    )
    q = q.to(torch.float8_e4m3fn)
    return [indexer, False, forward_batch, 1, q, weights, metadata], previous, table


def spans():
    begin = 0
    for number, rows in enumerate(EXTEND_LENS):
        yield number, slice(begin, begin + rows)
        begin += rows


def into_domain(positions, domain, table):
    found = positions.clone()
    for number, rows in spans():
        at = positions[rows].clamp(min=0).long()
        if domain == "slots":
            moved = (table[number][at // 64] * 64 + at % 64).int()
        else:
            moved = (at + (BASES[number] if domain == "offsets" else 0)).int()
        found[rows] = torch.where(positions[rows] < 0, -1, moved)
    return found


def truth(call, previous, table, pool):
    """Scores [T, S] of each request with everything but its candidates at -inf."""
    q, weights = call[4], call[5].squeeze(-1)
    for number, rows in spans():
        first, length = FIRST[number], SEQ_LENS[number]
        at = torch.arange(length)
        slots = table[number][at // 64].long() * 64 + at % 64
        keys = pool.keys.view(torch.float8_e4m3fn).view(-1, DIM)[slots]
        ends = int32(range(first + 1, length + 1))
        scores = score(
            q[rows], (keys, torch.ones(length)), weights[rows], torch.zeros_like(ends), ends
        )
        scores = scores.masked_fill(at >= ends[:, None], float("-inf"))
        counts = rule.count_selected(previous[rows], first)
        lists = rule.choose_pages(counts, first, len(ends), PAGES)
        for (begin, end), listed in zip(rule.row_groups(first, len(ends)), lists, strict=True):
            outside = torch.ones(48, dtype=torch.bool)
            outside[listed] = False
            scores[begin:end, outside[at // 64]] = float("-inf")
        yield number, rows, scores


def upstream_is_not_called(*args):
    raise AssertionError("this call is a candidate layer's")


def upstream(*args):
    return ("upstream's", *args)


@pytest.fixture
def pool(monkeypatch):
    from sglang.srt.layers.attention.dsa import dsa_indexer

    made = Pool()
    monkeypatch.setenv("SGLANG_IC_APPROXIMATE_CANDIDATE_PAGES", str(PAGES))
    monkeypatch.setattr(dsa_indexer, "get_token_to_kv_pool", lambda: made)
    monkeypatch.setattr(dsa_indexer, "resolve_fp8_mqa_logits_fn", lambda: score)
    kernels = pytest.importorskip("sglang_ic.hopper.pages")
    monkeypatch.setattr(kernels, "count_selected", reference.count_selected)
    monkeypatch.setattr(kernels, "look_up_", reference.look_up_)
    return made


@pytest.mark.parametrize("domain", ["positions", "slots", "offsets"])
def test_every_row_selects_the_best_of_its_candidates(pool, domain):
    call, previous, table = make_call(domain)
    found = candidates.topk_of_candidates(upstream_is_not_called, *call)
    assert found.shape == (NUM_ROWS, K) and found.dtype == torch.int32
    for number, rows, scores in truth(call, previous, table, pool):
        place = torch.arange(SEQ_LENS[number])[None].int()
        if domain == "slots":
            token = table[number][place.long() // 64] * 64 + place % 64
        else:
            token = place + (BASES[number] if domain == "offsets" else 0)
        position_of = {int(t): at for at, t in enumerate(token[0].tolist())}
        for row, taken in zip(scores, found[rows].tolist(), strict=True):
            count = min(K, int((row > float("-inf")).sum()))
            assert sum(one >= 0 for one in taken) == count
            best = row.topk(count).values
            own = row[torch.tensor([position_of[one] for one in taken if one >= 0])]
            assert len(set(taken) - {-1}) == count  # no token twice
            assert torch.equal(own.sort(descending=True).values, best)


def test_candidates_are_scored_by_upstream(pool, monkeypatch):
    """Also where Full layers' scores are not written: see ``fused_hooks``."""
    from sglang.srt.layers.attention.dsa import dsa_indexer

    call, _, _ = make_call("positions")
    plain = candidates.topk_of_candidates(upstream_is_not_called, *call)
    resolve = partial(fused_hooks.scores_with_fused_kernel, dsa_indexer.resolve_fp8_mqa_logits_fn)
    monkeypatch.setattr(dsa_indexer, "resolve_fp8_mqa_logits_fn", resolve)
    with marked(fused_hooks._unwritten):
        assert torch.equal(candidates.topk_of_candidates(upstream_is_not_called, *call), plain)


def test_candidates_leave_something_out(pool):
    call, previous, table = make_call("positions")
    hidden = [
        int((scores == float("-inf")).sum(dim=1).float().mean()) - length // 2
        for (_, _, scores), length in zip(truth(call, previous, table, pool), SEQ_LENS, strict=True)
    ]
    assert hidden[2] > 0


def other_calls():
    from sglang.srt.model_executor.forward_batch_info import ForwardMode

    yield "a Full layer", lambda call: call.__setitem__(3, 0)
    for mode in ("MIXED", "DECODE", "TARGET_VERIFY"):
        yield mode, lambda call, m=mode: setattr(call[2], "forward_mode", ForwardMode[m])
    yield "context parallelism", lambda call: setattr(call[2], "attn_cp_metadata", object())
    yield (
        "translated pages",
        lambda call: setattr(call[6].attn_metadata, "indexer_logical_page_table", object()),
    )
    yield "pooled keys", lambda call: setattr(call[6].attn_metadata, "pooled_index_kpool", 4)
    yield "a batch without a state", lambda call: setattr(call[2], "index_cache", None)
    yield "no indices in this pass", lambda call: call[2].index_cache.publish(0, None)


@pytest.mark.parametrize("number", range(9))
def test_every_other_call_reaches_upstream_as_it_was(pool, number):
    name, change = list(other_calls())[number]
    call, _, _ = make_call("slots")
    change(call)
    word, *given = candidates.topk_of_candidates(upstream, *call)
    assert word == "upstream's", name
    assert all(one is two for one, two in zip(given, [*call, None], strict=True))


def test_the_number_of_other_calls_is_the_number_tested():
    assert len(list(other_calls())) == 9


def test_requests_within_their_candidates_reach_upstream(pool, monkeypatch):
    call, _, _ = make_call("slots")
    call[2].index_cache.candidate_pages = 48
    assert candidates.topk_of_candidates(upstream, *call)[0] == "upstream's"


def test_tokens_that_upstream_always_selects_are_refused(pool):
    call, _, _ = make_call("slots")
    call[0].num_local_tokens = 1
    with pytest.raises(NotImplementedError, match="index_local_tokens"):
        candidates.topk_of_candidates(upstream_is_not_called, *call)


def test_a_selection_of_another_layer_is_an_error(pool):
    from sglang_ic.runtime.state import IndexCacheError

    call, _, _ = make_call("slots")
    call[2].index_cache.owner_layer = 1
    with pytest.raises(
        IndexCacheError, match="candidate layer 1 needs the indices of Full layer 0"
    ):
        candidates.topk_of_candidates(upstream_is_not_called, *call)
