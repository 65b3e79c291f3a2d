"""Write a trained model as a Hugging Face checkpoint, and read one back for training code.

bf16 weights in shards, experts apart, index heads without a gate as rows of zeros.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sglang_ic.demo.documents.bpe import VOCAB_SIZE
from sglang_ic.demo.shape import DsaShape, config_dict
from sglang_ic.demo.train.attention import RMS_EPS
from sglang_ic.demo.train.data import BOS_ID, PAD_ID
from sglang_ic.demo.train.model import Model

EOS_ID = 1
MAX_SHARD_BYTES = 12_000_000
INDEX = "model.safetensors.index.json"


def _pad_rows(value: Tensor, rows: int) -> Tensor:
    return torch.cat([value, value.new_zeros(rows - value.shape[0], *value.shape[1:])])


def to_checkpoint(state: dict[str, Tensor], shape: DsaShape) -> dict[str, Tensor]:
    """The training model's state dict -> tensors under a checkpoint's names, bf16."""
    tensors = {}
    for name, value in state.items():
        value = value.detach().cpu()
        name = name if name.startswith("lm_head") else f"model.{name}"
        if name.endswith("e_score_correction_bias"):
            # Both engines keep it in fp32, beside the router's weights.
            name = name.replace("e_score", "gate.e_score")
            tensors[name] = value.float()
            continue
        value = value.to(torch.bfloat16)
        if ".indexer.wq_b." in name:
            value = _pad_rows(value, shape.index_n_heads * shape.index_head_dim)
        elif ".indexer.weights_proj." in name:
            value = _pad_rows(value, shape.index_n_heads)
        if ".mlp.experts." in name:
            head, tail = name.split(".experts.")
            parts = value.chunk(shape.num_experts, dim=1 if "down_proj" in tail else 0)
            for expert, part in enumerate(parts):
                tensors[f"{head}.experts.{expert}.{tail}"] = part.contiguous()
        else:
            tensors[name] = value.contiguous()
    return tensors


def from_checkpoint(tensors: dict[str, Tensor], shape: DsaShape) -> dict[str, Tensor]:
    """The inverse of `to_checkpoint`, in fp32."""
    heads = shape.num_gated_index_heads or shape.index_n_heads
    state: dict[str, Tensor] = {}
    experts: dict[str, list[Tensor]] = {}
    for name, value in tensors.items():
        name = name.removeprefix("model.").replace("gate.e_score", "e_score")
        value = value.float()
        if ".indexer.wq_b." in name:
            value = value[: heads * shape.index_head_dim]
        elif ".indexer.weights_proj." in name:
            value = value[:heads]
        if ".mlp.experts." in name:
            head, tail = name.split(".experts.")
            number, tail = tail.split(".", 1)
            parts = experts.setdefault(f"{head}.experts.{tail}", [value] * shape.num_experts)
            parts[int(number)] = value
        else:
            state[name] = value
    for name, parts in experts.items():
        state[name] = torch.cat(parts, dim=1 if "down_proj" in name else 0)
    return state


def write_weights(directory: Path, tensors: dict[str, Tensor]) -> None:
    """Write shards of at most `MAX_SHARD_BYTES` and their index."""
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, value in tensors.items():
        if size + value.nbytes > MAX_SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = value
        size += value.nbytes
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, directory / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    total = sum(value.nbytes for value in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (directory / INDEX).write_text(json.dumps(index, indent=1) + "\n")


def write_model(directory: Path, state: dict[str, Tensor], shape: DsaShape) -> None:
    """Write weights, config.json and generation_config.json; the tokenizer is not ours to write."""
    directory.mkdir(parents=True, exist_ok=True)
    write_weights(directory, to_checkpoint(state, shape))
    ids = {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": PAD_ID}
    config = {**config_dict(shape), **ids, "vocab_size": VOCAB_SIZE, "rms_norm_eps": RMS_EPS}
    generation = {**ids, "do_sample": False}
    for name, content in (("config.json", config), ("generation_config.json", generation)):
        (directory / name).write_text(json.dumps(content, indent=2) + "\n")


def read_model(directory: Path, shape: DsaShape) -> Model:
    """A training model with a checkpoint's weights, in fp32 on the CPU."""
    weight_map = json.loads((directory / INDEX).read_text())["weight_map"]
    tensors = {}
    for file in sorted(set(weight_map.values())):
        tensors |= load_file(directory / file)
    model = Model(shape, VOCAB_SIZE)
    model.load_state_dict(from_checkpoint(tensors, shape))
    return model.eval()
