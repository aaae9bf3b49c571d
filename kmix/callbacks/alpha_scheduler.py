"""Change alpha during training."""

import copy

import keras

from kmix import _backend, _checks


class AlphaScheduler(keras.callbacks.Callback):
    """Sets the alpha of mixing layers or trainers from a schedule, and reports it in the logs as `alpha`.

    List it before callbacks that read the logs, such as `CSVLogger` and `TensorBoard`. In a prefetched
    data pipeline, batches that wait in the buffer keep the alpha they were drawn with; a schedule
    passed to the layer itself, `alpha=schedule`, is exact to the step. A deep copy, which tuners make for
    each trial, sets the same targets but counts on its own.

    Args:
        target: A mixing layer or a `MixTrainer`, or a list of them. For `RandomChoice`, pass its `layers`.
        schedule: A callable of the epoch or batch number, from `kmix.schedules` or your own.
        unit: `"epoch"` sets alpha at the start of each epoch, and counts from `initial_epoch` like
            `fit`. `"batch"` sets it before each training batch, and counts from 0 across epochs
            (with `steps_per_execution`, before each execution).

    Raises:
        ValueError: if a target follows its own schedule; if the unit is unknown; in training, if the
            schedule returns a negative number or NaN.
        TypeError: if a target has no alpha, or the schedule is not callable.

    Example:
    >>> mixup = kmix.MixUp(0.2, num_classes=10)
    >>> callback = kmix.callbacks.AlphaScheduler(mixup, kmix.schedules.Linear(0.4, 0.0, 20))
    >>> callback.on_epoch_begin(10)
    >>> mixup.alpha
    0.2
    """

    def __init__(self, target, schedule, unit="epoch"):
        super().__init__()
        self.targets = list(target) if isinstance(target, (list, tuple)) else [target]
        self.schedule = schedule
        self.unit = _checks.one_of(unit, "unit", ("epoch", "batch"))
        # Lets Keras call the batch hooks asynchronously, without delaying the training loop.
        self.async_safe = unit == "epoch"
        self._executions, self._alpha = 0, None
        if not callable(schedule):
            _checks.fail(
                "`schedule` must be a callable of the step.",
                f"schedule={schedule!r}",
                "For example, `kmix.schedules.Linear(0.4, 0.0, 20)` or `lambda epoch: 0.4 if epoch < 90 else 0.0`.",
                TypeError,
            )
        if not self.targets:
            _checks.fail("`target` must be a mixing layer or a list of them.", "an empty list")
        for layer in self.targets:
            if not hasattr(layer, "_check_alpha"):
                _checks.fail(
                    "`target` must be a mixing layer of kmix or a MixTrainer, or a list of them.",
                    f"a {type(layer).__name__}",
                    error=TypeError,
                )
            layer._check_alpha(0.0)

    def __deepcopy__(self, memo):
        # Share the targets: no training would use copies of them.
        shared = {id(item): item for item in (*self.targets, self.model)}
        twin = copy.copy(self)
        twin.__dict__.update(copy.deepcopy(self.__dict__, {**memo, **shared}))
        return twin

    def on_epoch_begin(self, epoch, logs=None):
        if self.unit == "epoch":
            self._set(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        if self.unit == "batch":
            self._set(self._executions)
            self._executions += 1

    def on_train_batch_end(self, batch, logs=None):
        self._report(logs)

    def on_epoch_end(self, epoch, logs=None):
        self._report(logs)

    def _set(self, step):
        self._alpha = _checks.real(_backend.values(self.schedule(step)).item(), "alpha")
        for layer in self.targets:
            layer.alpha = self._alpha

    def _report(self, logs):
        if logs is not None:
            logs["alpha"] = self._alpha
