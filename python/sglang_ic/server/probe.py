"""Look into the selections of a running engine: which tokens layers pick, and what these hold.

Tools switch it on for single prefills (`Engine.collective_rpc`); a server does not offer it. It
hangs on PyTorch's own forward hooks of the attention modules, which exist only while it is on, and
only reads: what the engine computes is the same, bit for bit.

L = layers    R = sampled query rows    H = attention heads of this rank    S = tokens seen
k = index_topk    D = kv_lora_rank + rope width
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sglang_ic.server.observe import roles_of

ATTRIBUTE = "index_cache_probe"  # of the scheduler, while a probe is on
SCORE_BLOCK_BYTES = 64 << 20  # attention scores held at a time


class Probe:
    """Watches one request's prefill, which may come in several passes."""

    def __init__(self, runner: Any, positions: list[int]) -> None:
        """Start watching.

        Args:
            runner: a ModelRunner.
            positions: query positions to look at, ascending.
        """
        self.pool = runner.token_to_kv_pool
        self.req_to_token = runner.req_to_token_pool.req_to_token
        self.positions = positions
        self.num_layers = roles_of(runner).pattern.num_layers
        self.topk: list[dict[int, np.ndarray]] = [{} for _ in range(self.num_layers)]
        self.mass: list[dict[int, np.ndarray]] = [{} for _ in range(self.num_layers)]
        self._sets: list[torch.Tensor] = []  # selections of this pass so far, [rows, k] each
        layers = runner.model.model.layers
        self._handles = [
            layer.self_attn.attn_mqa.register_forward_hook(self._attended, with_kwargs=True)
            for layer in layers
        ]

    def stop(self) -> None:
        for handle in self._handles:
            handle.remove()

    def arrays(self) -> dict[str, np.ndarray]:
        """`topk` [L, R, k] int32 and `mass` [L, L, R] float32, see evaluate.overlap.Probed.

        Raises:
            ValueError: not every sampled row was seen in every layer.
        """
        wanted = set(self.positions)
        for layer, rows in enumerate(self.topk):
            if rows.keys() != wanted:
                raise ValueError(
                    f"layer {layer} showed {len(rows)} of {len(wanted)} query rows to the probe; "
                    "send one request, longer than the last sampled position, between start and "
                    "stop"
                )
        order = sorted(wanted)
        return {
            "topk": np.stack([np.stack([rows[at] for at in order]) for rows in self.topk]),
            "mass": np.stack([np.stack([rows[at] for at in order], 1) for rows in self.mass]),
        }

    def _attended(self, attention, args, kwargs, _output) -> None:
        """Forward hook: attention has run, so the cache holds every token that a row sees."""
        query, _, _, forward_batch = args[:4]
        if not forward_batch.forward_mode.is_extend() or forward_batch.batch_size != 1:
            return
        first = int(forward_batch.positions[0])
        end = int(forward_batch.seq_lens[0])
        inside = [at for at in self.positions if first <= at < end]
        if not inside:
            return
        layer = attention.layer_id
        if layer == 0:
            self._sets = []
        assert layer == len(self._sets), f"layer {layer} attended out of order"
        rows = torch.tensor([at - first for at in inside], device=query.device)
        self._sets.append(kwargs["topk_indices"].index_select(0, rows).long())
        dim = attention.qk_head_dim
        query = query.view(query.shape[0], attention.tp_q_head_num, -1).index_select(0, rows)
        if "q_rope" in kwargs:
            rope = kwargs["q_rope"].view(-1, attention.tp_q_head_num, dim - query.shape[2])
            query = torch.cat([query, rope.index_select(0, rows)], dim=2)
        slots = self.req_to_token[int(forward_batch.req_pool_indices[0]), :end].long()
        latent = self.pool.get_key_buffer(layer).view(-1, dim).index_select(0, slots)
        seen = torch.tensor(inside, device=query.device) + 1
        shares = mean_attention(query, latent, seen, attention.scaling)
        mass = torch.stack([mass_in(shares, chosen) for chosen in self._sets])
        mass = torch.nn.functional.pad(
            mass, (0, 0, 0, self.num_layers - len(self._sets)), value=float("nan")
        )
        for column, at in enumerate(inside):
            self.topk[layer][at] = self._sets[layer][column].int().cpu().numpy()
            self.mass[layer][at] = mass[:, column].cpu().numpy()


