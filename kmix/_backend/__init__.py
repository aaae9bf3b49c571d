"""The few array operations that kmix needs, on whichever framework holds the batch: see README.md in this folder.

`namespace(...)` picks the operations by the type of the arrays: those of TensorFlow for its tensors (whatever backend
Keras runs on, so that a layer works inside `tf.data`), `keras.ops` for tensors of the JAX and PyTorch backends, NumPy
for everything else. Nothing here imports a framework that is not already in use.
"""

# What the rest of kmix uses.
# ruff: noqa: F401
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
    numpy_if_on_host,
    on_host,
    plan_namespace,
    static_shape,
    values,
)
from kmix._backend.execution import (
    after_checks,
    check_processes,
    device_of,
    device_of_plans,
    fusing,
    kernel,
    of_all_processes,
    over_rows,
    replica,
    set_num_threads,
    untraced,
)
from kmix._backend.keras_ops import KERAS, KerasOps
from kmix._backend.numpy_ops import NUMPY, NumPy, in_memory_order
from kmix._backend.operations import SMALLEST_NORMAL, Namespace
from kmix._backend.state import Cell, Counter, Resource, is_stateless
from kmix._backend.tensorflow_ops import TENSORFLOW, TensorFlow
