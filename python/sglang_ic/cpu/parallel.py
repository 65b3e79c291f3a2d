"""Spread row blocks over the CPU threads that torch may use.

torch splits each operator over its threads and joins them again, a few microseconds for every
small operator, and far more when the machine is busy and one thread is waiting for a core. A row
block is dozens of such operators on data that fits one core's cache, so whole blocks are handed
out instead: each thread runs its block's operators alone, and there is one join at the end.
"""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait

import torch

_pool: ThreadPoolExecutor | None = None


def for_each_block(work: Callable[[int, int], None], blocks: Iterable[tuple[int, int]]) -> None:
    """Call `work(begin, end)` once for every block, on `torch.get_num_threads()` threads.

    Blocks are taken in order, so put the expensive ones first. `work` must write to places of its
    own only. An exception in any block is raised here, after the others have stopped.
    """
    pending = deque(blocks)
    num_threads = torch.get_num_threads()
    num_helpers = min(num_threads, len(pending)) - 1
    if num_helpers <= 0:
        for begin, end in pending:
            work(begin, end)
        return

    inference = torch.is_inference_mode_enabled()

    def drain() -> None:
        # Autograd modes belong to a thread; the helpers take over the caller's.
        with torch.inference_mode(inference), torch.no_grad():
            while True:
                try:
                    begin, end = pending.popleft()
                except IndexError:
                    return
                work(begin, end)

    # The setting is the process's: MKL and threads that start now follow it. Nothing else computes
    # in an engine process meanwhile.
    torch.set_num_threads(1)
    try:
        helpers = [_helper_pool(num_threads).submit(drain) for _ in range(num_helpers)]
        try:
            drain()
        finally:
            wait(helpers)
        for helper in helpers:
            helper.result()
    finally:
        torch.set_num_threads(num_threads)


def _helper_pool(num_threads: int) -> ThreadPoolExecutor:
    """The process's helper threads, made while torch is set to one thread so that they keep it."""
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(max_workers=num_threads, thread_name_prefix="sglang_ic_cpu")
    return _pool
