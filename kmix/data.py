"""Number the batches of a data pipeline, so that every batch of every epoch has a plan of its own."""

import keras
import numpy as np

from kmix import _backend, _checks

__all__ = ["Numbering"]


class Numbering(keras.callbacks.Callback):
    """Numbers the batches of a `tf.data.Dataset` 0, 1, 2, ... across epochs.

    `ds.enumerate()` begins at 0 again in every epoch of `fit`, which would repeat the plans. A numbering
    continues. It is also a callback: pass it to `fit(callbacks=[...])`. `fit` draws batches before
    it trains, and the callback tells the pipeline where training begins. In your own loop, without
    the callback, the numbers continue from the last batch produced.

    Args:
        start: Number of the first batch, an int >= 0. To resume, pass the number of batches trained on
            so far. With `fit(initial_epoch=...)` and data of known length, leave it at 0: the skipped epochs
            are counted.

    Call arguments:
        dataset: A batched `tf.data.Dataset`.

    Returns:
        A `tf.data.Dataset` of `(number, batch)`, of the same cardinality.

    Raises:
        TypeError: if `dataset` is not a `tf.data.Dataset`.
        ValueError: if `start` is negative, or if you call the numbering on a second data set.

    Example:
    >>> import tensorflow as tf
    >>> numbering = kmix.data.Numbering()
    >>> mixup = kmix.MixUp(0.2, num_classes=2, seed=1)
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
        self._length, self._done, self._generation = 0, 0, 0
        self._offset: int | None = None

    def __call__(self, dataset):
        import tensorflow as tf

        if not isinstance(dataset, tf.data.Dataset):
            _checks.fail(
                "`Numbering` numbers the batches of a `tf.data.Dataset`.",
                f"a {type(dataset).__name__}",
                "For other loaders, write `for step, batch in enumerate(loader): batch = layer.at_step(step, batch)`; "
                "with Grain, `dataset.map_with_index(layer.at_step)`.",
                TypeError,
            )
        if self._managed is not None:
            _checks.fail("A numbering belongs to one data set.", "a second data set", "Create a second `Numbering()`.")
        # Both are (generation, number). Only this callback writes `managed`, and only the pipeline writes `produced`,
        # so an iterator left over from before training cannot disturb the numbers.
        managed = self._managed = _backend.Resource(np.array([0, self.start], "int64"))
        produced = self._produced = _backend.Resource(np.array([0, self.start], "int64"))
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
        self._offset = None

    def on_epoch_begin(self, epoch, logs=None):
        if self._managed is None:
            _checks.fail(
                "The numbering has no data set to number.",
                "a callback without a data set",
                "Write `train = numbering(ds).map(layer.at_step)` and fit on that.",
            )
        steps, first_of_fit = self._steps(), self._offset is None
        if self._offset is None:
            self._offset = max(self.start, self._done - epoch * steps)
        # With steps_per_epoch, one iterator lasts across epochs and continues the numbers by itself.
        if first_of_fit or steps == self._length > 0:
            self._generation += 1
            self._managed.assign(np.array([self._generation, self._offset + epoch * steps]))

    def on_epoch_end(self, epoch, logs=None):
        if self._steps():
            self._done = (self._offset or 0) + (epoch + 1) * self._steps()
        elif self._produced is not None:
            self._done = int(self._produced.read()[1])

    def _steps(self):
        """Batches in an epoch, or 0 if unknown."""
        return self.params.get("steps") or self._length
