"""Cheaper Full layers on NVIDIA GPUs: exact replacements for steps of upstream's indexer.

switches.py   which replacement was asked for: none, unless an environment variable names one
plugin.py     the SGLang plugin: attaches it, or stops the server
hooks.py      what runs in place of upstream's method, and for which calls
select.py     an exact top-k of our own: sizes, row blocks, launches
kernels.py    its Triton kernels
scoring.py    scores of our own
fused.py      both in one pass over the keys: sizes, row blocks, launches
fused_kernels.py  its Triton kernels
sampling.py   the bounds that it starts from
deferred.py   scores that upstream asks for and hands on unread
slots.py      positions in a request become slots of the KV pool
reference.py  what the kernels compute, in plain torch
"""
