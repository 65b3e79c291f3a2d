"""The indexer's forward over a batch: which rows it writes and reads, and what it returns."""

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("sglang.srt.model_executor.forward_context", exc_type=ImportError)

from sglang.srt.model_executor.forward_batch_info import ForwardMode  # noqa: E402
from sglang.srt.model_executor.forward_context import (  # noqa: E402
    ForwardContext,
    forward_context,
)

from sglang_ic.cpu.backend import plan_rows  # noqa: E402
from sglang_ic.cpu.indexer import indexer_forward  # noqa: E402

HIDDEN, LORA, HEADS, DIM, ROPE, K, SLOTS = 16, 24, 4, 128, 64, 8, 1024


class Store:
    def __init__(self):
        self.k = torch.zeros(SLOTS, DIM)

    def rows(self, layer_id):
        return self.k

    def store(self, layer_id, loc, k):
        self.k[loc] = k


class Linear(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x), None


def half_turn(positions, q, k):
    """A rotation by position that is easy to repeat: every second position flips the sign."""
    sign = (1 - 2 * (positions % 2)).float().view(-1, 1, 1)
    return q * sign, k * sign


def make_indexer(seed=0):
    torch.manual_seed(seed)
    return SimpleNamespace(
        wq_b=Linear(LORA, HEADS * DIM, bias=False),
        wk=Linear(HIDDEN, DIM, bias=False),
        k_norm=torch.nn.LayerNorm(DIM),
        weights_proj=Linear(HIDDEN, HEADS, bias=False).bfloat16(),
        rotary_emb=half_turn,
        rope_head_dim=ROPE,
        n_heads=HEADS,
        head_dim=DIM,
        index_topk=K,
        softmax_scale=DIM**-0.5,
        num_init_tokens=0,
        num_local_tokens=0,
    )


def make_batch(mode, prefix_lens, extend_lens, req_to_token, padding=0):
    requests = torch.arange(len(prefix_lens))
    seq_lens = torch.tensor([p + e for p, e in zip(prefix_lens, extend_lens, strict=True)])
    slots = [
        req_to_token[r, p : p + e].long()
        for r, (p, e) in enumerate(zip(prefix_lens, extend_lens, strict=True))
    ]
    slots.append(torch.zeros(padding, dtype=torch.int64))
    return SimpleNamespace(
        forward_mode=mode,
        batch_size=len(prefix_lens),
        seq_lens=seq_lens,
        extend_seq_lens=torch.tensor(extend_lens),
        req_pool_indices=requests,
        out_cache_loc=torch.cat(slots),
    )


def run(indexer, store, batch, req_to_token, x, q_lora, positions, return_indices=True):
    backend = SimpleNamespace(
        plan=plan_rows(batch, req_to_token), token_to_kv_pool=SimpleNamespace(index_key_cache=store)
    )
    with torch.no_grad(), forward_context(ForwardContext(attn_backend=backend)):
        return indexer_forward(indexer, x, q_lora, positions, batch, 0, return_indices)


def reference(indexer, x, q_lora):
    """[T, K] for one request from position 0, in float64, dense."""
    num = x.shape[0]
    with torch.no_grad():
        q = indexer.wq_b(q_lora)[0].view(num, HEADS, DIM).double()
        k = indexer.k_norm(indexer.wk(x)[0]).double()
        sign = (1 - 2 * (torch.arange(num) % 2)).double()
        q[..., :ROPE] *= sign.view(-1, 1, 1)
        k[:, :ROPE] *= sign.view(-1, 1)
        w = x.double() @ indexer.weights_proj.weight.double().t()
    scores = torch.einsum("th,ths->ts", w, torch.einsum("thd,sd->ths", q, k).relu())
    scores = scores.masked_fill(torch.ones(num, num).triu(1).bool(), float("-inf"))
    out = torch.full((num, K), -1, dtype=torch.int32)
    for row in range(num):
        count = min(K, row + 1)
        order = torch.sort(scores[row], descending=True, stable=True).indices
        out[row, :count] = order[:count].sort().values.int()
    return out


@pytest.fixture
def setup():
    torch.manual_seed(1)
    lengths = [50, 7, 23]
    slots = torch.randperm(SLOTS - 1)[: sum(lengths)] + 1
    req_to_token = torch.zeros(3, 64, dtype=torch.int32)
    for request, part in enumerate(slots.split(lengths)):
        req_to_token[request, : len(part)] = part.int()
    inputs = [(torch.randn(n, HIDDEN), torch.randn(n, LORA)) for n in lengths]
    indexer = make_indexer()
    expected = [reference(indexer, x, q_lora) for x, q_lora in inputs]
    return indexer, req_to_token, lengths, inputs, expected


