"""NumPy arrays: for Grain, plain loaders, and everything on the host."""

from typing import Any

import ml_dtypes  # noqa: F401  Tells NumPy what "bfloat16" is.
import numpy as np

from kmix._backend.arrays import NAMESPACES
from kmix._backend.operations import Namespace


class NumPy(Namespace):
    """NumPy. Never touches an accelerator."""

    all: Any = staticmethod(np.all)
    any: Any = staticmethod(np.any)
    asarray: Any = staticmethod(np.asarray)
    concat: Any = staticmethod(np.concatenate)
    integer: Any = "int64"
    math: Any = np
    power: Any = staticmethod(np.power)
    reshape: Any = staticmethod(np.reshape)
    shift: Any = staticmethod(np.right_shift)
    stack: Any = staticmethod(np.stack)
    sum: Any = staticmethod(np.sum)
    transpose: Any = staticmethod(np.transpose)
    where: Any = staticmethod(np.where)
    word: Any = np.uint32

    def cast(self, x, dtype):
        return np.asarray(x).astype(dtype, copy=False)

    def arange(self, n):
        return np.arange(n, dtype="int32")

    def words(self, n):
        return np.arange(n, dtype="uint32")

    def hash(self, x):
        # Arrays of unsigned words wrap by themselves; NumPy warns of scalars that do.
        x = x ^ (x >> 16)
        x *= 0x7FEB352D
        x ^= x >> 15
        x *= 0x846CA68B
        x ^= x >> 16
        return x

    def sigmoid(self, x):
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-x))

    def argmax(self, x):
        return np.argmax(x, axis=-1).astype("int32")

    def argsort(self, x):
        return np.argsort(x, kind="stable").astype("int32")

    def gram(self, x):
        return x @ x.T

    # As in `Namespace`, in this file: a small batch is a matter of calls.

    def size(self, x, axis):
        return x.shape[axis]

    def unstack(self, x):
        return x

    def rows(self, indices):
        return indices if indices.ndim == 1 else super().rows(indices)

    def require(self, condition, message):
        if not condition.all():
            raise ValueError(message)

    def take(self, x, indices):
        return x[self.rows(indices)]

    def pick(self, x, ids):
        return np.take_along_axis(x, ids, axis=-1)

    def custom_gradient(self, forward, backward):
        return forward


def in_memory_order(x):
    """`x` `(B, ...)` with its axes after the first in the order of its memory, so that samples are contiguous."""
    if x.flags.c_contiguous:
        return x
    return x.transpose(0, *sorted(range(1, x.ndim), key=lambda axis: -abs(x.strides[axis])))


NUMPY = NumPy()
NAMESPACES["numpy"] = NUMPY
