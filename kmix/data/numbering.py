"""Numbers for batches that go on across epochs."""

import threading
import weakref
from typing import Any

import keras
import numpy as np

from kmix import _backend, _checks
from kmix.data.numbered import Numbered, NumberedPyDataset

_VERSION = 1


class Numbering(keras.callbacks.Callback):
    """Numbers the batches of a loader 0, 1, 2, ... across epochs.

    `enumerate(loader)` and `ds.enumerate()` begin at 0 again in every epoch, which would repeat the plans. A numbering
    continues, also from a checkpoint.

    It takes any iterable, such as a PyTorch `DataLoader`, and gives an iterable of `(number, batch)`. For a
    `tf.data.Dataset` or a `keras.utils.PyDataset` it gives another of the same kind, with a method `map`, to fit on. It
    is also a callback: pass it to `fit(callbacks=[...])`, which draws batches before it trains. The callback tells the
    pipeline where training begins. In your own loop, without the callback, the numbers continue from the last batch
    produced. If a generator wraps the numbering, make a new one for each `fit`: TensorFlow reads ahead of it.

    Args:
        start: Number of the first batch, an int >= 0. To resume, pass the number of batches trained on
            so far, or load a state. With `fit(initial_epoch=...)` and data of known length, leave it at 0: the skipped
            epochs are counted.

    Call arguments:
        loader: A batched `tf.data.Dataset`, a `keras.utils.PyDataset`, or any iterable of batches. In a loop, call the
            numbering in every epoch, or iterate over its result in every epoch.

    Returns:
        A `tf.data.Dataset` or a `PyDataset` of `(number, batch)`, or an iterable of them, of the same length.

    Raises:
        TypeError: if `loader` is not iterable.
        ValueError: if `start` is negative, or if you call the numbering on a second loader while the first is in use.

    Example: a loop of your own.

    >>> numbering = kmix.data.Numbering()
    >>> loader = [(np.ones((2, 4), "float32"), np.array([0, 1]))] * 3
    >>> mixup = kmix.MixUp(0.2, num_classes=2, seed=1)
    >>> for epoch in range(2):
    ...     for step, batch in numbering(loader):
    ...         x, y = mixup.at_step(step, batch)
    >>> numbering.state_dict()
    {'version': 1, 'step': 6}

    Example: `fit` on a `tf.data.Dataset`.

    >>> import tensorflow as tf
    >>> numbering = kmix.data.Numbering()
    >>> ds = tf.data.Dataset.from_tensor_slices((np.ones((6, 4), "float32"), np.array([0, 1] * 3))).batch(2)
    >>> train = numbering(ds).map(mixup.at_step, num_parallel_calls=2).prefetch(2)
    >>> model = keras.Sequential([keras.layers.Dense(2, activation="softmax")])
    >>> model.compile("sgd", kmix.losses.SoftLabelCrossentropy())
    >>> history = model.fit(train, epochs=2, callbacks=[numbering], verbose=0)
    """

    def __init__(self, start=0):
        super().__init__()
        self.start = _checks.integer(start, "start")
        self.async_safe = True
        self._managed: _backend.Resource | None = None
        self._produced: _backend.Resource | None = None
        self._length, self._done, self._generation, self._indexed = 0, 0, 0, False
        self._offset: int | None = None
        # The number that the epoch of `fit` began with, and the number after the last batch trained on.
        self.base, self.fitting = self.start, False
        self._trained: int | None = None
        self._thread: int | None = None
        self._trained_before = self.start
        # For iterables: the next number, the iteration that takes it, its first number, and what is iterated.
        self._next, self._turn, self._first = self.start, 0, self.start
        self._loaded: int | None = None
        self._numbered: Any = lambda: None

    def __call__(self, loader):
        if not hasattr(loader, "__iter__") or isinstance(loader, (str, dict)):
            _checks.fail(
                "`Numbering` numbers the batches of a `tf.data.Dataset`, or of any iterable, such as a PyTorch loader.",
                f"a {type(loader).__name__}",
                error=TypeError,
            )
        last = self._numbered()
        second = last is not None and last.loader is not loader and not last.finished
        if second or self._managed is not None:
            _checks.fail("A numbering belongs to one loader.", "a second loader", "Create a second `Numbering()`.")
        if _backend.is_dataset(loader):
            return self._number_dataset(loader)
        kind = NumberedPyDataset if isinstance(loader, keras.utils.PyDataset) else Numbered
        return self.follow(kind(self, loader))

    def follow(self, numbered):
        """Return what is numbered, and number it in `fit`."""
        self._numbered = weakref.ref(numbered)
        self._indexed = isinstance(numbered, NumberedPyDataset)
        self._length = (numbered.num_batches or 0) if self._indexed else 0
        return numbered

    def __deepcopy__(self, memo):
        # Tuners copy callbacks. The copy must steer the same pipeline.
        return self

    def state_dict(self):
        """The state to save in a checkpoint: in `fit`, of the batches trained on; else of those produced.

        Returns:
            A dictionary for `load_state_dict`: `step` is the number of the next batch.
        """
        if self._trained is not None:
            step = self._trained
        elif self._managed is None or self._produced is None:
            step = self._next
        else:
            (generation, first), (latest, following) = self._managed.read(), self._produced.read()
            step = int(max(first, following) if latest == generation else first)
        return {"version": _VERSION, "step": step}

    def load_state_dict(self, state):
        """Continue from a saved state: the next batch gets the number `step`.

        Only the numbers continue. To continue in the middle of an epoch, restore the loader as well, or let it
        begin its epoch again.

        Args:
            state: What `state_dict` returned.

        Raises:
            ValueError: if `state` is no such dictionary, or was written by another version.
        """
        if not isinstance(state, dict) or state.get("version") != _VERSION or "step" not in state:
            _checks.fail(
                f"The state of a numbering is a dictionary with `step`, of version {_VERSION}.",
                f"{state!r}",
                "To go on from batch n, write `Numbering(start=n)`.",
            )
        step = _checks.integer(state["step"], "step")
        self._next, self._done, self._loaded, self._trained = step, step, step, None
        self._turn += 1
        if self._managed is not None:
            self._generation += 1
            self._managed.assign(np.array([self._generation, step]))

    # Iterables.

    def begin(self):
        """Begin an iteration, which ends every other."""
        self._forget_fit()
        self._turn, self._first = self._turn + 1, self._next
        return self._turn

    def take(self, turn):
        """The next number, for the iteration that began last."""
        if turn != self._turn:
            _checks.fail(
                "A numbering belongs to one iteration at a time.",
                "a second iteration or another state since this one began",
                "Create a `Numbering()` for each.",
            )
        self._forget_fit()
        self._next += 1
        self._loaded = self._next
        return self._next - 1

    def _forget_fit(self):
        # tf.data reads ahead of a generator, in threads of its own, also after `fit`.
        if not self.fitting and threading.get_ident() == self._thread:
            self._trained = None

    # tf.data.

    def _number_dataset(self, dataset):
        import tensorflow as tf

        # Both are (generation, number). Only this callback writes `managed`, and only the pipeline writes `produced`,
        # so an iterator left over from before training cannot disturb the numbers.
        managed = self._managed = _backend.Resource(np.array([0, self._next], "int64"))
        produced = self._produced = _backend.Resource(np.array([0, self._next], "int64"))
        cardinality = dataset.cardinality()
        self._length = max(int(cardinality), 0)

        @tf.autograph.experimental.do_not_convert
        def numbers(_):
            generation, first = tf.unstack(managed.read())
            latest, following = tf.unstack(produced.read())
            first = tf.where(latest == generation, tf.maximum(first, following), first)
            return tf.data.Dataset.zip(
                tf.data.Dataset.from_tensors(generation).repeat(), tf.data.Dataset.range(first, tf.int64.max)
            )

        @tf.autograph.experimental.do_not_convert
        def note(numbered, batch):
            generation, number = numbered
            produced.assign(tf.stack([generation, number + 1]))
            return number, batch

        numbered = tf.data.Dataset.zip(tf.data.Dataset.range(1).flat_map(numbers), dataset).map(note)
        known = cardinality != tf.data.UNKNOWN_CARDINALITY
        return numbered.apply(tf.data.experimental.assert_cardinality(cardinality)) if known else numbered

    def on_train_begin(self, logs=None):
        self._offset, self.fitting, self._thread = None, True, threading.get_ident()

    def on_train_end(self, logs=None):
        self.fitting = False

    def on_epoch_begin(self, epoch, logs=None):
        if self._managed is None and not self._indexed:
            self._begin_epoch_of_iterable()
            return
        steps, first_of_fit = self._steps(), self._offset is None
        if self._indexed and self._length not in (0, steps):
            _checks.fail(
                "A numbered `PyDataset` is trained on in whole epochs.",
                f"steps_per_epoch={steps} with {self._length} batches",
                "Leave out `steps_per_epoch`.",
            )
        if self._offset is None:
            # An epoch that was broken off is not done, but its numbers are taken.
            taken = max(self._done, self._trained or 0)
            follow = max(self.start, taken - epoch * steps)
            self._offset = follow if self._loaded is None else self._loaded - epoch * steps
            self._loaded = None
        # With steps_per_epoch, one iterator lasts across epochs and continues the numbers by itself.
        if first_of_fit or steps == self._length > 0:
            self.base = self._trained_before = self._offset + epoch * steps
            self._generation += 1
            if self._managed is not None:
                self._managed.assign(np.array([self._generation, self.base]))
        elif self._trained is not None:
            self._trained_before = self._trained

    def _begin_epoch_of_iterable(self):
        if self._turn == 0:
            _checks.fail(
                "The numbering has no data set to number.",
                "a callback without a data set",
                "Write `train = numbering(ds).map(layer.at_step)` and fit on that.",
            )
        self._trained_before = self._first if self._trained is None else self._trained

    def on_train_batch_end(self, batch, logs=None):
        # Keras calls this in threads, in any order.
        self._trained = max(self._trained or 0, self._trained_before + batch + 1)

    def on_epoch_end(self, epoch, logs=None):
        if self._steps():
            self._done = (self._offset or 0) + (epoch + 1) * self._steps()
        elif self._produced is not None:
            self._done = int(self._produced.read()[1])
        self._next = max(self._next, self._done)

    def _steps(self):
        """Batches in an epoch, or 0 if unknown."""
        return self.params.get("steps") or self._length
