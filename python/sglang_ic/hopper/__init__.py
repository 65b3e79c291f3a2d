"""Cheaper prefill on NVIDIA GPUs: exact replacements for steps of upstream's indexer and attention.

switches.py   which replacements run: those measured to be faster, unless turned off
plugin.py     the SGLang plugin: attaches them, or stops the server
hooks.py      what runs in place of upstream's method, and for which calls
fused.py      scores and top-k in one pass over the keys: sizes, row blocks, launches
sampling.py      the bounds that it starts from
keeping.py       Gluon: the scores of a row that can be in its top-k
choosing.py      Triton: the top-k among them, or in a whole row
rescuing.py      Triton: rows for which that is not proven
scoring.py       Triton: scores, written
ordering.py      Triton: scores as keys that sort
deferred.py   scores that upstream asks for and hands on unread
candidates.py    prefill of a candidate layer: approximate, for patterns with C only
pages.py         its Triton kernels
attention.py  sparse attention of our own, of the heads as they are: shapes, launches
attention_kernel.py Gluon: keys by queries, two programs on a multiprocessor
attention_hooks.py  leaves upstream's queries in two parts for it
streams.py    decode graphs: streams by the role of a layer
slots.py      positions in a request become slots of the KV pool
reference.py  what the kernels compute, in plain torch
"""
