"""How and where functions run: as compiled programs, in threads, outside AutoGraph, on a device, on a replica."""

import concurrent.futures
import contextlib
import contextvars
import functools
import math
import multiprocessing
import os
import sys
import threading
from collections import OrderedDict
from typing import Any

import keras
import numpy as np

from kmix import _checks
from kmix._backend.arrays import is_symbolic, kind, tensorflow
from kmix._backend.numpy_ops import NUMPY

_NOT_COMPILED = (
    "kmix draws plans and mixes outside of `torch.compile`. Mix before you call the compiled function, or leave out "
    "`fullgraph=True`."
)
_NOTHING = contextlib.nullcontext()
_FUSES: contextvars.ContextVar[bool] = contextvars.ContextVar("kmix_fuses", default=True)

# A batch of fewer values is mixed sooner than its kernel is compiled.
WORTH_COMPILING = 2**16
# Fewer values than these are not worth the threads, of which more do not make the memory faster.
_WORTH_THREADS, _MOST_THREADS = 2**21, 8

_POOLS: dict[int, Any] = {}
_CHOSEN: list[int | None] = [None]


def kernel(function):
    """Make `function(xp, *arrays, **static)` a kernel: one of the few functions that pass over a whole batch.

    Its namespace `xp` runs it: large eager tensors of JAX and TensorFlow get a compiled program; those of PyTorch in
    the memory of the host, and small ones of JAX, go through NumPy, on views. Where gradients or symbols pass through,
    and within `fusing(False)`, plain operations run.

    Args:
        function: Takes the namespace, arrays of its framework, and hashable settings by name. Returns one array, which
            is none of the given. The kernel also takes NumPy arrays with eager tensors.
    """

    @functools.wraps(function)
    def run(xp, *arrays, **static):
        if xp is NUMPY:
            return function(xp, *arrays, **static)
        if _FUSES.get() and all(isinstance(array, np.ndarray) for array in arrays):
            return xp.asarray(function(NUMPY, *arrays, **static))
        bound = functools.partial(function, xp, **static)
        if _FUSES.get() and not any(map(is_symbolic, arrays)):
            return xp.run(bound, arrays)
        return bound(*map(xp.asarray, arrays))

    return run


def fusing(fuse):
    """A scope in which kernels run as plain operations, in one thread, unless `fuse`."""
    return _NOTHING if fuse else _plain()


@contextlib.contextmanager
def _plain():
    token = _FUSES.set(False)
    try:
        yield
    finally:
        _FUSES.reset(token)


class Programs:
    """Compiled programs by signature: those that were used last.

    Args:
        limit: Number of signatures to remember.
    """

    def __init__(self, limit=128):
        # Compiling a program may look for another.
        self._limit, self._lock = limit, threading.RLock()
        # The program, or how many times it was asked for.
        self._known: OrderedDict = OrderedDict()

    def find(self, signature, make, min_calls=1):
        """The program with this signature: `make()` when it is asked for the `min_calls`-th time, and None before."""
        with self._lock:
            program = self._known.pop(signature, 0)
            if isinstance(program, int):
                program = make() if program + 1 >= min_calls else program + 1
            self._known[signature] = program
            if len(self._known) > self._limit:
                self._known.popitem(last=False)
        return None if isinstance(program, int) else program

    def drop(self, signature):
        """Forget a program."""
        with self._lock:
            self._known.pop(signature, None)


PROGRAMS = Programs()


def program_for(bound, arrays, devices, compile_, min_calls=1):
    """The compiled program of a kernel `bound` for arrays like these on `devices`; None where it does not pay.

    With `min_calls=2`, a batch of an odd size that comes once is not compiled.
    """
    if max(math.prod(x.shape) for x in arrays) < WORTH_COMPILING:
        return None
    types = [(tuple(x.shape), x.dtype) for x in arrays]
    signature = (bound.func, *bound.args, *bound.keywords.items(), *types, *devices)
    return PROGRAMS.find(signature, lambda: compile_(bound), min_calls)


def over_rows(function, rows, values):
    """Call `function(slice)` for slices that cover `rows` rows, by several threads if there are many values.

    NumPy releases Python's lock while it works on a block.
    """
    threads = num_threads() if values >= _WORTH_THREADS and _FUSES.get() else 1
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
    return min(processors, _MOST_THREADS)


def untraced(function, *args, **kwargs):
    """Call `function` as it is: AutoGraph would rewrite it, and TorchDynamo cannot follow plans, which NumPy draws."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.compiler.is_compiling():
        torch._dynamo.graph_break(msg=_NOT_COMPILED)
        return torch.compiler.disable(function)(*args, **kwargs)
    tf = tensorflow()
    if tf is None or tf.executing_eagerly():
        return function(*args, **kwargs)
    return tf.autograph.experimental.do_not_convert(function)(*args, **kwargs)


def device_of(x):
    """A scope that puts new arrays on the device of `x` (only PyTorch needs it)."""
    if kind(x).framework == "torch" and keras.backend.backend() == "torch":
        return keras.device(str(x.device))
    return _NOTHING


def device_of_plans():
    """A scope that keeps the step and alpha of a training step where its plan is drawn.

    On PyTorch, NumPy draws the plans, and every step would have to wait for a number on the accelerator.
    """
    return keras.device("cpu") if keras.backend.backend() == "torch" else _NOTHING


def replica(leaf):
    """Number of the part of the batch that this process or device holds.

    That is the replica under `tf.distribute`, and the rank on PyTorch, if `leaf` is not a tensor of the whole batch.
    """
    if keras.backend.backend() == "torch":
        distributed = sys.modules["torch"].distributed
        parts = distributed.is_available() and distributed.is_initialized()
        return distributed.get_rank() if parts and not hasattr(leaf, "device_mesh") else 0
    tf = tensorflow()
    if tf is None or not tf.distribute.has_strategy():
        return 0
    return tf.distribute.get_replica_context().replica_id_in_sync_group


def check_processes():
    """Warn if this is one of several processes on PyTorch that know nothing of each other."""
    world = os.environ.get("WORLD_SIZE", "1")
    if keras.backend.backend() != "torch" or world in ("", "1"):
        return
    distributed = sys.modules["torch"].distributed
    if distributed.is_available() and not distributed.is_initialized():
        _checks.warn(
            f"`WORLD_SIZE` is {world}, but `torch.distributed` is not initialized: each process trains a model of its "
            "own, with the same plans. First write `keras.distribution.initialize()` (from Keras 3.16 on), or "
            "`torch.distributed.init_process_group()` and average the gradients."
        )


def of_all_processes(number):
    """The number in `[0, 2**32)` that each process of a distributed training passes, in the order of the processes."""
    backend = keras.backend.backend()
    if backend == "torch":
        distributed = sys.modules["torch"].distributed
        if distributed.is_available() and distributed.is_initialized():
            found = [None] * distributed.get_world_size()
            distributed.all_gather_object(found, number)
            return found
    if backend == "jax" and sys.modules["jax"].process_count() > 1:
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(np.uint32(number)).tolist()
    return [number]


def after_checks():
    """A scope whose operations run after all assertions in the graph so far."""
    tf = tensorflow()
    if tf is None or tf.executing_eagerly():
        return _NOTHING
    operations = tf.compat.v1.get_default_graph().get_operations()
    return tf.control_dependencies([operation for operation in operations if operation.type == "Assert"])
