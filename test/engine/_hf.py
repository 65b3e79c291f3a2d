"""Transformers' own DSA models as the reference: what they score, choose and predict.

    hf = HfReference(model_path, "FFSSSFSS")
    alone = hf.run(ids)                              # chooses for itself
    led = hf.run(ids, {0: topk, ...}, {1: experts})  # scores for itself, takes what it is given

A forward pass makes two discrete choices, where a rounding error can become a large one: the keys
that a layer attends to, and the experts that a row is sent to. Both are recorded, and both can be
given. Eager attention in float32, the whole sequence in one pass without a cache, so nothing here
is shared with SGLang. `T` is the length of `ids`.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModelForCausalLM


@dataclass(frozen=True)
class Choice:
    """What one layer chose per row, among keys or among experts.

    Attributes:
        scores: [T, candidates] float32, -inf for a candidate that is not allowed.
        mask: [T, candidates] bool, transformers' own choice, whatever it was given instead.
    """

    scores: torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True)
class HfPass:
    """One forward pass. `keys` has the layers that ran an indexer, `experts` the MoE layers."""

    logprobs: torch.Tensor  # [T, vocab] float32
    keys: dict[int, Choice]
    experts: dict[int, Choice]


class HfReference:
    """A checkpoint loaded by transformers, with sharing as `pattern` says.

    GLM-MoE-DSA shares by itself (`indexer_types`). `deepseek_v32` knows no sharing: there every
    layer runs its indexer, and a Shared layer follows only if it is given its owner's keys.
    """

    def __init__(self, model_path: str | os.PathLike, pattern: str):
        config = AutoConfig.from_pretrained(model_path)
        if config.model_type == "glm_moe_dsa":
            config.indexer_types = [{"F": "full", "S": "shared"}[role] for role in pattern]
        self._model = AutoModelForCausalLM.from_pretrained(
            model_path,
            config=config,
            dtype=torch.float32,
            attn_implementation="eager",
            experts_implementation="eager",
        ).eval()
        self._keys, self._experts = _Watch(), _Watch()
        for index, layer in enumerate(self._model.model.layers):
            if layer.self_attn.indexer is not None:
                self._keys.attach(index, layer.self_attn.indexer)
            if hasattr(layer.mlp, "gate"):
                self._experts.attach(index, layer.mlp.gate)

    @torch.no_grad()
    def run(
        self,
        ids: Sequence[int],
        keys: Mapping[int, torch.Tensor] | None = None,
        experts: Mapping[int, torch.Tensor] | None = None,
    ) -> HfPass:
        """One pass over `ids`. A layer that is given a choice takes it instead of its own.

        Args:
            keys: layer -> [T, k] positions, -1 where unused.
            experts: layer -> [T, experts per token].
        """
        self._keys.begin(keys)
        self._experts.begin(experts)
        logits = self._model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        unseen = torch.ones(len(ids), len(ids), dtype=torch.bool).triu(1)
        return HfPass(
            logits.log_softmax(-1), self._keys.choices(unseen), self._experts.choices(None)
        )


class _Watch:
    """Looks into the indexer, or the router, of every layer of a model."""

    def __init__(self):
        self._given: Mapping[int, torch.Tensor] = {}
        self._seen: dict[int, _LastTopk] = {}

    def begin(self, given: Mapping[int, torch.Tensor] | None) -> None:
        self._given, self._seen = given or {}, {}

    def attach(self, layer: int, module: torch.nn.Module) -> None:
        module.forward = self._watched(layer, module.forward)

    def choices(self, forbidden: torch.Tensor | None) -> dict[int, Choice]:
        """Layer -> what it chose; `forbidden`: [T, candidates] bool."""
        found = {}
        for layer, seen in self._seen.items():
            scores = seen.scores.flatten(0, -2)
            mask = choice_mask(seen.indices.flatten(0, -2), scores.shape[1])
            if forbidden is not None:
                # A row with fewer than k allowed candidates fills up with others.
                scores, mask = scores.masked_fill(forbidden, float("-inf")), mask & ~forbidden
            found[layer] = Choice(scores, mask)
        return found

    def _watched(self, layer: int, forward: Callable) -> Callable:
        def watched(*args, **kwargs):
            with _LastTopk(self._given.get(layer)) as self._seen[layer]:
                return forward(*args, **kwargs)

        return watched


class _LastTopk(TorchFunctionMode):
    """Keeps scores and indices of the last top-k of a module, which is its choice.

    `given` replaces the indices of every top-k of the same shape. (A router that limits itself to
    groups of experts has other top-k before, over groups.)
    """

    def __init__(self, given: torch.Tensor | None):
        super().__init__()
        self._given = given
        self.scores: torch.Tensor | None = None
        self.indices: torch.Tensor | None = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func not in (torch.topk, torch.Tensor.topk):
            return result
        self.scores, self.indices = args[0], result.indices
        if self._given is None or self._given.numel() != result.indices.numel():
            return result
        given = self._given.to(result.indices.dtype).view_as(result.indices)
        # Attention scatters a mask from positions: repeat one where there is none.
        given = torch.where(given < 0, given[..., :1], given)
        return torch.return_types.topk((result.values, given))


def choice_mask(indices: torch.Tensor, num_candidates: int) -> torch.Tensor:
    """[T, k] indices, -1 where unused, as [T, num_candidates] bool."""
    spare = num_candidates  # a column for the unused ones
    columns = torch.where(indices < 0, spare, indices.long())
    mask = torch.zeros(len(indices), num_candidates + 1, dtype=torch.bool)
    return mask.scatter_(1, columns, True)[:, :num_candidates]
