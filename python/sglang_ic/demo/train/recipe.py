"""The stages of training, in the order of the DSA recipe, and their step sizes.

1. *dense*: ordinary training with full attention, over growing lengths. Retrieval appears on
   short documents first and then has to survive longer ones.
2. *warmup*: the model is frozen; every indexer learns to imitate the attention of its layer,
   over all tokens.
3. *sparse*: attention sees what the indexers select; the model learns from the language loss, the
   indexers from KL on the selected set.
"""

import hashlib
import json
from dataclasses import asdict, dataclass

from sglang_ic.demo.shape import DsaShape

# Sizes that the CPU path runs fast, Hopper's kernels accept, and 24 MB hold. DeepGEMM's index
# scores take 32 or 64 heads of 128 (8 of ours have a gate, the CPU path scores only those), the
# sparse MLA kernels a latent of 512 + 64, FlashMLA a top-k that is a multiple of 128.
SHAPE = DsaShape(
    architecture="GlmMoeDsaForCausalLM",
    num_layers=16,
    index_topk=128,
    kv_lora_rank=512,
    index_n_heads=32,
    num_gated_index_heads=8,
    hidden_size=192,
    num_heads=4,
    q_lora_rank=64,
    qk_nope_head_dim=32,
    v_head_dim=32,
    intermediate_size=384,
    moe_intermediate_size=32,
    num_experts=4,
)


@dataclass(frozen=True)
class Stage:
    """`steps` batches of `batch_size` documents of `length` tokens; step sizes go linearly."""

    name: str
    kind: str  # "dense", "warmup" or "sparse"
    steps: int
    length: int
    batch_size: int
    lr: float
    last_lr: float
    num_rows: int = 256  # query rows sampled per layer for the indexers' loss

    def lr_at(self, step: int) -> float:
        return self.lr + (self.last_lr - self.lr) * step / max(1, self.steps - 1)


RECIPE = (
    Stage("dense-256", "dense", 800, 256, 256, 1e-3, 1e-3),
    Stage("dense-512", "dense", 500, 512, 128, 1e-3, 1e-3),
    Stage("dense-1k", "dense", 1300, 1024, 64, 1e-3, 1e-3),
    Stage("dense-2k", "dense", 900, 2048, 32, 1e-3, 1e-3),
    Stage("dense-4k", "dense", 700, 4096, 16, 1e-3, 7e-4),
    Stage("dense-8k", "dense", 700, 8192, 8, 7e-4, 4e-4),
    Stage("warmup-2k", "warmup", 300, 2048, 16, 2e-3, 2e-3),
    Stage("warmup-8k", "warmup", 300, 8192, 4, 2e-3, 1e-3),
    Stage("sparse-2k", "sparse", 150, 2048, 16, 4e-4, 4e-4),
    Stage("sparse-4k", "sparse", 120, 4096, 8, 4e-4, 3e-4),
    Stage("sparse-8k", "sparse", 260, 8192, 4, 3e-4, 0.0),
)

WARMUP_STEPS = 300  # of the very first stage, from step size 0
BETAS = (0.9, 0.98)
WEIGHT_DECAY = 0.01
MAX_GRAD_NORM = 1.0
BALANCE_RATE = 1e-3
ANSWER_WEIGHT = 1.0  # of the mean answer loss, beside the mean loss of all tokens


def fingerprint(shape: DsaShape, stages: tuple[Stage, ...], seed: int) -> str:
    """What a checkpoint must have been made with to be continued."""
    text = json.dumps([asdict(shape), [asdict(s) for s in stages], seed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
