"""Tensors on an NVIDIA GPU, and a block that must not wait for it."""

import contextlib
from collections.abc import Iterator

import torch


def random(*shape):
    """The same normal numbers every time."""
    return torch.randn(*shape, generator=torch.Generator("cuda").manual_seed(0), device="cuda")


def int32(values):
    return torch.tensor(values, dtype=torch.int32, device="cuda")


@contextlib.contextmanager
def without_waiting() -> Iterator[None]:
    """What synchronises within is an error."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
