"""Find which layers may share their indices: `python -m sglang_ic.search`.

Pure, over plain values:

``constraints`` which layers may be converted, and when to stop
``objective``   what is asked for losses, and the table of what it has answered
``estimate``    an increase of the loss from some of the sequences, and how far it may be off
``race``        the best of several patterns, with as few evaluations as possible
``greedy``      one conversion after the other
``swap``        exchanges of a Full and a Shared layer, after the search
``controls``    patterns to compare with: uniform, random, by similarity
``plan``        what a search will cost
``agreement``   whether two searches found the same
``loss_tables`` which patterns `losses` measures, and how its losses are shown

In SGLang's processes: ``passes`` and ``stack`` (forward passes that begin at any layer), ``states``
(what they begin with), ``worker`` (the scheduler's methods). At the edge: ``engine`` (the objective
that calls them), ``selfcheck`` (how exactly it repeats itself), ``journal`` (what survives a kill),
``setup``, ``dry_run``, ``progress``, ``result``, ``report``, ``plots``, ``output``, ``run``,
``cli``; ``losses`` measures given patterns, without a search.
"""
