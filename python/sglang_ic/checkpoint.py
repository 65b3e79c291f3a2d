"""What a checkpoint says about itself: its raw config.json, and which layers carry indexer weights.

The weights, not `indexer_types`, decide what may run as Full: a Full layer without indexer
weights runs on uninitialised memory and its answers turn to garbage past index_topk tokens. Only
tensor names are read (the safetensors index, or the JSON header of each file), never tensor
data.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"

# model.layers.3.self_attn.indexer.wq_b.weight; a multimodal wrapper puts its own prefix before it.
_INDEXER_TENSOR = re.compile(r"(?:^|\.)layers\.(\d+)\.self_attn\.indexer\.(\w+)\.(\w+)$")
_PROJECTIONS = frozenset({"wq_b", "wk", "weights_proj"})
# How a projection's own values are called: plain or fp8 / GPTQ and AWQ / compressed-tensors.
# Scales and zero points come on top and say nothing alone.
_VALUES = frozenset({"weight", "qweight", "weight_packed"})
_HEADER_LENGTH_BYTES = 8


class CheckpointError(ValueError):
    """A checkpoint file that cannot be understood; the message is one line."""


def indexer_layers(model_path: str, revision: str | None = None) -> frozenset[int] | None:
    """Layers of a checkpoint that carry a complete indexer.

    Args:
        model_path: local folder or hub id, as given to --model-path.
        revision: hub revision, None for the default branch.
    Returns:
        Layer ids, MTP layers included (ids at num_hidden_layers and above); None when nothing can
        be known: no safetensors file, a GGUF file, or an object-store address.
    Raises:
        CheckpointError: an index or a header that is not what safetensors writes.
        OSError: a hub id that can be neither downloaded nor found in the cache.
    """
    names = _tensor_names(model_path, revision)
    return None if names is None else complete_indexer_layers(names)


def complete_indexer_layers(tensor_names: Iterable[str]) -> frozenset[int]:
    """Layers whose indexer has wq_b, wk, weights_proj and k_norm among these tensor names.

    k_norm is a LayerNorm in the published DSA models, an RMSNorm (without bias) in some others: its
    bias is required when any indexer of the checkpoint has one.
    """
    parts: dict[int, set[str]] = defaultdict(set)
    for name in tensor_names:
        match = _INDEXER_TENSOR.search(name)
        if match is None:
            continue
        layer, module, tensor = int(match[1]), match[2], match[3]
        if module in _PROJECTIONS and tensor in _VALUES:
            parts[layer].add(module)
        elif module == "k_norm":
            parts[layer].add(f"k_norm.{tensor}")
    required = _PROJECTIONS | {"k_norm.weight"}
    if any("k_norm.bias" in found for found in parts.values()):
        required |= {"k_norm.bias"}
    return frozenset(layer for layer, found in parts.items() if required <= found)


def read_config_json(model_path: str, revision: str | None = None) -> dict:
    """The raw config.json, before transformers adds what it derives; {} when there is none to read.

    Raises:
        CheckpointError: config.json is not a JSON object.
        OSError: a hub id that can be neither downloaded nor found in the cache.
    """
    path = _find(model_path, "config.json", revision)
    return {} if path is None else _read_object(path)


def _tensor_names(model_path: str, revision: str | None) -> list[str] | None:
    index = _find(model_path, INDEX_FILE, revision)
    if index is not None:
        weight_map = _read_object(index).get("weight_map")
        if not isinstance(weight_map, dict):
            raise CheckpointError(f"{index} has no weight_map: download the checkpoint again")
        return list(weight_map)
    if Path(model_path).is_dir():
        files = sorted(Path(model_path).glob("*.safetensors"))
    else:
        single = _find(model_path, SINGLE_FILE, revision)
        files = [] if single is None else [single]
    if not files:
        return None
    return [name for file in files for name in header_names(file)]


def header_names(path: Path) -> list[str]:
    """Tensor names of one safetensors file, whose header is a little-endian length and JSON.

    Raises:
        CheckpointError: the file is cut short or its header is not a JSON object.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(_HEADER_LENGTH_BYTES), "little")
        # A cut or foreign file can claim any length; never try to read more than there is.
        if not 0 < length <= path.stat().st_size - _HEADER_LENGTH_BYTES:
            raise CheckpointError(
                f"{path} claims a header of {length} bytes but holds {path.stat().st_size} bytes: "
                "it is no complete safetensors file, download it again"
            )
        raw = file.read(length)
    return [name for name in _parse_object(raw, path) if name != "__metadata__"]


def _find(model_path: str, name: str, revision: str | None) -> Path | None:
    """Path of a checkpoint file, downloaded for a hub id; None when the checkpoint has none."""
    folder = Path(model_path)
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    if folder.exists() or "://" in model_path:
        return None  # a GGUF file, or an object store that only the engine can read
    from transformers.utils.hub import cached_file

    found = cached_file(
        model_path, name, revision=revision, _raise_exceptions_for_missing_entries=False
    )
    return None if found is None else Path(found)


def _read_object(path: Path) -> dict:
    return _parse_object(path.read_bytes(), path)


def _parse_object(raw: bytes, path: Path) -> dict:
    try:
        document = json.loads(raw)
    except ValueError as error:  # not UTF-8, or not JSON
        raise CheckpointError(
            f"{path} does not hold valid JSON ({error}): download the checkpoint again"
        ) from error
    if not isinstance(document, dict):
        raise CheckpointError(
            f"{path} holds a JSON {type(document).__name__}, not an object: "
            "download the checkpoint again"
        )
    return document
