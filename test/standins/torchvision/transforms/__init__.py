"""See torchvision/__init__.py."""

from sglang_ic.cpu.optional import absent


def __getattr__(name: str):
    if name.startswith("__"):
        raise AttributeError(name)
    return absent(f"torchvision.transforms.{name}")
