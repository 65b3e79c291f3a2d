"""Small random checkpoints for tests: both DSA architectures, 14 MB, under a second to write."""

from collections.abc import Collection
from pathlib import Path

from sglang_ic.demo import checkpoint
from sglang_ic.demo.shape import DsaShape


def write_checkpoint(
    directory: Path | str,
    *,
    architecture: str = "GlmMoeDsaForCausalLM",
    num_layers: int = 8,
    index_topk: int = 32,
    kv_lora_rank: int = 64,
    seed: int = 0,
    drop_indexer_layers: Collection[int] = (),
) -> Path:
    """Write a loadable checkpoint, tokenizer included, and return its folder.

    Args:
        directory: made if needed; files of the same names are overwritten.
        architecture: `GlmMoeDsaForCausalLM` or `DeepseekV32ForCausalLM`.
        index_topk: tokens each query attends to; sharing shows only in prompts many times longer.
        drop_indexer_layers: layers that get no `indexer.*` tensors, as trained sharing ships.

    Raises:
        ValueError: an architecture or a layer that does not exist.
    """
    shape = DsaShape(
        architecture=architecture,
        num_layers=num_layers,
        index_topk=index_topk,
        kv_lora_rank=kv_lora_rank,
        # Few heads often leave most keys at a score of 0 (ReLU), and the k-th place is then a tie.
        index_n_heads=16,
    )
    directory = Path(directory)
    checkpoint.write(directory, shape, seed=seed, drop_indexer_layers=drop_indexer_layers)
    return directory
