"""The twin for Grain, plain loaders and oracles."""

from typing import Any

import ml_dtypes
import numpy as np

from kmix._backend.arrays import NAMESPACES, values
from kmix._backend.operations import Namespace


class NumPy(Namespace):
    """NumPy. Never touches an accelerator."""

    math: Any = np
    integer: Any = "int64"
    all: Any = staticmethod(np.all)
    any: Any = staticmethod(np.any)
    asarray: Any = staticmethod(np.asarray)
    power: Any = staticmethod(np.power)
    reshape: Any = staticmethod(np.reshape)
    shift: Any = staticmethod(np.right_shift)
    stack: Any = staticmethod(np.stack)
    sum: Any = staticmethod(np.sum)
    where: Any = staticmethod(np.where)
    word: Any = np.uint32

    def cast(self, x, dtype):
        return np.asarray(x).astype(_dtype(dtype), copy=False)

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

    def size(self, x, axis):
        return x.shape[axis]

    def unstack(self, x):
        return x

    def along(self, coefficients, like):
        return coefficients.reshape(coefficients.shape + (1,) * (like.ndim - coefficients.ndim))

    def concat(self, arrays, axis=0):
        return np.concatenate(arrays, axis)

    def argmax(self, x):
        return np.argmax(x, axis=-1).astype("int32")

    def argsort(self, x):
        return np.argsort(x, kind="stable").astype("int32")

    def take(self, x, indices):
        return x[self.rows(indices)]

    def pick(self, x, ids):
        return np.take_along_axis(x, ids, axis=-1)

    def custom_gradient(self, function):
        return lambda x: function(x)[0]

    def switch(self, index, branches):
        return branches[int(index)]()

    def apply_if(self, condition, function, x):
        return function(x) if condition else x

    def require_equal_sizes(self, axes, message):
        """All sizes are static."""

    def evaluate(self, function, step):
        return self.cast(values(function(step)), "float32")

    def empty_like(self, x, dtype):
        """A new array of the shape of `x` and with its order in memory."""
        return np.empty_like(x, dtype=_dtype(dtype))


def in_memory_order(x):
    """`x` `(B, ...)` with its axes after the first in the order of its memory, so that samples are contiguous."""
    return x.transpose(0, *sorted(range(1, x.ndim), key=lambda axis: -abs(x.strides[axis])))


def _dtype(name):
    return ml_dtypes.bfloat16 if name == "bfloat16" else name


NUMPY = NumPy()
NAMESPACES["numpy"] = NUMPY
