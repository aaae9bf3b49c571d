"""The twin for the tensors of the JAX and PyTorch backends."""

import functools
import sys
from typing import Any

import keras
import numpy as np

from kmix._backend import host
from kmix._backend.arrays import NAMESPACES, is_symbolic
from kmix._backend.kernels import Programs
from kmix._backend.numpy import NUMPY
from kmix._backend.operations import MASK, Namespace


class Native(Namespace):
    """`keras.ops`."""

    def __init__(self):
        self._programs = Programs(lambda kernel: sys.modules["jax"].jit(kernel))

    math: Any = keras.ops
    all: Any = staticmethod(keras.ops.all)
    any: Any = staticmethod(keras.ops.any)
    asarray: Any = staticmethod(keras.ops.convert_to_tensor)
    cast: Any = staticmethod(keras.ops.cast)
    custom_gradient: Any = staticmethod(keras.ops.custom_gradient)
    power: Any = staticmethod(keras.ops.power)
    reshape: Any = staticmethod(keras.ops.reshape)
    sigmoid: Any = staticmethod(keras.ops.sigmoid)
    stack: Any = staticmethod(keras.ops.stack)
    sum: Any = staticmethod(keras.ops.sum)
    where: Any = staticmethod(keras.ops.where)

    @property
    def integer(self):
        return "int32" if keras.backend.backend() == "jax" else "int64"

    @property
    def _word(self):
        # JAX has no 64-bit integers by default, and PyTorch has no arithmetic on unsigned words.
        return "uint32" if keras.backend.backend() == "jax" else "int64"

    def arange(self, n):
        return keras.ops.arange(n, dtype="int32")

    def word(self, x):
        if isinstance(x, (int, np.integer)):
            return np.uint32(int(x) & MASK) if self._word == "uint32" else int(x) & MASK
        return keras.ops.cast(x, self._word) & self.word(MASK)

    def words(self, n):
        return keras.ops.arange(n, dtype=self._word)

    def shift(self, x, n):
        return x >> n

    def size(self, x, axis):
        return x.shape[axis]

    def unstack(self, x):
        return x

    def along(self, coefficients, like):
        return coefficients.reshape((*coefficients.shape, *(1,) * (like.ndim - coefficients.ndim)))

    def concat(self, arrays, axis=0):
        return keras.ops.concatenate(arrays, axis)

    def argmax(self, x):
        return keras.ops.cast(keras.ops.argmax(x, axis=-1), "int32")

    def argsort(self, x):
        return keras.ops.cast(keras.ops.argsort(x), "int32")

    def take(self, x, indices):
        if len(indices.shape) == 1:
            return x[indices]
        # Mapped over the shards, which stay where they are: no device needs rows from another.
        shards = keras.ops.reshape(x, (indices.shape[0], -1, *x.shape[1:]))
        rows = keras.ops.vectorized_map(lambda pair: keras.ops.take(*pair, axis=0), (shards, indices))
        return keras.ops.reshape(rows, (-1, *x.shape[1:]))

    def pick(self, x, ids):
        return keras.ops.take_along_axis(x, ids, axis=-1)

    def switch(self, index, branches):
        return keras.ops.switch(index, branches) if is_symbolic(index) else branches[int(index)]()

    def apply_if(self, condition, function, x):
        if is_symbolic(condition):
            # A conditional would keep XLA from fusing the function with its surroundings, and cost more than it saves.
            return keras.ops.where(condition, function(x), x)
        return function(x) if condition else x

    def require_equal_sizes(self, axes, message):
        """All sizes are static."""

    def evaluate(self, function, step):
        return keras.ops.cast(function(step), "float32")

    def run(self, function, arrays, static):
        bound, program = functools.partial(function, self, **static), None
        if not any(map(is_symbolic, arrays)):
            if keras.backend.backend() == "jax":
                devices = (getattr(x, "sharding", None) for x in arrays)
                program = self._programs.find(bound, arrays, *devices)
            views = host.views(arrays) if program is None else None
            if views is not None:
                like = next(x for x in arrays if not isinstance(x, np.ndarray))
                return host.tensor(function(NUMPY, *views, **static), like)
        return bound(*map(self.asarray, arrays)) if program is None else program(*arrays)

    def between(self, own, partner, weight):
        torch: Any = sys.modules.get("torch")
        if keras.backend.backend() != "torch" or (
            torch.is_grad_enabled() and (own.requires_grad or partner.requires_grad)
        ):
            return super().between(own, partner, weight)
        # In place: a batch on an accelerator may fill much of its memory.
        equal = own == partner
        return torch.where(equal, own, partner.mul_(1.0 - weight).addcmul_(own, weight), out=partner)


NATIVE = Native()
NAMESPACES["keras"] = NATIVE
