"""What runs inside SGLang: the only names that the patches and the plugin call.

``roles``   which layers run their indexer, held by the model
``state``   the top-k indices of one forward pass, held by its ``ForwardBatch``
``carry``   the functions that the patched model code calls
``metrics`` counters and gauges

This package imports nothing of SGLang while it is being imported, because SGLang's model files
import it first.
"""

from sglang_ic.runtime.carry import (
    begin_forward,
    end_forward,
    model_roles,
    publish,
    runs_indexer,
    topk_for,
)

__all__ = [
    "begin_forward",
    "end_forward",
    "model_roles",
    "publish",
    "runs_indexer",
    "topk_for",
]
