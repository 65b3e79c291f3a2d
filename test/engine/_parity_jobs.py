"""What is measured the same way on both SGLangs; only upstream's own names are used here.

Jobs of `_driver.py`. Lists and tensors go out, so that the test compares and explains.
"""

import functools
import inspect
import json
import pkgutil
import textwrap
from collections import Counter
from contextlib import contextmanager

import torch
from _runner import make_runner


def prompt(length: int, seed: int) -> list[int]:
    """Token ids away from the special ones of the tiny checkpoints' vocabulary."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 250, (length,), generator=generator).tolist()


def build(model: str, override: dict, **server_args):
    return make_runner(model, json_model_override_args=json.dumps(override), **server_args)


@contextmanager
def counted_indexers():
    """Count the forwards of each layer's indexer; start before the model is built."""
    from sglang.srt.layers.attention.dsa.dsa_indexer import Indexer

    counts: Counter[int] = Counter()
    original = Indexer.forward_native

    @functools.wraps(original)
    def forward_native(self, *args, **kwargs):
        counts[self.layer_id] += 1
        return original(self, *args, **kwargs)

    Indexer.forward_native = forward_native
    yield counts
    Indexer.forward_native = original


def break_hunk(where: str, good: str, bad: str) -> None:
    """Replace source text of a function of this process, as if its patch had said so.

    Args:
        where: `package.module:Class.method`.
        good: text that is in it, once or more; each is replaced.
    """
    function = pkgutil.resolve_name(where)
    source = textwrap.dedent(inspect.getsource(function))
    if good not in source:
        raise ValueError(f"{where} does not contain {good!r}")
    made: dict = {}
    future = "from __future__ import annotations\n"
    exec(compile(future + source.replace(good, bad), f"<{where}, broken>", "exec"), made)
    # In place: whoever holds the function runs the new text, in the module's own globals.
    function.__code__ = made[function.__name__].__code__


def measure(
    model: str,
    override: dict,
    length: int,
    chunk_size: int,
    prefix_len: int,
    num_decode: int,
    broken: list[str] | None = None,
) -> dict:
    """Logits and selections of two requests after each other, in every way to compute them.

    Args:
        length: tokens of the first request; the second has 32 less.
        broken: arguments of `break_hunk`, for a test of the test.
    Returns:
        `logits`: [rows, vocab] float32 by request and way; `topk`: for each layer the indices of
        all passes, [rows, index_topk] int32; `passes`, and `indexer_runs` for each layer.
    """
    if broken:
        break_hunk(*broken)
    logits, passes = {}, 0
    with counted_indexers() as counts:
        runner = build(model, override)
        with runner.record_topk() as records:
            for request in (1, 2):
                ids = prompt(length - 32 * (request - 1), seed=request)
                logits[f"{request}: one chunk"] = runner.prefill(ids)
                logits[f"{request}: several chunks"] = runner.prefill(ids, chunk_size=chunk_size)
                logits[f"{request}: on a prefix"] = runner.prefill(ids, prefix_len=prefix_len)
                steps = [runner.decode(token) for token in prompt(num_decode, seed=100 + request)]
                logits[f"{request}: decode"] = torch.cat(steps)
                passes += 1 + -(-len(ids) // chunk_size) + 2 + num_decode
    num_layers = runner.model_runner.model_config.num_hidden_layers
    return {
        "logits": logits,
        "topk": [records.layer(layer) for layer in range(num_layers)],
        "passes": passes,
        "indexer_runs": [counts[layer] for layer in range(num_layers)],
    }


def prefill(model: str, override: dict, ids: list[int]) -> torch.Tensor:
    """Logits [len(ids), vocab] float32 of one prefill."""
    return build(model, override).prefill(ids)


def files_unlike_record() -> dict:
    """Compare the SGLang that this environment imports with its wheel's RECORD."""
    import base64
    import dataclasses
    import hashlib
    from importlib import metadata
    from pathlib import Path

    import sglang
    from sglang.srt.model_executor.forward_batch_info import ForwardBatch

    installed = metadata.distribution("sglang")
    different, compared = [], 0
    for file in installed.files:
        if file.hash is None:  # RECORD itself, and what pip compiled
            continue
        content = Path(file.locate()).read_bytes()
        digest = base64.urlsafe_b64encode(hashlib.new(file.hash.mode, content).digest())
        compared += 1
        if digest.rstrip(b"=").decode() != file.hash.value:
            different.append(str(file))
    return {
        "version": installed.version,
        "different": different,
        "compared": compared,
        "imported": str(Path(sglang.__file__).resolve()),
        "installed": str(Path(installed.locate_file("sglang/__init__.py")).resolve()),
        "has_our_field": any(f.name == "index_cache" for f in dataclasses.fields(ForwardBatch)),
    }
