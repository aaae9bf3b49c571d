"""Where and how code runs: outside AutoGraph, on which device, on which replica."""

import contextlib
import sys
from typing import Any

import keras

from kmix._backend.arrays import is_symbolic, is_tensorflow, tensorflow


def as_written(function, *args, **kwargs):
    """Call `function` without AutoGraph, which would rewrite it even though it never branches on tensors."""
    tf = tensorflow()
    if tf is None or tf.executing_eagerly():
        return function(*args, **kwargs)
    return tf.autograph.experimental.do_not_convert(function)(*args, **kwargs)


def device_of(x):
    """A scope that puts new arrays on the device of `x` (only PyTorch needs it)."""
    torch: Any = sys.modules.get("torch")
    if keras.backend.backend() == "torch" and isinstance(x, torch.Tensor):
        return keras.device(str(x.device))
    return contextlib.nullcontext()


def beside_the_plan():
    """A scope that keeps the step and alpha of a training step where its plan is drawn.

    On PyTorch, NumPy draws the plans, and every step would have to wait for a number on the accelerator.
    """
    return keras.device("cpu") if keras.backend.backend() == "torch" else contextlib.nullcontext()


def replica():
    """Index of the current replica under `tf.distribute`, else 0."""
    tf = tensorflow()
    if tf is None or not tf.distribute.has_strategy():
        return 0
    return tf.distribute.get_replica_context().replica_id_in_sync_group


def is_mapped(*arrays):
    """Whether a layer gets TensorFlow tensors in `ds.map`, outside any other layer."""
    tf = tensorflow()
    if not any(is_tensorflow(x) and is_symbolic(x) for x in arrays):
        return False
    if keras.backend.backend() != "tensorflow":
        return True
    # tf.data names its graphs, and each layer opens a name scope of its own within that of the layer that calls it.
    in_data_set = tf.compat.v1.get_default_graph().name.startswith("Dataset_")
    return in_data_set and "/" not in tf.get_current_name_scope()


def after_checks():
    """A scope whose operations run after all assertions in the graph so far."""
    tf = tensorflow()
    if tf is None or tf.executing_eagerly():
        return contextlib.nullcontext()
    operations = tf.compat.v1.get_default_graph().get_operations()
    return tf.control_dependencies([operation for operation in operations if operation.type == "Assert"])
