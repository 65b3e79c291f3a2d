"""When kernels of one kind had the GPU to themselves: what a shorter one could save at least.

Durations added up say too much where streams run side by side, or a kernel is launched before the
one before it ends and waits. Time in which nothing else ran is counted once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


def alone_us(events: Iterable[tuple[str, float, float]]) -> tuple[dict[str, float], float]:
    """Time by kind, and in all.

    Args:
        events: (kind, begin, duration) in microseconds, in any order.
    Returns:
        Kind -> microseconds in which it ran and no other kind did; and the microseconds in which
        anything ran.
    """
    changes = []
    for kind, begin, duration in events:
        changes += [(begin, 1, kind), (begin + duration, -1, kind)]
    running: Counter[str] = Counter()
    found: dict[str, float] = {}
    busy = before = 0.0
    for now, change, kind in sorted(changes):
        kinds = [name for name, number in running.items() if number]
        if kinds:
            busy += now - before
        if len(kinds) == 1:
            found[kinds[0]] = found.get(kinds[0], 0.0) + now - before
        running[kind] += change
        before = now
    return found, busy
