"""TensorFlow tensors, eager or in a graph, on whatever backend Keras runs."""

import functools
import math
from typing import Any

import keras
import numpy as np

from kmix._backend import xla
from kmix._backend.arrays import NAMESPACES, is_symbolic, is_tensorflow, static_shape, tensorflow, values
from kmix._backend.execution import program_for
from kmix._backend.operations import Namespace


def _op(name) -> Any:
    """A function of TensorFlow, looked up when it is first used: TensorFlow may be imported later than kmix."""
    return functools.cached_property(lambda _: getattr(tensorflow(), name))


class TensorFlow(Namespace):
    """TensorFlow ops."""

    all = _op("reduce_all")
    any = _op("reduce_any")
    arange = _op("range")
    argsort = _op("argsort")
    cast = _op("cast")
    integer: Any = "int64"
    math = _op("math")
    power = _op("pow")
    reshape = _op("reshape")
    sigmoid = _op("sigmoid")
    stack = _op("stack")
    sum = _op("reduce_sum")
    transpose = _op("transpose")
    switch = _op("switch_case")
    unstack = _op("unstack")
    where = _op("where")

    @property
    def tf(self):
        return tensorflow()

    def asarray(self, x):
        foreign = keras.ops.is_tensor(x) and not is_tensorflow(x)
        return self.tf.convert_to_tensor(values(x) if foreign else x)

    def word(self, x):
        return x if isinstance(x, int) else self.tf.cast(x, "uint32")

    def words(self, n):
        return self.word(self.tf.range(n))

    def shift(self, x, n):
        return self.tf.bitwise.right_shift(x, n)

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

    def concat(self, arrays, axis=0):
        return self.tf.concat(arrays, axis)

    def argmax(self, x):
        return self.tf.argmax(x, axis=-1, output_type="int32")

    def gram(self, x):
        return self.tf.matmul(x, x, transpose_b=True)

    def take(self, x, indices):
        return self.tf.gather(x, self.rows(indices) if len(static_shape(indices) or ()) == 2 else indices)

    def pick(self, x, ids):
        # Its gradient writes only the picked entries; the gradients of `keras.ops` and `tf.gather` pass over all of x.
        return self.tf.gather_nd(x, ids[..., None], batch_dims=x.shape.rank - 1)

    def custom_gradient(self, forward, backward):
        if not self.tf.executing_eagerly() and _in_data_set(self.tf.compat.v1.get_default_graph()):
            # Nothing asks for a gradient there, and TensorFlow keeps the graph of each custom gradient forever.
            return forward

        def function(x, *others):
            of_x = lambda x: (forward(x, *others), lambda upstream: backward(upstream, *others))  # noqa: E731
            return self.tf.custom_gradient(of_x)(x)

        return function

    def apply_if(self, condition, function, x):
        return self.tf.cond(condition, lambda: function(x), lambda: x)

    def evaluate_symbol(self, schedule, step):
        keras_schedule = isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule)
        if keras_schedule and keras.backend.backend() != "tensorflow":
            # Keras' own schedules compute on the backend, which cannot run inside a TensorFlow graph.
            value = self.tf.numpy_function(lambda s: np.float32(values(schedule(int(s)))), [step], "float32")
            return self.tf.ensure_shape(value, ())
        # TensorFlow does not multiply an integer by a float, nor float64 by the float32 of `keras.ops`.
        try:
            return schedule(self.tf.cast(step, "float64"))
        except (TypeError, ValueError):
            value = self.tf.cast(schedule(self.tf.cast(step, "float32")), "float32")
            return self.tf.where(step < 2**24, value, math.nan)

    def by_rows(self, function, x):
        sizes = () if x.shape.rank is None else tuple(x.shape[1:])
        if not is_symbolic(x) or len(sizes) < 2 or not {0, None}.isdisjoint(sizes):
            return function(x)
        # As rows `(B, n)`: XLA loops over every axis, and turns short axes into scalar code.
        return self.tf.reshape(function(self.tf.reshape(x, (-1, math.prod(sizes)))), (-1, *sizes))

    def run(self, bound, arrays):
        devices = (getattr(x, "device", None) for x in arrays)
        program = program_for(bound, arrays, devices, functools.partial(xla.compiled, self.tf))
        return bound(*map(self.asarray, arrays)) if program is None else program(*arrays)

    def fused(self, function, *structures, key=None, padded=()):
        """`function(*structures)` as one XLA program in a graph: plain ops would each pass over the batch."""
        return xla.fused(self.tf, function, *structures, key=key, padded=padded)

    def require(self, condition, message):
        """Raise unless `condition` holds: at once if its values can be read, else when the graph runs."""
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


def _in_data_set(graph):
    """Whether the graph is that of a function of a `tf.data.Dataset`, or lies within one."""
    if graph is None:
        return False
    return getattr(graph, "name", "").startswith("Dataset_") or _in_data_set(getattr(graph, "outer_graph", None))


TENSORFLOW = TensorFlow()
NAMESPACES["tensorflow"] = TENSORFLOW
