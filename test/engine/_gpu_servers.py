"""What servers of the GPU tests share: environments, tolerances, and stock beside the fork."""

import os
from typing import Any

from sglang_ic.hopper.switches import NAMES, OFF
from sglang_ic.pattern import LayerPattern
from sglang_ic.server.arguments import BUNDLED_CUDA_ENVIRONMENT

ALL_OFF = dict.fromkeys(NAMES, OFF)
# Short prompts stay sparse: their dense kernels lack the bundled model's head sizes.
SPARSE = {"SGLANG_DSA_PREFILL_DENSE_ATTN_KV_LEN_THRESHOLD": "0"}
# Upstream's kernels, and of those the ones that repeat themselves bit for bit.
EXACT = {**os.environ, **ALL_OFF, **BUNDLED_CUDA_ENVIRONMENT}
# Of log-probabilities that two ways to compute the same model may be apart.
SAME_MODEL = {"median": 0.01, "mean": 0.03}
NO_STOCK = "SGLANG_IC_STOCK_SITE names no unpatched sglang"


def run_as_stock() -> dict[str, Any] | None:
    """Keywords with which `_server.running` starts the unpatched package that lies in the folder
    SGLANG_IC_STOCK_SITE; None if it names none."""
    site = os.environ.get("SGLANG_IC_STOCK_SITE")
    if not site:
        return None
    environment = {**EXACT, "PYTHONPATH": site, "SGLANG_PLUGINS": "none"}
    return {"module": "sglang.launch_server", "env": environment}


def in_stocks_words(pattern: str) -> dict[str, list[str]]:
    """F/S text as the override that stock obeys."""
    return {"indexer_types": LayerPattern.parse(pattern, len(pattern)).indexer_types}
