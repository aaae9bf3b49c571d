"""Eager tensors in the memory of the host as NumPy arrays, without a copy, and back."""

import sys
from typing import Any

import keras
import ml_dtypes
import numpy as np

from kmix._backend.arrays import is_symbolic


def views(arrays):
    """Each array as a NumPy array, to read only; None unless all can be."""
    found = []
    for x in arrays:
        view = x if isinstance(x, np.ndarray) else _torch_view(x) if _is_torch() else _jax_view(x)
        if view is None:
            return None
        found.append(view)
    return found


def tensor(array, like):
    """A NumPy array, which nobody else holds, as a tensor of the framework of `like`."""
    if _is_torch():
        torch: Any = sys.modules["torch"]
        if array.dtype == ml_dtypes.bfloat16:
            return torch.from_numpy(array.view("int16")).view(torch.bfloat16)
        return torch.from_numpy(array)
    jax: Any = sys.modules["jax"]
    (device,) = like.devices()
    return jax.device_put(array, device) if like.committed else jax.numpy.asarray(array)


def _is_torch():
    return keras.backend.backend() == "torch"


def _jax_view(x):
    if is_symbolic(x) or not x.is_fully_addressable or len(x.devices()) != 1:
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
