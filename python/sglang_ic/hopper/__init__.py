"""Cheaper prefill and decode on NVIDIA GPUs: in place of steps of upstream's indexer and attention.

switches.py   which replacements run: those measured to be faster, unless turned off
plugin.py     the SGLang plugin: attaches them, or stops the server
marks.py      a mark on whatever runs meanwhile, for hooks
hooks.py      top-k in prefill: what runs in place of upstream's method, and for which calls
slots.py         positions in a request become slots of the KV pool
fused_hooks.py scores and top-k in one pass: for which passes, and how upstream is led there
deferred.py      scores that upstream asks for and hands on unread
fused.py         the pass over the keys: sizes, row blocks, launches
sampling.py      the bounds that it starts from
keeping.py       Gluon: the scores of a row that can be in its top-k
choosing.py      Triton: the top-k among them, or in a whole row
rescuing.py      Triton: rows for which that is not proven
scoring.py       Triton: scores, written
summing.py       both: sums over heads, in DeepGEMM's order
ordering.py      Triton: scores as keys that sort
candidates.py prefill of a candidate layer: approximate, for patterns with C only
pages.py         its Triton kernels
attention.py  sparse attention of our own, of the heads as they are: shapes, launches
attention_kernel.py Gluon: keys by queries, two programs on a multiprocessor
attention_hooks.py  leaves upstream's queries in two parts for it
decode_attention.py the same for a decode step, its keys dealt to many programs: launches, hooks
decode_attention_kernel.py Triton: a split of the keys, and what combines them
streams.py    decode graphs: streams by the role of a layer
reference.py  what the kernels compute, in plain torch
"""
