"""Tensors of the JAX and PyTorch backends, through `keras.ops`; those in the memory of the host also through NumPy."""

import functools
import sys
from typing import Any

import keras
import ml_dtypes
import numpy as np

from kmix._backend.arrays import NAMESPACES, dtype, is_symbolic, within_vmap
from kmix._backend.execution import program_for
from kmix._backend.numpy_ops import NUMPY
from kmix._backend.operations import MASK, Namespace


class KerasOps(Namespace):
    """`keras.ops`."""

    all: Any = staticmethod(keras.ops.all)
    any: Any = staticmethod(keras.ops.any)
    asarray: Any = staticmethod(keras.ops.convert_to_tensor)
    cast: Any = staticmethod(keras.ops.cast)
    concat: Any = staticmethod(keras.ops.concatenate)
    math: Any = keras.ops
    power: Any = staticmethod(keras.ops.power)
    reshape: Any = staticmethod(keras.ops.reshape)
    shift: Any = staticmethod(keras.ops.right_shift)
    sigmoid: Any = staticmethod(keras.ops.sigmoid)
    stack: Any = staticmethod(keras.ops.stack)
    sum: Any = staticmethod(keras.ops.sum)
    transpose: Any = staticmethod(keras.ops.transpose)
    where: Any = staticmethod(keras.ops.where)

    # JAX has no 64-bit integers by default, and PyTorch has no arithmetic on unsigned words.
    integer: Any = "int32" if keras.backend.backend() == "jax" else "int64"
    _word = "uint32" if keras.backend.backend() == "jax" else "int64"

    def arange(self, n):
        return keras.ops.arange(n, dtype="int32")

    def word(self, x):
        if isinstance(x, (int, np.integer)):
            return np.uint32(x) if self._word == "uint32" else int(x)
        return keras.ops.cast(x, self._word) & self.word(MASK)

    def words(self, n):
        return keras.ops.arange(n, dtype=self._word)

    def argmax(self, x):
        return keras.ops.cast(keras.ops.argmax(x, axis=-1), "int32")

    def argsort(self, x):
        return keras.ops.cast(keras.ops.argsort(x), "int32")

    def gram(self, x):
        return keras.ops.matmul(x, keras.ops.transpose(x))

    def take(self, x, indices):
        if len(indices.shape) == 1:
            return x[indices]
        # Mapped over the shards, which stay where they are: no device needs rows from another.
        shards = keras.ops.reshape(x, (indices.shape[0], -1, *x.shape[1:]))
        rows = keras.ops.vectorized_map(lambda pair: keras.ops.take(*pair, axis=0), (shards, indices))
        return keras.ops.reshape(rows, (-1, *x.shape[1:]))

    def pick(self, x, ids):
        return keras.ops.take_along_axis(x, ids, axis=-1)

    def custom_gradient(self, forward, backward):
        if keras.backend.backend() == "torch":
            return functools.partial(_linear().apply, (forward, backward))
        function = sys.modules["jax"].custom_vjp(forward)
        function.defvjp(
            lambda x, *others: (forward(x, *others), others),
            lambda others, upstream: (backward(upstream, *others), *(None for _ in others)),
        )
        return function

    def switch(self, index, branches):
        return keras.ops.switch(index, branches) if is_symbolic(index) else super().switch(index, branches)

    def apply_if(self, condition, function, x):
        if is_symbolic(condition):
            # A conditional would keep XLA from fusing the function with its surroundings, and cost more than it saves.
            return keras.ops.where(condition, function(x), x)
        return super().apply_if(condition, function, x)

    def evaluate_symbol(self, schedule, step):
        # Signed as long as it can be, since an unsigned step less a larger number wraps.
        signed = keras.ops.cast(step, self.integer)
        value = schedule(signed)
        return keras.ops.where(signed >= 0, value, schedule(step)) if dtype(step) == "uint32" else value

    def run(self, bound, arrays):
        program = None
        if keras.backend.backend() == "jax":
            devices = (getattr(x, "sharding", None) for x in arrays)
            program = program_for(bound, arrays, devices, sys.modules["jax"].jit, min_calls=2)
        if program is not None:
            return program(*arrays)
        arrays_on_host = list(map(_view, arrays))
        if any(view is None for view in arrays_on_host):
            return bound(*map(self.asarray, arrays))
        like = next(x for x in arrays if not isinstance(x, np.ndarray))
        return _tensor(bound.func(NUMPY, *arrays_on_host, **bound.keywords), like)

    def interpolate(self, own, partner, weight):
        torch: Any = sys.modules.get("torch")
        if keras.backend.backend() != "torch" or within_vmap(own):
            return super().interpolate(own, partner, weight)
        if torch.is_grad_enabled() and (own.requires_grad or partner.requires_grad):
            return super().interpolate(own, partner, weight)
        # In place: a batch on an accelerator may fill much of its memory.
        equal = own == partner
        return torch.where(equal, own, partner.mul_(1.0 - weight).addcmul_(own, weight), out=partner)


@functools.cache
def _linear():
    """The class of PyTorch functions that `custom_gradient` makes."""
    torch: Any = sys.modules["torch"]

    class Linear(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(functions, x, *others):
            return functions[0](x, *others)

        @staticmethod
        def setup_context(context, inputs, output):
            context.functions, _, *context.others = inputs

        @staticmethod
        def backward(context, upstream):
            return None, context.functions[1](upstream, *context.others), *(None for _ in context.others)

        @staticmethod
        def jvp(context, _, tangent, *others):
            return context.functions[0](tangent, *context.others)

    return Linear


def _view(x):
    """An eager array in the memory of the host as a NumPy array to read, without a copy; else None."""
    if isinstance(x, np.ndarray):
        return x
    if keras.backend.backend() == "torch":
        return _torch_view(x)
    if not x.is_fully_addressable or len(x.devices()) != 1:
        return None
    (device,) = x.devices()
    return np.asarray(x) if device.platform == "cpu" else None


def _torch_view(x):
    """The view of a plain tensor that nobody differentiates, traces or maps over."""
    torch: Any = sys.modules["torch"]
    if type(x) is not torch.Tensor or x.device.type != "cpu" or (x.requires_grad and torch.is_grad_enabled()):
        return None
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return None
    if torch.autograd.forward_ad.unpack_dual(x).tangent is not None:
        return None
    try:
        x = x.detach()
        return x.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if x.dtype == torch.bfloat16 else x.numpy()
    except (RuntimeError, TypeError):
        # Under `torch.func`, or with a pending conjugation or negation, a tensor has no memory of its own.
        return None


def _tensor(array, like):
    """A NumPy array, which nobody else holds, as a tensor of the framework of `like`."""
    if keras.backend.backend() == "torch":
        torch: Any = sys.modules["torch"]
        if array.dtype == ml_dtypes.bfloat16:
            return torch.from_numpy(array.view("int16")).view(torch.bfloat16)
        return torch.from_numpy(array)
    jax: Any = sys.modules["jax"]
    (device,) = like.devices()
    return jax.device_put(array, device) if like.committed else jax.numpy.asarray(array)


KERAS = KerasOps()
NAMESPACES["keras"] = KERAS
