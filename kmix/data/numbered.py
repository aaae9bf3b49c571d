"""What a numbering returns for data that is not a `tf.data.Dataset`."""

import keras

from kmix import _checks


class Numbered:
    """An iterable of `(number, batch)`, see `kmix.data.Numbering`."""

    def __init__(self, numbering, loader):
        self.loader, self.finished = loader, False
        self._numbering = numbering

    def __iter__(self):
        self.finished, turn = False, self._numbering.begin()
        for batch in self.loader:
            yield self._numbering.take(turn), batch
        self.finished = True

    def __len__(self):
        return len(self.loader)


class NumberedPyDataset(keras.utils.PyDataset):
    """A `PyDataset` of `(number, batch)`, or of what a function makes of these."""

    def __init__(self, numbering, loader, function=None):
        super().__init__(loader.workers, loader.use_multiprocessing, loader.max_queue_size)
        self.loader, self._function = loader, function
        self._numbering, self._first, self._unnoticed = numbering, None, 0
        self._iterable = Numbered(numbering, loader)

    @property
    def finished(self):
        """Whether an iteration came to its end."""
        return self._iterable.finished

    def map(self, function):
        """A `PyDataset` of `function(number, batch)`, which its threads or worker processes call."""
        if not callable(function):
            _checks.fail("`map` takes a function.", f"a {type(function).__name__}", "Write `layer.at_step`.", TypeError)
        mapped = NumberedPyDataset(self._numbering, self.loader, function)
        self._numbering.follow(mapped)
        return mapped

    def _made(self, number, batch):
        return (number, batch) if self._function is None else self._function(number, batch)

    def _first_of_epoch(self):
        return self._first if self._numbering is None else self._numbering.base

    def __getitem__(self, index):
        return self._made(self._first_of_epoch() + index, self.loader[index])

    def __iter__(self):
        return (self._made(number, batch) for number, batch in self._iterable)

    def __getstate__(self):
        # A worker process needs only the number that its epoch begins with.
        return {**self.__dict__, "_numbering": None, "_iterable": None, "_first": self._first_of_epoch()}

    @property
    def num_batches(self):
        return self.loader.num_batches

    def on_epoch_begin(self):
        # `fit` draws a batch before it trains, to build the model.
        self._unnoticed = 0 if self._numbering.fitting else self._unnoticed + 1
        if self._unnoticed > 1:
            _checks.fail(
                "Without the numbering, `fit` would repeat the plans in every epoch.",
                "an epoch that the numbering does not know of",
                "Write `model.fit(data, callbacks=[numbering])`.",
            )
        self.loader.on_epoch_begin()

    def on_epoch_end(self):
        self.loader.on_epoch_end()
