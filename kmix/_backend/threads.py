"""Threads for NumPy, which releases Python's lock while it works on a block."""

import concurrent.futures
import multiprocessing
import os
from typing import Any

from kmix import _checks
from kmix._backend.kernels import fuses

# Fewer values than this are not worth the threads.
_LEAST = 2**21
# Memory is not faster for more threads than this.
_MOST = 8

_POOLS: dict[int, Any] = {}
_CHOSEN: list[int | None] = [None]


def set_num_threads(n):
    """Set how many threads mix large batches on the CPU, where NumPy does the work.

    That is for NumPy arrays, and for eager tensors of PyTorch and JAX in the memory of the host.

    Args:
        n: Number of threads, an int >= 1; None for the default: the processors that this process may use, at most 8,
            and a single thread in the worker processes of a loader.

    Raises:
        ValueError: if `n` is less than 1.
        TypeError: if `n` is not an integer.

    Example:
    >>> kmix.mixing.set_num_threads(1)
    >>> kmix.mixing.set_num_threads(None)
    """
    _CHOSEN[0] = None if n is None else _checks.integer(n, "n", 1)


def num_threads():
    """The number of threads that mix a large batch in this process."""
    if _CHOSEN[0] is not None:
        return _CHOSEN[0]
    if multiprocessing.parent_process() is not None:
        return 1
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(processors, _MOST)


def over_rows(function, rows, values):
    """Call `function(slice)` for slices that cover `rows` rows, by several threads if there are many values."""
    threads = num_threads() if values >= _LEAST and fuses() else 1
    if threads == 1:
        function(slice(0, rows))
        return
    if threads not in _POOLS:
        _POOLS[threads] = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="kmix")
    # Several parts for each thread, so that none waits for one that was held up.
    step = max(1, -(-rows // (4 * threads)))
    list(_POOLS[threads].map(function, (slice(start, min(start + step, rows)) for start in range(0, rows, step))))


if hasattr(os, "register_at_fork"):
    # Threads do not survive a fork.
    os.register_at_fork(after_in_child=_POOLS.clear)