def mean_attention(
    query: torch.Tensor, latent: torch.Tensor, seen: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Attention over all tokens, as if nothing were selected, averaged over heads.

    Args:
        query: [R, H, D].
        latent: [S, D].
        seen: [R] int64, each row's number of tokens: itself and those before it.
    Returns:
        [R, S] float32; rows sum to 1.
    """
    num_rows, num_heads, _ = query.shape
    num_seen = latent.shape[0]
    latent = latent.float()
    out = torch.empty(num_rows, num_seen, device=query.device)
    hidden = torch.arange(num_seen, device=query.device) >= seen.unsqueeze(1)
    block = max(1, SCORE_BLOCK_BYTES // (num_heads * num_seen * 4))
    for begin in range(0, num_rows, block):
        rows = slice(begin, begin + block)
        scores = torch.matmul(query[rows].float(), latent.t()) * scaling
        scores.masked_fill_(hidden[rows].unsqueeze(1), float("-inf"))
        out[rows] = scores.softmax(dim=2).mean(dim=1)
    return out


def mass_in(shares: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """[R] float32: sum of `shares` [R, S] at the positions `chosen` [R, k]; -1 is unused."""
    picked = shares.gather(1, chosen.clamp_min(0))
    return picked.masked_fill(chosen < 0, 0.0).sum(dim=1)


def refusal(runner: Any) -> str | None:
    """Why this engine cannot be probed, in one line; None when it can."""
    from sglang.srt.environ import envs
    from sglang.srt.runtime_context import get_parallel

    if roles_of(runner) is None:
        return "this model has no DSA indexer that sglang_ic looks after"
    if get_parallel().dp_size > 1 or get_parallel().pp_size > 1:
        return "data and pipeline parallelism spread a request's layers or rows over processes"
    if runner.device != "cpu" and envs.SGLANG_DSA_FUSE_TOPK.get():
        return (
            "the fused top-k hands out cache slots instead of positions; "
            "set SGLANG_DSA_FUSE_TOPK=false"
        )
    if runner.token_to_kv_pool.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return (
            f"the KV cache is {runner.token_to_kv_pool.dtype}, whose rows cannot be read back; "
            "use --kv-cache-dtype bfloat16"
        )
    return None


def start_index_cache_probe(scheduler: Any, positions: str) -> None:
    """Scheduler method: watch the prefill that comes next.

    Args:
        positions: JSON list of query positions.
    Raises:
        ValueError: this engine cannot be probed, a probe is on already, or requests are running.
    """
    runner = scheduler.tp_worker.model_runner
    if (reason := refusal(runner)) is not None:
        raise ValueError(reason)
    if getattr(scheduler, ATTRIBUTE, None) is not None:
        raise ValueError("a probe is on already; stop it first")
    if not scheduler.is_fully_idle():
        raise ValueError("requests are running; wait for them before starting the probe")
    setattr(scheduler, ATTRIBUTE, Probe(runner, sorted(json.loads(positions))))


def stop_index_cache_probe(scheduler: Any, folder: str) -> None:
    """Scheduler method: stop watching; write `rank<r>.npz` of this tensor-parallel rank.

    Raises:
        ValueError: no probe is on, or it has not seen every row.
    """
    from sglang.srt.runtime_context import get_parallel

    probe = getattr(scheduler, ATTRIBUTE, None)
    if probe is None:
        raise ValueError("no probe is on")
    setattr(scheduler, ATTRIBUTE, None)
    probe.stop()
    np.savez(Path(folder) / f"rank{get_parallel().tp_rank}.npz", **probe.arrays())
