"""Test stand-in for sgl_kernel (no CPU wheel): names that raise when called, no torch operators."""

from sglang_ic.cpu.optional import absent

__version__ = "0.0.0+standin"


def __getattr__(name: str):
    if name.startswith("__"):
        raise AttributeError(name)
    return absent(f"sgl_kernel.{name}")
