"""Checkpoints made from the bundled one: more heads, or an MTP layer."""

import json
from collections.abc import Callable
from pathlib import Path

import torch

Weights = dict[str, torch.Tensor]


def weights_of(source: Path) -> Weights:
    from safetensors.torch import load_file

    found: Weights = {}
    for part in sorted(source.glob("*.safetensors")):
        found |= load_file(part)
    return found


def copy_of(source: Path, folder: Path, change: Callable[[Weights, dict], None]) -> Path:
    """A copy in `folder`, which is made, whose weights and config `change` has changed in place."""
    from safetensors.torch import save_file

    weights, config = weights_of(source), json.loads((source / "config.json").read_text())
    change(weights, config)
    folder.mkdir()
    for file in source.glob("*.json*"):
        if "safetensors" not in file.name:
            (folder / file.name).write_bytes(file.read_bytes())
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def repeat_heads(weights: Weights, config: dict, times: int) -> None:
    """Every attention head `times` times, a share of the output each: the same model but for
    rounding. With a power of two the shares round as the whole does."""
    for name in list(weights):
        if name.endswith(("self_attn.q_b_proj.weight", "self_attn.kv_b_proj.weight")):
            weights[name] = torch.cat([weights[name]] * times)
        elif name.endswith("self_attn.o_proj.weight"):
            weights[name] = torch.cat([weights[name] / times] * times, dim=1)
    for key in ("num_attention_heads", "num_key_value_heads"):
        config[key] *= times


def widen(weights: Weights, config: dict, hidden_size: int) -> None:
    """Zeros behind every hidden state: the same model but for rounding."""
    old = config["hidden_size"]
    for name, tensor in weights.items():
        wide = tensor.new_zeros([hidden_size if size == old else size for size in tensor.shape])
        wide[tuple(slice(size) for size in tensor.shape)] = tensor
        if name.endswith("norm.weight") and tensor.shape == (old,):
            wide *= (old / hidden_size) ** 0.5  # the mean square is over more numbers
        weights[name] = wide
    config["hidden_size"] = hidden_size


def draft_weights(weights: Weights, config: dict) -> Weights:
    """An MTP layer: a copy of the last layer, with an eh_proj and norms of its own."""
    new, hidden = config["num_hidden_layers"], config["hidden_size"]
    old_prefix, prefix = f"model.layers.{new - 1}.", f"model.layers.{new}."
    found = {
        name.replace(old_prefix, prefix): tensor.clone()
        for name, tensor in weights.items()
        if name.startswith(old_prefix)
    }
    generator = torch.Generator().manual_seed(7)
    for name, shape in (
        ("eh_proj", (hidden, 2 * hidden)),
        ("enorm", (hidden,)),
        ("hnorm", (hidden,)),
        ("shared_head.norm", (hidden,)),
    ):
        value = torch.randn(shape, generator=generator) / hidden**0.5
        found[f"{prefix}{name}.weight"] = value if len(shape) == 2 else 1 + value
    return found
