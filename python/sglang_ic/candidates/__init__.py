"""Candidate layers (C): approximate, and off unless an environment variable gives a page count.

A candidate layer runs its indexer as a Full layer does, but in prefill it scores only the pages of
keys that the selection before it points at. Everything else of it is a Full layer.

    switch.py   the environment variable, and who may write C
    pages.py    from the selection before to the pages that are scored: one rule for CPU and GPU

The rule is run by ``sglang_ic.cpu.candidates`` and ``sglang_ic.hopper.candidates``.
"""
