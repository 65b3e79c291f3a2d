"""The benchmark report of the layer search: does it find what it should, and what does it cost?

    PYTHONPATH=benchmark python -m search_report RESULTS

``results``     the folders that searches, losses and evaluation wrote
``fidelity``    the fast method against the exhaustive one: patterns, paired losses, work
``held_out``    the searched pattern against controls on documents that it has not seen
``stability``   orders and losses across calibration sets
``page``, ``sections``, ``pictures``   the report
``speed``       what measures a large model's shape on a GPU: seconds per candidate, memory
``default_pattern``      from a search to the bundled model's pattern file

`run_offline.sh` has the commands that fill RESULTS.
"""
