"""What a numbering makes of a loader: one adapter for iterables, one for `PyDataset`s, one for `tf.data.Dataset`s."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from kmix import _backend, _checks


class NumberedIterable:
    """An iterable of `(number, batch)`, which asks the numbering for each number."""

    def __init__(self, numbering: Any, loader: Any) -> None:
        self.loader, self.finished = loader, False
        self._numbering = numbering

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        iteration = self._numbering._begin()
        for batch in self.loader:
            yield self._numbering._take(iteration), batch
        self.finished = True
        self._numbering._finish(iteration)

    def __len__(self) -> int:
        return len(self.loader)


class NumberedPyDataset(keras.utils.PyDataset):
    """A `PyDataset` of `(number, batch)`, or of what a function makes of these.

    Keras asks for batches by their index, in threads or processes: the index is added to the number that the epoch
    begins with. A loop numbers them as those of any iterable.
    """

    def __init__(self, numbering: Any, loader: Any, function: Callable[[int, Any], Any] | None = None) -> None:
        super().__init__(loader.workers, loader.use_multiprocessing, loader.max_queue_size)
        self.loader, self._function = loader, function
        self._numbering, self._first, self._unannounced = numbering, None, 0
        self._iterable = NumberedIterable(numbering, loader)

    @property
    def finished(self) -> bool:
        """Whether a loop came to its end."""
        return self._iterable.finished

    def map(self, function: Callable[[int, Any], Any]) -> Any:
        """A `PyDataset` of `function(number, batch)`, which its threads or worker processes call."""
        if not callable(function):
            _checks.fail("`map` takes a function.", f"a {type(function).__name__}", "Write `layer.at_step`.", TypeError)
        return self._numbering._follow(NumberedPyDataset(self._numbering, self.loader, function))

    def _apply(self, number, batch):
        return (number, batch) if self._function is None else self._function(number, batch)

    def _first_of_epoch(self):
        return self._first if self._numbering is None else self._numbering._base

    def __getitem__(self, index: int) -> Any:
        return self._apply(self._first_of_epoch() + index, self.loader[index])

    def __iter__(self) -> Iterator[Any]:
        return (self._apply(number, batch) for number, batch in self._iterable)

    def __getstate__(self):
        # A worker process needs only the number that its epoch begins with.
        return {**self.__dict__, "_numbering": None, "_iterable": None, "_first": self._first_of_epoch()}

    @property
    def num_batches(self) -> int | None:
        return self.loader.num_batches

    def on_epoch_begin(self) -> None:
        # Keras also begins an epoch to build the model from a batch, and leaves it.
        announced = self._numbering._fitting and self._numbering._trained == 0
        self._unannounced = 0 if announced else self._unannounced + 1
        if self._unannounced > 1:
            _checks.fail(
                "Without the numbering, `fit` would repeat the plans in every epoch.",
                "an epoch that the numbering does not know of",
                "Write `model.fit(data, callbacks=[numbering])`.",
            )
        self.loader.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self.loader.on_epoch_end()


class DatasetNumbers:
    """The numbers of a `tf.data.Dataset`, whose pipeline reads and writes them in TensorFlow's threads.

    `go_on` begins a new generation of iterations, so that one left over from before, which may still read ahead, cannot
    disturb the numbers. It alone writes `_begin`: (generation, number). The pipeline alone writes `_latest`:
    (generation, iteration, number after the last one handed out).
    """

    def __init__(self, number: int) -> None:
        self._generation = 0
        self._begin = _backend.Resource(np.array([0, number], "int64"))
        self._latest = _backend.Resource(np.array([0, 0, number], "int64"))

    def go_on(self, number: int) -> None:
        """From now on, the first iteration begins with `number`, and each other where the one before stands."""
        self._generation += 1
        self._begin.assign(np.array([self._generation, number]))

    def handed_out(self) -> tuple[int, int]:
        """How many iterations began since `go_on`, and the number after the highest one that they handed out."""
        generation, iterations, following = map(int, self._latest.read())
        return (iterations, following) if generation == self._generation else (0, 0)

    def number(self, dataset: Any) -> Any:
        """The data set of `(number, batch)`."""
        import tensorflow as tf

        @tf.autograph.experimental.do_not_convert
        def numbers(_):
            generation, first = tf.unstack(self._begin.read())
            latest, iterations, following = tf.unstack(self._latest.read())
            goes_on = latest == generation
            first = tf.where(goes_on, tf.maximum(first, following), first)
            iteration = tf.stack([generation, tf.where(goes_on, iterations, 0) + 1])
            begun = tf.data.Dataset.from_tensors(iteration).repeat()
            return tf.data.Dataset.zip(begun, tf.data.Dataset.range(first, tf.int64.max))

        @tf.autograph.experimental.do_not_convert
        def hand_out(numbered, batch):
            iteration, number = numbered
            latest = self._latest.read()
            newer = (iteration[0] > latest[0]) | ((iteration[0] == latest[0]) & (iteration[1] >= latest[1]))
            self._latest.assign(tf.where(newer, tf.concat([iteration, [number + 1]], 0), latest))
            return number, batch

        cardinality = dataset.cardinality()
        numbered: Any = tf.data.Dataset.zip(tf.data.Dataset.range(1).flat_map(numbers), dataset).map(hand_out)
        known = cardinality != tf.data.UNKNOWN_CARDINALITY
        return numbered.apply(tf.data.experimental.assert_cardinality(cardinality)) if known else numbered
