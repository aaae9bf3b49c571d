"""What a tensor is: its framework, its kind, and what can be read from it now."""

import sys
from typing import Any

import keras
import numpy as np


def tensorflow():
    """TensorFlow, if it is in use."""
    tf = sys.modules.get("tensorflow")
    return tf if hasattr(tf, "Tensor") else None


def is_tensorflow(x):
    """Whether `x` is a TensorFlow tensor, eager or symbolic."""
    tf = tensorflow()
    return tf is not None and isinstance(x, (tf.Tensor, tf.Variable))


def is_dataset(x):
    """Whether `x` is a `tf.data.Dataset`."""
    tf = tensorflow()
    return tf is not None and isinstance(x, tf.data.Dataset)


def is_jax_tracer(x):
    """Whether `x` stands for a value inside a JAX transformation."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(x, jax.core.Tracer)


def is_symbolic(x):
    """Whether `x` has no values yet: a tensor of a graph, a tracer, a KerasTensor."""
    if is_tensorflow(x):
        return not hasattr(x, "numpy")
    return is_jax_tracer(x) or keras.backend.is_keras_tensor(x)


def irregular(x):
    """Return "ragged" or "sparse" for a tensor of that kind, else None."""
    kind = type(x).__name__
    if "Ragged" in kind or getattr(x, "ragged", False):
        return "ragged"
    torch: Any = sys.modules.get("torch")
    is_torch = torch is not None and isinstance(x, getattr(torch, "Tensor", ()))
    sparse = x.layout is not torch.strided if is_torch else getattr(x, "sparse", False)
    if sparse or kind in ("SparseTensor", "BCOO", "BCSR") or type(x).__module__.startswith("scipy.sparse"):
        return "sparse"
    return None


def values(x):
    """`x` as a NumPy array if its values can be read, else None."""
    if is_symbolic(x):
        return None
    return x.numpy() if is_tensorflow(x) else np.asarray(keras.ops.convert_to_numpy(x))


def on_host(x):
    """Whether the values of `x` can be read without waiting for an accelerator."""
    if is_symbolic(x):
        return False
    device = getattr(x, "device", "cpu")
    return getattr(device, "type", None) == "cpu" or "cpu" in str(device).lower()


def dtype(x):
    """The name of the dtype of `x`."""
    return getattr(x.dtype, "name", None) or str(x.dtype).removeprefix("torch.")


def static_shape(x):
    """The shape of `x`, with None for each unknown size; None if even the rank is unknown."""
    if is_tensorflow(x) and x.shape.rank is None:
        return None
    return tuple(x.shape)
