"""DSA on CPU: a plain-torch path for DeepSeek-sparse-attention models.

    plugin.py     the SGLang plugin: attaches every seam, checks each one, or stops the server
    hooks.py      what the seams run: the functions and classes that stand in upstream
    backend.py    attention backend: sparse absorbed-MLA over the paged latent pool
    indexer.py    the lightning indexer's forward: project, store index-K, score, select
    candidates.py the selection of a candidate layer (approximate, off by default)
    index_k.py    index-K storage in the KV dtype, one row per token slot
    kernels.py    the two hot loops as pure tensor functions (no sglang)
    parallel.py   row blocks over threads
    optional.py   stand-ins for packages that a CPU install does not have

Nothing here runs unless SGLang itself runs on its CPU engine (``SGLANG_USE_CPU_ENGINE=1``).
"""
