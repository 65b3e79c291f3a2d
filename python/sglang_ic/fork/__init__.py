"""The fork: upstream's SGLang wheel plus a short patch series, as one more wheel.

`patches/UPSTREAM` pins what we build on, `patches/series` orders the patches, and this package
turns the two into `sglang-0.5.23+ic.N-*.whl` or patches an installed SGLang in place. Only the
standard library is used, so that a bare Python can do it before anything is installed.

Everything is bytes in, bytes out: a command computes its whole result in memory and writes last.
"""


class ForkError(ValueError):
    """A user-facing refusal: one line with what is wrong, what is accepted, and what to do."""
