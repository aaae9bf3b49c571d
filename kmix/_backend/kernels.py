"""Kernels: the few functions that pass over a whole batch, each run in as few passes as its framework allows."""

import contextlib
import contextvars
import functools
import math

from kmix._backend.recent import Recent

_FUSES: contextvars.ContextVar[bool] = contextvars.ContextVar("kmix_fuses", default=True)

# A batch of fewer values is mixed sooner than its kernel is compiled.
WORTH_COMPILING = 2**16


def kernel(function):
    """Make `function(xp, *arrays, **static)` a kernel, which its namespace `xp` runs.

    Large eager tensors of JAX and TensorFlow get a compiled program; those of PyTorch in the memory of the host, and
    small ones of JAX, go through NumPy, on views. Where gradients or symbols pass through, and with `fuse = False`,
    plain operations run.

    Args:
        function: Takes the namespace, arrays of its framework, and hashable settings by name. Returns one array, which
            is none of the given. The kernel also takes NumPy arrays beside eager tensors.
    """

    @functools.wraps(function)
    def run(xp, *arrays, **static):
        return xp.run(function, arrays, static) if _FUSES.get() else function(xp, *map(xp.asarray, arrays), **static)

    return run


@contextlib.contextmanager
def fusing(fuse):
    """A scope in which kernels run as plain operations unless `fuse`."""
    token = _FUSES.set(_FUSES.get() and fuse)
    try:
        yield
    finally:
        _FUSES.reset(token)


def fuses():
    """Whether kernels may be compiled and use threads."""
    return _FUSES.get()


class Programs:
    """Compiled kernels by signature.

    Args:
        jit: Compiles a function of arrays.
        sights: A signature is compiled when it comes for the `sights`-th time, 1 or 2. With 2, a batch of an odd size
            that comes once is not worth it.
        limit: Number of signatures to remember.
    """

    def __init__(self, jit, sights=2, limit=64):
        self._jit, self._sights, self._recent = jit, sights, Recent(limit)

    def find(self, bound, arrays, *kinds):
        """The program of the kernel `bound`, a `functools.partial`, for arrays like these; None if it is not compiled.

        Args:
            bound: The kernel with its settings.
            arrays: The arrays to run it on.
            kinds: What else the program depends on, such as the devices.
        """
        if max(math.prod(x.shape) for x in arrays) < WORTH_COMPILING:
            return None
        types = [(tuple(x.shape), x.dtype) for x in arrays]
        signature = (bound.func, *bound.keywords.items(), *types, *kinds)
        first = self._sights > 1 and signature not in self._recent
        return self._recent.find(signature, lambda: None if first else self._jit(bound))
