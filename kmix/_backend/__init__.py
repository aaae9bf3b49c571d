"""The few array operations that kmix needs, on whichever framework holds the batch.

`namespace(...)` picks one of three twins by the type of the arrays: TensorFlow ops for TensorFlow
tensors (whatever backend Keras runs on, so that a layer works inside `tf.data`), `keras.ops` for
tensors of the JAX and PyTorch backends, NumPy for everything else. It imports no framework that is
not already in use.
"""

from kmix._backend.arrays import (
    Kind,
    dtype,
    irregular,
    is_dataset,
    is_foreign,
    is_jax_tracer,
    is_symbolic,
    is_tensorflow,
    kind,
    namespace,
    on_host,
    plan_namespace,
    static_shape,
    values,
)
from kmix._backend.context import after_checks, as_written, beside_the_plan, device_of, is_mapped, replica
from kmix._backend.kernels import fusing, kernel
from kmix._backend.native import NATIVE, Native
from kmix._backend.numpy import NUMPY, NumPy, in_memory_order
from kmix._backend.operations import Namespace
from kmix._backend.state import Cell, Counter, Resource
from kmix._backend.tensorflow import TENSORFLOW, TensorFlow
from kmix._backend.threads import over_rows, set_num_threads

__all__ = [
    "NATIVE",
    "NUMPY",
    "TENSORFLOW",
    "Cell",
    "Counter",
    "Kind",
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
    "kind",
    "namespace",
    "on_host",
    "over_rows",
    "plan_namespace",
    "replica",
    "set_num_threads",
    "static_shape",
    "values",
]
