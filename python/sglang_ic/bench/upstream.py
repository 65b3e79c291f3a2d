"""Upstream's load generator as a library: imported with care, and kept quiet."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
import types
import warnings
from collections.abc import Iterator


def serving() -> types.ModuleType:
    """`sglang.benchmark.serving`, which takes half a minute of a CPU core the first time.

    One of upstream's datasets, which is not used here, needs the package `datasets`; a CPU install
    lacks it, so its one name is stood in for while that dataset is imported.
    """
    # Before the stand-in: transformers looks for `datasets` too, and must not find it.
    import sglang.benchmark.utils  # noqa: F401

    standin = None
    if "datasets" not in sys.modules and importlib.util.find_spec("datasets") is None:
        from sglang_ic.cpu.optional import absent

        standin = sys.modules["datasets"] = types.ModuleType("datasets")
        standin.load_dataset = absent("datasets.load_dataset")
    try:
        import sglang.benchmark.serving as module
    finally:
        if standin is not None:
            del sys.modules["datasets"]
    return module


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without upstream's tables, progress bars and warnings of empty lists.

    A bar that was made before keeps its own stream.
    """
    nowhere = io.StringIO()
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