def rows_of(inputs, begins, ends):
    x = torch.cat([x[b:e] for (x, _), b, e in zip(inputs, begins, ends, strict=True)])
    lora = torch.cat([q[b:e] for (_, q), b, e in zip(inputs, begins, ends, strict=True)])
    positions = torch.cat([torch.arange(b, e) for b, e in zip(begins, ends, strict=True)])
    return x, lora, positions


def test_requests_with_and_without_prefix_and_single_tokens_share_a_pass(setup):
    indexer, req_to_token, lengths, inputs, expected = setup
    store = Store()
    begins = [30, 0, 22]  # a prefix, none, and a decode row of a mixed batch
    batch = make_batch(ForwardMode.EXTEND, [0, 0, 0], begins, req_to_token)
    stored = run(indexer, store, batch, req_to_token, *rows_of(inputs, [0] * 3, begins))
    assert stored.shape == (52, K)
    extend = [n - b for n, b in zip(lengths, begins, strict=True)]
    batch = make_batch(ForwardMode.MIXED, begins, extend, req_to_token)
    found = run(indexer, store, batch, req_to_token, *rows_of(inputs, begins, lengths))
    wanted = torch.cat([e[b:] for e, b in zip(expected, begins, strict=True)])
    assert found.dtype == torch.int32
    assert torch.equal(found, wanted)


def test_decode_reads_the_keys_of_earlier_passes(setup):
    indexer, req_to_token, lengths, inputs, expected = setup
    store = Store()
    begins = [n - 1 for n in lengths]
    batch = make_batch(ForwardMode.EXTEND, [0, 0, 0], begins, req_to_token)
    x, lora, positions = rows_of(inputs, [0] * 3, begins)
    # Store only: what a dense prefill asks of the indexer.
    assert run(indexer, store, batch, req_to_token, x, lora, positions, False) is None
    batch = make_batch(ForwardMode.DECODE, begins, [1] * 3, req_to_token)
    found = run(indexer, store, batch, req_to_token, *rows_of(inputs, begins, lengths))
    assert torch.equal(found, torch.stack([e[-1] for e in expected]))


def test_rows_of_no_request_are_padding(setup):
    indexer, req_to_token, lengths, inputs, expected = setup
    batch = make_batch(ForwardMode.EXTEND, [0], [7], req_to_token[1:], padding=3)
    x, lora, positions = rows_of(inputs[1:2], [0], [7])
    x, lora = (torch.cat([rows, torch.randn(3, rows.shape[1])]) for rows in (x, lora))
    positions = torch.cat([positions, torch.zeros(3, dtype=torch.int64)])
    found = run(indexer, Store(), batch, req_to_token[1:], x, lora, positions)
    assert torch.equal(found[:7], expected[1])
    assert (found[7:] == -1).all()


@pytest.mark.parametrize("num_rows", [0, 4])
def test_an_idle_batch_returns_padding_and_stores_nothing(setup, num_rows):
    indexer, req_to_token, *_ = setup
    store = Store()
    batch = make_batch(ForwardMode.IDLE, [], [], req_to_token)
    x, lora = torch.randn(num_rows, HIDDEN), torch.randn(num_rows, LORA)
    found = run(indexer, store, batch, req_to_token, x, lora, torch.zeros(num_rows).long())
    assert found.shape == (num_rows, K) and found.dtype == torch.int32
    assert (found == -1).all()
    assert store.k.abs().max() == 0


def test_speculative_modes_are_refused(setup):
    _, req_to_token, *_ = setup
    batch = make_batch(ForwardMode.TARGET_VERIFY, [4], [3], req_to_token)
    with pytest.raises(NotImplementedError, match="TARGET_VERIFY"):
        plan_rows(batch, req_to_token)


@pytest.mark.parametrize("num_gated", [0, 1, 3])
def test_heads_with_a_zero_gate_change_nothing(setup, num_gated):
    _, req_to_token, lengths, inputs, _ = setup
    indexer = make_indexer()
    with torch.no_grad():
        indexer.weights_proj.weight[num_gated:] = 0
    begins = [0, 0, 0]
    batch = make_batch(ForwardMode.EXTEND, begins, lengths, req_to_token)
    found = run(indexer, Store(), batch, req_to_token, *rows_of(inputs, begins, lengths))
    expected = [reference(indexer, x, q_lora) for x, q_lora in inputs]
    assert torch.equal(found, torch.cat(expected))
