"""State from batch to batch: numbers that traced functions, compiled steps and workers read each time."""

import contextlib
import multiprocessing
import os
import threading
import types
import uuid
import weakref

import keras
import numpy as np

from kmix import _checks
from kmix._backend.arrays import tensorflow, values
from kmix._backend.execution import after_checks
from kmix._backend.tensorflow_ops import TensorFlow

# Drawn by each interpreter that starts; a fork copies it.
_INTERPRETER = uuid.uuid4().hex


def _this_process():
    """A name that no other process has, on any machine."""
    return _INTERPRETER, os.getpid()


class Resource:
    """A TensorFlow resource on the CPU, where tf.data runs, and out of reach of variable scopes."""

    def __init__(self, value):
        tf = tensorflow()
        self.dtype, self.shape = value.dtype.name, value.shape
        with tf.init_scope(), tf.device("CPU:0"):
            self.handle = tf.raw_ops.VarHandleOp(
                dtype=self.dtype, shape=value.shape, shared_name=f"kmix_{uuid.uuid4().hex}"
            )
            self.assign(value)

    def assign(self, value):
        tf = tensorflow()
        tf.raw_ops.AssignVariableOp(resource=self.handle, value=tf.cast(value, self.dtype))

    def read(self):
        tf = tensorflow()
        value = tf.raw_ops.ReadVariableOp(resource=self.handle, dtype=self.dtype)
        value.set_shape(self.shape)
        return value


class Cell:
    """A float that traced tf.data functions, compiled training steps and worker processes read for every batch.

    When Keras runs on JAX or PyTorch, tf.data would freeze a Keras variable. The value therefore gets a
    TensorFlow copy when TensorFlow first reads it. In the training step it is a weight. Worker processes share memory
    with the process that holds it.
    """

    def __init__(self, value, memory=None):
        self._lock, self._resource = threading.Lock(), None
        self._memory, self._weights = memory or _shared_memory(value), []
        # Only the process that made the value may set it.
        self._process, self._pickled = os.getpid() if memory is None else None, False

    def share(self, weight, refresh):
        """Keep the value in a weight as well. The method `refresh`, held weakly, brings that weight up to date."""
        weight.assign(self.value)
        self._weights.append((weight, weakref.WeakMethod(refresh)))

    def pickled(self):
        """What the pickle of a layer holds with the value: the memory, if a worker process is being started."""
        shared = not isinstance(self._memory, types.SimpleNamespace)
        if shared and multiprocessing.context.get_spawning_popen() is not None:
            return self._memory
        self._pickled = True
        return None

    def _refreshed(self):
        """The weights of all trainers that still exist, brought up to date."""
        # A trainer that is collected from here on is still one of them.
        held = [(shared, refresh) for shared in self._weights if (refresh := shared[1]()) is not None]
        self._weights = [shared for shared, _ in held]
        for (weight, _), refresh in held:
            refresh()
            yield weight

    @property
    def value(self):
        if self._weights:
            with _outside_graphs():
                for weight in self._refreshed():
                    # A checkpoint may have been loaded. Otherwise keep the assigned value, which float32 would round.
                    held = values(weight.value)
                    if np.float32(self._memory.value) != held:
                        self._memory.value = float(held)
        return self._memory.value

    def check(self, value):
        """Raise if a process would not see that the value is set."""
        if value == self.value:
            return
        if os.getpid() != self._process:
            _checks.fail(
                "A worker process takes alpha from the process that built the layer.",
                f"alpha={value!r} instead of {self.value!r}",
                "Set it there. For a layer of this process alone, write `layer = copy.deepcopy(layer)` first.",
            )
        if self._pickled:
            _checks.fail(
                "The layer was pickled, as some loaders do for their worker processes, and its copies would keep the "
                "old alpha.",
                f"alpha={value!r} instead of {self.value!r}",
                "Build the layer with a schedule of the step, which every copy follows. To set alpha of this layer "
                "alone, write `layer = copy.deepcopy(layer)` first.",
            )

    def assign(self, value):
        with self._lock:
            self._memory.value = value
            for weight in self._refreshed():
                weight.assign(value)
            if self._resource is not None:
                self._resource.assign(np.float32(value))

    def read(self, xp):
        if not isinstance(xp, TensorFlow):
            return np.float32(self.value)
        with self._lock:
            if self._resource is None:
                self._resource = Resource(np.float32(self.value))
        return self._resource.read()


def _outside_graphs():
    """A scope in which weights have values to read, inside the graph of a data set as well."""
    if keras.backend.backend() != "tensorflow" or tensorflow().executing_eagerly():
        return contextlib.nullcontext()
    return tensorflow().init_scope()


def _shared_memory(value):
    """A holder of a float, shared with worker processes where the system can."""
    try:
        return multiprocessing.RawValue("d", value)
    except (ImportError, OSError):
        return types.SimpleNamespace(value=value)


class Counter:
    """Counts calls 0, 1, 2, ... and never gives a number twice, even in parallel tf.data maps.

    Only one process counts, this one by default. `process` goes along in a pickle.
    """

    def __init__(self, start=0, copied=False, process=None):
        self._lock, self._resource, self._next = threading.Lock(), None, start
        self.process, self._copied = process or _this_process(), copied

    def count(self):
        """The next number, without taking it."""
        return self._next if self._resource is None else int(self._resource.read()[0]) >> 8

    def undo(self, number):
        """Take back the number that `next` gave last, if no other was taken since and no graph counts."""
        with self._lock:
            if self._resource is None and isinstance(number, int) and self._next == number + 1:
                self._next = number

    def next(self, xp):
        if _this_process() != self.process or (self._copied and multiprocessing.parent_process() is not None):
            alone = multiprocessing.parent_process() is None
            _checks.fail(
                "In a worker process, a layer cannot count its calls: every worker would draw the same plans.",
                "a call without a step in a copy of the layer",
                "Write `layer.at_step(step, batch)` with the number of the batch: `kmix.data.MixedBatches` numbers the "
                "batches of a PyTorch loader. Or mix in the main process: `for step, batch in numbering(loader): batch "
                "= layer.at_step(step, batch)` with `numbering = kmix.data.Numbering()`."
                + (" If no other process counts, write `layer = copy.deepcopy(layer)` first." if alone else ""),
            )
        tf = tensorflow()
        with self._lock:
            if isinstance(xp, TensorFlow) and self._resource is None and not tf.executing_eagerly():
                self._resource = Resource(np.array([self._next * 256, 0, 0], "int64"))
            if self._resource is None:
                self._next += 1
                return self._next - 1
        # The only op that reads and advances atomically (a variable's assign_add does not). It counts by 256.
        with after_checks() if isinstance(xp, TensorFlow) else tf.init_scope():
            state = tf.raw_ops.RngReadAndSkip(resource=self._resource.handle, alg=1, delta=np.uint64(1))
            number = tf.bitwise.right_shift(state[0], np.int64(8))
        return number if isinstance(xp, TensorFlow) else int(number)


def is_stateless():
    """Whether Keras runs a model as a function, as it does to learn what a loaded one returns."""
    try:
        keras.Variable(0.0)
    except ValueError:
        return True
    return False
