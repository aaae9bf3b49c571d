"""Numbers for batches that go on across epochs."""

import sys
import threading
import weakref
from typing import Any, SupportsIndex

import keras

from kmix import _backend, _checks
from kmix.data.numbered import DatasetNumbers, NumberedIterable, NumberedPyDataset

_VERSION = 1


class Numbering(keras.callbacks.Callback):
    """Numbers the batches of a loader 0, 1, 2, ... across epochs.

    `enumerate(loader)` and `ds.enumerate()` begin at 0 again in every epoch, which would repeat the plans. A numbering
    continues, also from a checkpoint.

    It takes any iterable, such as a PyTorch `DataLoader`, and gives an iterable of `(number, batch)`. For a
    `tf.data.Dataset` or a `keras.utils.PyDataset` it gives another of the same kind, with a method `map`, to fit on. It
    is also a callback: pass it to `fit(callbacks=[...])`, which takes batches before it trains. The callback tells the
    pipeline where training begins. If a generator wraps the numbering, make a new one for each `fit`: TensorFlow reads
    ahead of it.

    `fit` and loops of your own go on from the highest number used: `fit` has used a number when it has trained on the
    batch, a loop when it has taken it. What `fit` has read ahead is numbered anew. Three limits:

    - To build a model, Keras takes a batch of a `tf.data.Dataset` before `fit` begins. So what a loop took before it
      counts for the model of the last `fit`, and for any other if you ask for the state after the loop.
    - Where batches are regrouped after they were numbered (`unbatch`, `batch`), all that was handed out counts as used.
      If the length of the data is not known, this is found at the end of the first epoch; with `steps_per_epoch`, as
      for endless data, never: number the batches that the model trains on.
    - A loop over a `tf.data.Dataset` that is broken off has used what the pipeline read ahead of it. Those numbers are
      left out, and none comes twice.

    Args:
        start: Number of the first batch, an int >= 0. To resume a loop, pass the number of batches
            trained on so far, or load a state. Under `fit`, with `initial_epoch=` or `BackupAndRestore` and data of
            known length, leave it at 0: the skipped epochs are counted.

    Call arguments:
        loader: A batched `tf.data.Dataset`, a `keras.utils.PyDataset`, or any iterable of batches. In a loop, call the
            numbering in every epoch, or iterate over its result in every epoch.

    Returns:
        A `tf.data.Dataset` or a `PyDataset` of `(number, batch)`, or an iterable of them, of the same length.

    Raises:
        TypeError: if `loader` is not iterable.
        ValueError: if `start` is negative; if you call the numbering on a second loader while the first is in use; in
            `fit`, if the epochs before `initial_epoch` cannot be counted.

    Example:
        A loop of your own.

    >>> numbering = kmix.data.Numbering()
    >>> loader = [(np.ones((2, 4), "float32"), np.array([0, 1]))] * 3
    >>> mixup = kmix.MixUp(0.2, num_classes=2, seed=1)
    >>> for epoch in range(2):
    ...     for step, batch in numbering(loader):
    ...         x, y = mixup.at_step(step, batch)
    >>> numbering.state_dict()
    {'version': 1, 'step': 6}

    Example:
        `fit` on a `tf.data.Dataset`.

    >>> import tensorflow as tf
    >>> numbering = kmix.data.Numbering()
    >>> ds = tf.data.Dataset.from_tensor_slices((np.ones((6, 4), "float32"), np.array([0, 1] * 3))).batch(2)
    >>> train = numbering(ds).map(mixup.at_step, num_parallel_calls=2).prefetch(2)
    >>> model = keras.Sequential([keras.layers.Dense(2, activation="softmax")])
    >>> model.compile("sgd", kmix.losses.SoftLabelCrossentropy())
    >>> history = model.fit(train, epochs=2, callbacks=[numbering], verbose=0)
    """

    def __init__(self, start: SupportsIndex = 0) -> None:
        super().__init__()
        self.start: int = _checks.integer(start, "start")
        self.async_safe = True
        # The numbers. Keras calls the hooks in several threads at once, so one lock guards them.
        #   _used     after the highest number used: the state. A loop raises it in `_take`, `fit` when a batch ends.
        #   _next     the next number of an iterable. `_take` raises it, also for `fit`, which may leave the number.
        #   _base     of batch 0 of a `PyDataset`. Written where `fit` begins the data anew.
        #   _first    of the first batch of the epoch of `fit`. Written where that begins.
        #   _trained  how many batches of the epoch `fit` has trained on. Raised when one ends.
        # The pipeline of a `tf.data.Dataset` counts what it hands out itself.
        self._lock = threading.RLock()
        self._used = self._next = self._base = self._first = self.start
        self._trained = 0
        # What is numbered, and its length, or 0 if that is not known.
        self._numbered: Any = None
        self._dataset: DatasetNumbers | None = None
        self._length, self._indexed = 0, False
        # How many processes take the batches of a `PyDataset` in turn.
        self._shards = 1
        # Of an iterable: the last iteration, whether it came to its end, and the first number that Keras took before
        # its callbacks heard of `fit`.
        self._iteration, self._finished = 0, True
        self._peeked: int | None = None
        # Of `fit`: whether it began and did not end (it may have been broken off), whether its first epoch is to come,
        # whether each of its batches has one number, its thread and its model.
        self._fitting, self._begins, self._one_to_one = False, False, True
        self._thread: int | None = None
        self._model_before: Any = None
        # Whether a state was loaded, and no epoch has begun since.
        self._loaded = False

    def __call__(self, loader: Any) -> Any:
        if not hasattr(loader, "__iter__") or isinstance(loader, (str, dict, type)):
            _checks.fail(
                "`Numbering` numbers the batches of a `tf.data.Dataset`, or of any iterable, such as a PyTorch loader.",
                f"a {type(loader).__name__}",
                error=TypeError,
            )
        last = self._numbered and self._numbered()
        second = last is not None and last.loader is not loader and not last.finished
        if second or self._dataset is not None:
            _checks.fail("A numbering belongs to one loader.", "a second loader", "Create a second `Numbering()`.")
        if _backend.is_dataset(loader):
            self._dataset, self._length = DatasetNumbers(self._used), max(int(loader.cardinality()), 0)
            return self._dataset.number(loader)
        self._indexed = isinstance(loader, keras.utils.PyDataset)
        self._length = (loader.num_batches or 0) if self._indexed else 0
        return self._follow((NumberedPyDataset if self._indexed else NumberedIterable)(self, loader))

    def _follow(self, numbered):
        """Return what is numbered, and let no other loader have numbers while it is in use."""
        self._numbered = weakref.ref(numbered)
        return numbered

    def __deepcopy__(self, memo):
        # Tuners copy callbacks. The copy must steer the same pipeline.
        return self

    def state_dict(self) -> dict[str, int]:
        """The state to save in a checkpoint.

        Returns:
            A dictionary for `load_state_dict`: `step` is the number of the next batch, after the highest number used.
        """
        with self._lock:
            self._count(loops=not self._in_fit())
            return {"version": _VERSION, "step": self._used}

    def load_state_dict(self, state: dict[str, int]) -> None:
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
        with self._lock:
            self._used = self._next = self._first = step
            self._trained, self._peeked, self._loaded, self._fitting = 0, None, True, self._in_fit()
            self._iteration += 1
            self._go_on()

    def _go_on(self):
        """Let data that begin from now on, begin with the first number that was not used."""
        self._base = self._used
        if self._dataset is not None:
            self._dataset.go_on(self._used)

    def _count(self, loops):
        """Count what a `tf.data.Dataset` has handed out to loops, or to a `fit` that does not tell what it has used."""
        if self._dataset is not None:
            iterations, following = self._dataset.handed_out()
            # The first iteration since `fit` began is its own.
            if (loops and iterations > self._fitting) or (self._fitting and not self._one_to_one):
                self._used = max(self._used, following)

    def _in_fit(self):
        """Whether `fit` runs. If it was broken off, its callbacks did not hear of it."""
        return _fit_is_running() or (self._fitting and threading.get_ident() != self._thread)

    # Iterables ask for each number.

    def _begin(self):
        """Begin an iteration, which ends every other."""
        with self._lock:
            self._next = max(self._next, self._used)
            if not self._finished:
                # `fit` has left the iteration before, and with it what was handed out and not trained on.
                self._first, self._peeked = self._next - self._trained, None
            self._iteration, self._finished = self._iteration + 1, False
            return self._iteration

    def _take(self, iteration):
        """The next number, for the iteration that began last."""
        with self._lock:
            if iteration != self._iteration:
                _checks.fail(
                    "A numbering belongs to one iteration at a time.",
                    "a second iteration or another state since this one began",
                    "Create a `Numbering()` for each.",
                )
            number, self._next = self._next, self._next + 1
            # tf.data reads ahead of a generator, in threads of its own, also after `fit`.
            if self._thread in (None, threading.get_ident()):
                if not _fit_is_running():
                    self._fitting, self._peeked = False, None
                elif not self._fitting and self._peeked is None:
                    self._peeked = number
                if not self._fitting:
                    self._used = self._next
            return number

    def _finish(self, iteration):
        """End an iteration that came to the end of its data."""
        with self._lock:
            self._finished |= iteration == self._iteration

    # `fit` tells what it trains on.

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        with self._lock:
            # For a model that it knows, Keras takes no batch to build it: what was handed out is a loop's.
            self._count(loops=self.model is self._model_before)
            if self._fitting and not self._indexed:
                # The last `fit` was broken off: what an iterable has handed out is lost.
                self._used = max(self._used, self._next)
            elif self._peeked is not None:
                self._used = self._peeked
            self._fitting, self._begins, self._peeked = True, True, None
            self._thread, self._model_before = threading.get_ident(), self.model

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._dataset is None and self._numbered is None:
            _checks.fail(
                "The numbering has no data set to number.",
                "a callback without a data set",
                "Write `train = numbering(ds).map(layer.at_step)` and fit on that.",
            )
        self._shards = _shards() if self._indexed else 1
        steps = self.params.get("steps") and self.params["steps"] * self._shards
        if self._indexed and self._length not in (0, steps):
            several = self._shards > 1
            _checks.fail(
                "A numbered `PyDataset` is trained on in whole epochs, batch by batch.",
                f"{steps} steps with {self._length} batches" + f" of {self._shards} processes" * several,
                "Leave out `steps_per_epoch`." + " Each process needs equally many batches." * several,
            )
        with self._lock:
            if self._begins:
                self._skip(epoch, self._length or steps)
                self._one_to_one = self._length in (0, steps)
            else:
                self._count(loops=False)
            self._first, self._trained = self._used, 0
            # With other `steps_per_epoch`, one iterator lasts across epochs and continues the numbers by itself.
            if self._begins or steps in (None, self._length):
                self._go_on()
            self._begins = self._loaded = False

    def _skip(self, epoch, numbers):
        """Begin after the epochs that `initial_epoch` skips, which have so many numbers each."""
        if self._loaded or not epoch:
            return
        if numbers and (self._indexed or self._dataset is not None):
            self._used = max(self._used, self.start + epoch * numbers)
        elif self._used == 0:
            _checks.fail(
                "The skipped epochs can be counted for data of known length, and not for an iterable.",
                f"initial_epoch={epoch}",
                "Load a state, or pass the number of batches trained on so far as `Numbering(start=...)`.",
            )

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        with self._lock:
            # Batches end in any order, and the last execution of several steps may have fewer.
            self._trained = max(self._trained, min(batch + 1, self.params.get("steps") or batch + 1))
            if self._one_to_one:
                used = self._first + self._trained * self._shards
                iterable = self._dataset is None and not self._indexed
                self._used = max(self._used, min(used, self._next) if iterable else used)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.params.get("steps") is not None or self._indexed or self.model.stop_training:
            return
        # Keras has read the data to their end: everything that was handed out is used.
        with self._lock:
            if self._dataset is not None:
                self._used = max(self._first, self._dataset.handed_out()[1])
            elif self._finished:
                self._used = self._next
            self._one_to_one = self._used == self._first + self._trained

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        with self._lock:
            self._count(loops=False)
            self._fitting = False
            self._go_on()


def _shards():
    """To how many processes Keras deals the batches of a `PyDataset`, which it does from Keras 3.16 on."""
    distribution = keras.distribution.distribution()
    dealt = getattr(distribution, "auto_shard_dataset", False)
    return getattr(distribution, "num_data_shards", 1) if dealt else 1


def _fit_is_running():
    """Whether this code runs within a call of Keras' `fit`."""
    frame: Any = sys._getframe()
    while frame and not (frame.f_code.co_name == "fit" and frame.f_globals.get("__name__", "").startswith("keras.")):
        frame = frame.f_back
    return frame is not None
