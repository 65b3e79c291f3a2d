"""Test stand-in for torchvision (its PyPI build needs CUDA torch): importable, not callable."""

__version__ = "0.0.0+standin"
