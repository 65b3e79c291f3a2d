"""What a pattern costs in quality, measured on a real engine: `python -m sglang_ic.evaluate`.

Pure, over arrays and plain values:

``documents`` documents with answers in them, read from files
``samples``   the same as token ids
``arms``      which patterns are measured, control arms included
``scores``    per-token differences between two arms, and which answers are right
``kl``        KL divergence of distributions of which only the best tokens are known
``overlap``   selections of layers against each other, and the attention mass that they hold
``stats``     intervals that resample documents
``summary``   all of it as one JSON document

At the edge: ``suites`` (the data), ``in_process`` and ``over_http`` (engines), ``measure`` (the
loop), ``run`` (one evaluation), ``report`` and ``plots`` (output), ``cli``.
"""
