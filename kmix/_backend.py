"""The few array operations that kmix needs, on whichever framework holds the batch.

`namespace(...)` picks one of three twins by the type of the arrays: TensorFlow ops for TensorFlow
tensors (whatever backend Keras runs on, so that a layer works inside `tf.data`), `keras.ops` for
tensors of the JAX and PyTorch backends, NumPy for everything else. No framework is imported that is
not already in use.
"""

import contextlib
import math
import multiprocessing
import os
import sys
import threading
import uuid
import weakref
from typing import Any

import keras
import ml_dtypes
import numpy as np

from kmix import _checks
from kmix._checks import irregular

MASK = 0xFFFFFFFF


def _tensorflow():
    """TensorFlow, if it is in use."""
    tf = sys.modules.get("tensorflow")
    return tf if hasattr(tf, "Tensor") else None


def is_tensorflow(x):
    """Whether `x` is a TensorFlow tensor, eager or symbolic."""
    tf = _tensorflow()
    return tf is not None and isinstance(x, (tf.Tensor, tf.Variable))


def is_jax_tracer(x):
    """Whether `x` stands for a value inside a JAX transformation."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(x, jax.core.Tracer)


def is_symbolic(x):
    """Whether `x` has no values yet: a tensor of a graph, a tracer, a KerasTensor."""
    if is_tensorflow(x):
        return not hasattr(x, "numpy")
    return is_jax_tracer(x) or keras.backend.is_keras_tensor(x)


def values(x):
    """`x` as a NumPy array where its values can be seen, else None."""
    if is_symbolic(x):
        return None
    return x.numpy() if is_tensorflow(x) else np.asarray(keras.ops.convert_to_numpy(x))


def drawing(xp, step, batch):
    """The namespace and the step to draw a plan with: NumPy where nothing is symbolic.

    A plan takes a hundred tiny operations, which eager frameworks dispatch one by one.
    """
    if is_symbolic(batch) or is_symbolic(step):
        return xp, step
    return NUMPY, int(step)


def is_mapped(name, *arrays):
    """Whether a layer called `name` gets TensorFlow tensors of a graph outside any other layer, as in `ds.map(layer)`."""
    tf = _tensorflow()
    if not any(is_tensorflow(x) and is_symbolic(x) for x in arrays):
        return False
    # A layer that calls another opens a name scope around it.
    return keras.backend.backend() != "tensorflow" or tf.get_current_name_scope() in ("", name)


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
    """The shape of `x`, None where unknown; None alone where even the rank is unknown."""
    if is_tensorflow(x) and x.shape.rank is None:
        return None
    return tuple(x.shape)


def namespace(*arrays):
    """The twin that serves these arrays."""
    if any(is_tensorflow(x) for x in arrays):
        return TENSORFLOW
    if keras.backend.backend() != "tensorflow" and any(keras.ops.is_tensor(x) for x in arrays):
        return NATIVE
    return NUMPY


def is_foreign(*arrays):
    """Whether Keras would convert these arrays to its backend, or cannot take them at all (unknown rank)."""
    if any(keras.backend.is_keras_tensor(x) for x in arrays):
        return False
    if namespace(*arrays) is TENSORFLOW:
        return keras.backend.backend() != "tensorflow" or any(static_shape(x) is None for x in arrays)
    return namespace(*arrays) is NUMPY


def as_written(function, *args, **kwargs):
    """Call `function` without AutoGraph, which would rewrite it although it never branches on tensors."""
    tf = _tensorflow()
    if tf is None or tf.executing_eagerly():
        return function(*args, **kwargs)
    return tf.autograph.experimental.do_not_convert(function)(*args, **kwargs)


def device_of(x):
    """A scope that keeps new arrays beside `x` (needed on PyTorch alone)."""
    torch: Any = sys.modules.get("torch")
    if keras.backend.backend() == "torch" and isinstance(x, torch.Tensor):
        return keras.device(str(x.device))
    return contextlib.nullcontext()


def beside_the_plan():
    """A scope for the step and alpha of a training step: where its plan is drawn.

    PyTorch draws plans with NumPy, and a number on the accelerator would make every step wait for it.
    """
    return keras.device("cpu") if keras.backend.backend() == "torch" else contextlib.nullcontext()


def replica():
    """Index of the replica that runs under `tf.distribute`, 0 without."""
    tf = _tensorflow()
    if tf is None or not tf.distribute.has_strategy():
        return 0
    return tf.distribute.get_replica_context().replica_id_in_sync_group


def _compiles(x):
    """Whether XLA takes the TensorFlow tensor `x`, and would not compile anew for sizes other than the first."""
    known = x.dtype.is_floating or x.dtype.is_integer or x.dtype.is_bool or x.dtype.is_complex
    return known and x.shape.rank is not None and None not in x.shape[1:]


class NumPy:
    """NumPy: for Grain, plain loaders and oracles. Never touches an accelerator."""

    math: Any = np
    all: Any = staticmethod(np.all)
    any: Any = staticmethod(np.any)
    asarray: Any = staticmethod(np.asarray)
    power: Any = staticmethod(np.power)
    reshape: Any = staticmethod(np.reshape)
    sum: Any = staticmethod(np.sum)
    stack: Any = staticmethod(np.stack)
    where: Any = staticmethod(np.where)

    @property
    def integer(self):
        """The widest integers."""
        return "int64"

    def custom_gradient(self, function):
        """`function(x)`, which returns the result and its gradient as a function of that of the result."""
        return lambda x: function(x)[0]

    def cast(self, x, dtype):
        return np.asarray(x).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype, copy=False)

    def sigmoid(self, x):
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-x))

    def word(self, x):
        """`x` as 32-bit words; numbers become Python ints, since NumPy warns where scalars wrap."""
        return x.astype("int64", copy=False) & MASK if np.ndim(x) else int(x) & MASK

    def words(self, n):
        return np.arange(n, dtype="int64")

    def shift(self, x, n):
        return x >> n

    def argsort(self, x):
        return np.argsort(x, kind="stable").astype("int32")

    def arange(self, n):
        return np.arange(n, dtype="int32")

    def take(self, x, indices):
        """Rows of `x`. With indices `(shards, n)` each shard of the rows is indexed on its own."""
        return x[self.rows(indices)]

    def rows(self, indices):
        """Indices `(B,)` of rows; with indices `(shards, n)` those of the shards, counted through the batch."""
        return indices if indices.ndim == 1 else np.ravel(indices + indices.shape[1] * np.arange(len(indices))[:, None])

    def pick(self, x, ids):
        """The entries `ids` `(..., k)` along the last axis of `x` `(..., C)`."""
        return np.take_along_axis(x, ids, axis=-1)

    def unstack(self, x):
        """The rows of `x`, to be indexed with Python ints."""
        return x

    def size(self, x, axis):
        return x.shape[axis]

    def along(self, coefficients, like):
        """Append axes to `coefficients` so that they broadcast over the trailing axes of `like`."""
        return coefficients.reshape(tuple(coefficients.shape) + (1,) * (like.ndim - coefficients.ndim))

    def by_rows(self, function, x):
        """`function(x)`, of the shape of `x`, for a function that treats all values of a sample alike."""
        return function(x)

    def fused(self, function, *structures):
        """`function(*structures)` in one pass over the memory, where the framework leaves that to the caller."""
        return function(*structures)

    def require(self, condition, message):
        """Raise unless `condition` holds, where that can be seen without waiting for an accelerator."""
        if on_host(condition) and not values(condition).all():
            raise ValueError(message)

    def require_equal_sizes(self, axes, message):
        """Raise unless all `(array, axis)` have one size; static sizes have been compared before."""

    def switch(self, index, branches):
        return branches[int(index)]()

    def apply_if(self, condition, function, x):
        """`function(x)`, of the shape and dtype of `x`, if the condition holds, else `x`."""
        return function(x) if condition else x

    def evaluate(self, function, step):
        """Evaluate a schedule, whose result may be a number or a tensor of any framework."""
        return self.cast(values(function(step)), "float32")


class Native(NumPy):
    """`keras.ops`, on the tensors of the JAX and PyTorch backends."""

    math = keras.ops
    all = staticmethod(keras.ops.all)
    any = staticmethod(keras.ops.any)
    asarray = staticmethod(keras.ops.convert_to_tensor)
    cast = staticmethod(keras.ops.cast)
    custom_gradient = staticmethod(keras.ops.custom_gradient)
    power = staticmethod(keras.ops.power)
    reshape = staticmethod(keras.ops.reshape)
    sigmoid = staticmethod(keras.ops.sigmoid)
    sum = staticmethod(keras.ops.sum)
    stack = staticmethod(keras.ops.stack)
    where = staticmethod(keras.ops.where)

    @property
    def integer(self):
        return "int32" if keras.backend.backend() == "jax" else "int64"

    @property
    def _word(self):
        # JAX has no 64-bit integers by default, PyTorch no arithmetic on unsigned words.
        return "uint32" if keras.backend.backend() == "jax" else "int64"

    def word(self, x):
        if isinstance(x, (int, np.integer)):
            return np.uint32(int(x) & MASK) if self._word == "uint32" else int(x) & MASK
        return keras.ops.cast(x, self._word) & self.word(MASK)

    def words(self, n):
        return keras.ops.arange(n, dtype=self._word)

    def argsort(self, x):
        return keras.ops.cast(keras.ops.argsort(x), "int32")

    def arange(self, n):
        return keras.ops.arange(n, dtype="int32")

    def take(self, x, indices):
        if len(indices.shape) == 1:
            return x[indices]
        # Mapped over the shards, which stay where they are: no device needs the rows of another.
        shards = keras.ops.reshape(x, (indices.shape[0], -1, *x.shape[1:]))
        rows = keras.ops.vectorized_map(lambda pair: keras.ops.take(*pair, axis=0), (shards, indices))
        return keras.ops.reshape(rows, (-1, *x.shape[1:]))

    def pick(self, x, ids):
        return keras.ops.take_along_axis(x, ids, axis=-1)

    def switch(self, index, branches):
        return keras.ops.switch(index, branches) if is_symbolic(index) else branches[int(index)]()

    def apply_if(self, condition, function, x):
        # With a conditional XLA could not fuse the function with what is around it, which costs more than it saves.
        return keras.ops.where(condition, function(x), x) if is_symbolic(condition) else function(x) if condition else x

    def evaluate(self, function, step):
        return keras.ops.cast(function(step), "float32")


class TensorFlow(NumPy):
    """TensorFlow ops, eager or in a graph, whatever backend Keras runs on."""

    @property
    def tf(self):
        return _tensorflow()

    @property
    def math(self):
        return self.tf.math

    def all(self, x):
        return self.tf.reduce_all(x)

    def any(self, x):
        return self.tf.reduce_any(x)

    def asarray(self, x):
        return self.tf.convert_to_tensor(values(x) if keras.ops.is_tensor(x) and not is_tensorflow(x) else x)

    def custom_gradient(self, function):
        return self.tf.custom_gradient(function)

    def power(self, x, y):
        return self.tf.pow(x, y)

    def reshape(self, x, shape):
        return self.tf.reshape(x, shape)

    def stack(self, arrays, axis=0):
        return self.tf.stack(arrays, axis)

    def where(self, condition, x, y):
        return self.tf.where(condition, x, y)

    def cast(self, x, dtype):
        return self.tf.cast(x, dtype)

    def sigmoid(self, x):
        return self.tf.sigmoid(x)

    def sum(self, x, axis):
        return self.tf.reduce_sum(x, axis)

    def word(self, x):
        return x & MASK if isinstance(x, int) else self.tf.cast(x, "uint32")

    def words(self, n):
        return self.word(self.tf.range(n))

    def shift(self, x, n):
        return self.tf.bitwise.right_shift(x, n)

    def argsort(self, x):
        return self.tf.argsort(x)

    def arange(self, n):
        return self.tf.range(n)

    def take(self, x, indices):
        return self.tf.gather(x, indices)

    def pick(self, x, ids):
        # Its gradient writes but the entries that were picked; `keras.ops` and `tf.gather` pass over all of x for it.
        return self.tf.gather_nd(x, ids[..., None], batch_dims=x.shape.rank - 1)

    def unstack(self, x):
        return self.tf.unstack(x)

    def size(self, x, axis):
        static = None if x.shape.rank is None else x.shape[axis]
        return self.tf.shape(x)[axis] if static is None else static

    def along(self, coefficients, like):
        if like.shape.rank is not None and coefficients.shape.rank == 1:
            return self.tf.reshape(coefficients, (-1,) + (1,) * (like.shape.rank - 1))
        if like.shape.rank is not None:
            return coefficients[(...,) + (None,) * (like.shape.rank - coefficients.shape.rank)]
        ones = self.tf.ones(self.tf.rank(like) - coefficients.shape.rank, "int32")
        return self.tf.reshape(coefficients, self.tf.concat([self.tf.shape(coefficients), ones], 0))

    def by_rows(self, function, x):
        sizes = () if x.shape.rank is None else tuple(x.shape[1:])
        if not is_symbolic(x) or len(sizes) < 2 or not {0, None}.isdisjoint(sizes):
            return function(x)
        # As rows `(B, n)`: XLA loops over every axis, and makes scalar code of short ones.
        return self.tf.reshape(function(self.tf.reshape(x, (-1, math.prod(sizes)))), (-1, *sizes))

    def fused(self, function, *structures):
        """`function(*structures)` as one XLA program in a graph: plain ops would pass over the batch once for each op.

        XLA compiles once for each size of the batch, so all other sizes must be known. It drops assertions.
        """
        tf, shapes = self.tf, []
        leaves = {id(leaf): leaf for leaf in keras.tree.flatten(structures) if is_tensorflow(leaf)}
        if tf.executing_eagerly() or not tf.test.is_built_with_xla() or not all(map(_compiles, leaves.values())):
            return function(*structures)

        def unshaped(leaf):
            """What is reshaped last: XLA may copy the batch to add an axis, which costs nothing outside of it."""
            reshaped = leaf is not None and leaf.op.type == "Reshape" and {0, None}.isdisjoint(leaf.shape[1:])
            shapes.append(leaf.shape[1:] if reshaped else None)
            return leaf.op.inputs[0] if reshaped else leaf

        def on_leaves(*arrays):
            array = dict(zip(leaves, arrays, strict=True))
            mixed = function(*keras.tree.map_structure(lambda leaf: array.get(id(leaf), leaf), structures))
            shapes.clear()
            return keras.tree.map_structure(unshaped, mixed)

        mixed = tf.function(on_leaves, jit_compile=True, autograph=False)(*leaves.values())
        pairs = zip(keras.tree.flatten(mixed), shapes, strict=True)
        shaped = [leaf if shape is None else tf.reshape(leaf, (-1, *shape)) for leaf, shape in pairs]
        return keras.tree.pack_sequence_as(mixed, shaped)

    def require(self, condition, message):
        """Raise unless `condition` holds: at once where it can be seen, else when the graph runs."""
        if is_symbolic(condition):
            # The bare op: `tf.debugging.Assert` wraps it in a conditional, which costs more than the check.
            self.tf.raw_ops.Assert(condition=self.tf.reduce_all(condition), data=[message])
        else:
            super().require(condition, message)

    def require_equal_sizes(self, axes, message):
        sizes = [self.size(x, axis) for x, axis in axes]
        for size in sizes[1:]:
            if not isinstance(size, int) or not isinstance(sizes[0], int):
                self.require(self.tf.equal(size, sizes[0]), message)

    def switch(self, index, branches):
        return self.tf.switch_case(index, branches)

    def apply_if(self, condition, function, x):
        return self.tf.cond(condition, lambda: function(x), lambda: x)

    def evaluate(self, function, step):
        if isinstance(function, keras.optimizers.schedules.LearningRateSchedule) and (
            keras.backend.backend() != "tensorflow"
        ):
            # Keras' own schedules compute on the backend, which cannot run inside a TensorFlow graph.
            value = self.tf.numpy_function(lambda s: np.float32(values(function(int(s)))), [step], "float32")
            return self.tf.ensure_shape(value, ())
        # As a float, since TensorFlow multiplies no integer with a float.
        return self.tf.cast(function(self.tf.cast(step, "float32")), "float32")


NUMPY, NATIVE, TENSORFLOW = NumPy(), Native(), TensorFlow()


class Resource:
    """A TensorFlow resource on the CPU, where tf.data runs, outside the reach of variable scopes."""

    def __init__(self, value):
        tf = _tensorflow()
        self.dtype, self.shape = value.dtype.name, value.shape
        with tf.init_scope(), tf.device("CPU:0"):
            self.handle = tf.raw_ops.VarHandleOp(
                dtype=self.dtype, shape=value.shape, shared_name=f"kmix_{uuid.uuid4().hex}"
            )
            self.assign(value)

    def assign(self, value):
        tf = _tensorflow()
        tf.raw_ops.AssignVariableOp(resource=self.handle, value=tf.cast(value, self.dtype))

    def read(self):
        tf = _tensorflow()
        value = tf.raw_ops.ReadVariableOp(resource=self.handle, dtype=self.dtype)
        value.set_shape(self.shape)
        return value


class Cell:
    """A float that traced tf.data functions and compiled training steps read anew for every batch.

    A Keras variable would be frozen in tf.data when Keras runs on JAX or PyTorch, so the value has a
    TensorFlow twin as soon as a TensorFlow tensor asks for it. In the training step it is a weight.
    """

    def __init__(self, value):
        self._lock, self._resource = threading.Lock(), None
        self._value, self._weights = value, []

    def share(self, weight, refresh):
        """Keep the value in a weight, too. `refresh`, a method, brings the weight up to date; it is held weakly."""
        weight.assign(self.value)
        self._weights.append((weight, weakref.WeakMethod(refresh)))

    def _refreshed(self):
        """The weights of the trainers that live, up to date."""
        self._weights = [(weight, refresh) for weight, refresh in self._weights if refresh() is not None]
        for weight, refresh in self._weights:
            refresh()()
            yield weight

    @property
    def value(self):
        for weight in self._refreshed():
            # A checkpoint may have been loaded. What was assigned is kept as it was, not as float32.
            held = values(weight.value)
            if np.float32(self._value) != held:
                self._value = float(held)
        return self._value

    def assign(self, value):
        with self._lock:
            self._value = value
            for weight in self._refreshed():
                weight.assign(value)
            if self._resource is not None:
                self._resource.assign(np.float32(value))

    def read(self, xp):
        if xp is not TENSORFLOW:
            return np.float32(self.value)
        with self._lock:
            if self._resource is None:
                self._resource = Resource(np.float32(self.value))
        return self._resource.read()


class Counter:
    """Counts calls 0, 1, 2, ... and never gives a number twice, in parallel tf.data maps too."""

    def __init__(self, start=0, copied=False):
        self._lock, self._resource, self._next = threading.Lock(), None, start
        self._process, self._copied = os.getpid(), copied

    def count(self):
        """The next number, without taking it."""
        return self._next if self._resource is None else int(self._resource.read()[0]) >> 8

    def next(self, xp):
        if os.getpid() != self._process or (self._copied and multiprocessing.parent_process() is not None):
            _checks.fail(
                "In a worker process a layer cannot count its calls, since every worker would draw the same plans.",
                "a call without a step in a copy of the layer",
                "Write `layer.at_step(step, batch)` with the number of the batch, or mix in the main process: "
                "`for step, batch in enumerate(loader): batch = layer.at_step(step, batch)`.",
            )
        with self._lock:
            if xp is TENSORFLOW and self._resource is None:
                self._resource = Resource(np.array([self._next * 256, 0, 0], "int64"))
            if self._resource is None:
                self._next += 1
                return self._next - 1
        tf = _tensorflow()
        # The one op that reads and advances in one go (a variable's assign_add is not atomic); it counts by 256.
        with contextlib.nullcontext() if xp is TENSORFLOW else tf.init_scope():
            state = tf.raw_ops.RngReadAndSkip(resource=self._resource.handle, alg=1, delta=np.uint64(1))
            number = tf.bitwise.right_shift(state[0], np.int64(8))
        return number if xp is TENSORFLOW else int(number)
