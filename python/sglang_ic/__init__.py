"""IndexCache for SGLang: layers of a DSA model share one top-k selection. See the README."""

__version__ = "0.1.0"
