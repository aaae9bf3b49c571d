"""The few array operations that kmix needs, on whichever framework holds the batch.

`namespace(...)` picks one of three twins by the type of the arrays: TensorFlow ops for TensorFlow
tensors (whatever backend Keras runs on, so that a layer works inside `tf.data`), `keras.ops` for
tensors of the JAX and PyTorch backends, NumPy for everything else. It imports no framework that is
not already in use.
"""

import keras

from kmix._backend.context import after_checks, as_written, beside_the_plan, device_of, is_mapped, replica
from kmix._backend.kernels import fusing, kernel
from kmix._backend.kinds import (
    dtype,
    irregular,
    is_dataset,
    is_jax_tracer,
    is_symbolic,
    is_tensorflow,
    on_host,
    static_shape,
    values,
)
from kmix._backend.namespace import Namespace
from kmix._backend.native import Native
from kmix._backend.numpy import NUMPY, NumPy, in_memory_order
from kmix._backend.state import Cell, Counter, Resource
from kmix._backend.tensorflow import TensorFlow
from kmix._backend.threads import over_rows, set_num_threads

__all__ = [
    "NATIVE",
    "NUMPY",
    "TENSORFLOW",
    "Cell",
    "Counter",
    "Namespace",
    "Native",
    "NumPy",
    "Resource",
    "TensorFlow",
    "after_checks",
    "as_written",
    "beside_the_plan",
    "device_of",
    "dtype",
    "fusing",
    "in_memory_order",
    "irregular",
    "is_dataset",
    "is_foreign",
    "is_jax_tracer",
    "is_mapped",
    "is_symbolic",
    "is_tensorflow",
    "kernel",
    "namespace",
    "on_host",
    "over_rows",
    "plan_namespace",
    "replica",
    "set_num_threads",
    "static_shape",
    "values",
]

NATIVE, TENSORFLOW = Native(), TensorFlow()


def namespace(*arrays):
    """The twin that serves these arrays."""
    if any(is_tensorflow(x) for x in arrays):
        return TENSORFLOW
    if keras.backend.backend() != "tensorflow" and any(keras.ops.is_tensor(x) for x in arrays):
        return NATIVE
    return NUMPY


def plan_namespace(xp, step, batch):
    """The namespace and the step to draw a plan with: NumPy if nothing is symbolic.

    A plan takes a hundred tiny operations, which eager frameworks dispatch one by one.
    """
    if is_symbolic(batch) or is_symbolic(step):
        return xp, step
    return NUMPY, int(step)


def is_foreign(*arrays):
    """Whether Keras would convert these arrays to its backend, or cannot take them at all (unknown rank)."""
    if any(keras.backend.is_keras_tensor(x) for x in arrays):
        return False
    if namespace(*arrays) is TENSORFLOW:
        return keras.backend.backend() != "tensorflow" or any(static_shape(x) is None for x in arrays)
    return namespace(*arrays) is NUMPY
