"""Change alpha during training."""

import copy
import itertools
from collections.abc import Callable
from typing import Any, Literal

import keras

from kmix import _backend, _checks


class AlphaScheduler(keras.callbacks.Callback):
    """Sets the alpha of mixing layers or trainers from a schedule, and reports it in the logs.

    The log is called `alpha`. If a `fit` has several schedulers, each reports `alpha_<layer name>` for its layers.

    List it before callbacks that read the logs, such as `CSVLogger` and `TensorBoard`. In a prefetched
    data pipeline, batches that wait in the buffer keep the alpha they were drawn with; a schedule
    passed to the layer itself, `alpha=schedule`, is exact to the step. A deep copy, which tuners make for
    each trial, sets the same layers but counts on its own.

    Args:
        layers: A mixing layer or a `MixTrainer`, or a list of them. For `RandomChoice`, pass its `layers`.
        schedule: A callable of the epoch or batch number, from `kmix.schedules` or your own.
        unit: `"epoch"` sets alpha at the start of each epoch, and counts from `initial_epoch` like
            `fit`. `"batch"` sets it before each training batch (with `steps_per_execution`, before each execution), and
            counts the batches of all epochs, also of those before `initial_epoch`.

    Raises:
        ValueError: if a layer follows its own schedule; if the unit is unknown; in training, if the
            schedule returns a negative number or NaN, or if batches before `initial_epoch` cannot be counted.
        TypeError: if a layer has no alpha, or the schedule is not callable or does not return a number.

    Example:
        >>> mixup = kmix.MixUp(0.2, num_classes=10)
        >>> callback = kmix.callbacks.AlphaScheduler(mixup, kmix.schedules.Linear(0.4, 0.0, 20))
        >>> callback.on_epoch_begin(10)
        >>> mixup.alpha
        0.2
    """

    def __init__(
        self, layers: Any, schedule: Callable[[Any], Any], *, unit: Literal["epoch", "batch"] = "epoch"
    ) -> None:
        super().__init__()
        self.layers: list[Any] = list(layers) if isinstance(layers, (list, tuple)) else [layers]
        self.schedule: Callable[[Any], Any] = schedule
        self.unit: Literal["epoch", "batch"] = _checks.one_of(unit, "unit", ("epoch", "batch"))
        # Lets Keras call the batch hooks asynchronously, without delaying the training loop.
        self.async_safe: bool = unit == "epoch"
        self.params: dict[str, Any] = {}
        self._alpha: float | None = None
        # The epoch to come and the number of its first batch, and how many of its batches were trained on.
        self._epoch, self._first, self._trained = 0, 0, 0
        if not callable(schedule) or isinstance(schedule, type):
            _checks.fail(
                "`schedule` must be a callable of the step.",
                f"schedule={schedule!r}",
                "For example, `kmix.schedules.Linear(0.4, 0.0, 20)` or `lambda epoch: 0.4 if epoch < 90 else 0.0`.",
                TypeError,
            )
        if not self.layers:
            _checks.fail("`layers` must be a mixing layer or a list of them.", "an empty list")
        for layer in self.layers:
            if not hasattr(layer, "_check_alpha") or isinstance(layer, type):
                _checks.fail(
                    "`layers` must be a mixing layer of kmix or a MixTrainer, or a list of them.",
                    f"{layer!r}" if isinstance(layer, type) else f"a {type(layer).__name__}",
                    error=TypeError,
                )
            layer._check_alpha(0.0)

    def __deepcopy__(self, memo):
        # Share the layers: no training would use copies of them.
        shared = {id(item): item for item in (*self.layers, self.model)}
        copied = copy.copy(self)
        copied.__dict__.update(copy.deepcopy(self.__dict__, {**memo, **shared}))
        return copied

    def set_params(self, params: dict[str, Any]) -> None:
        super().set_params(params)
        # Keras gives one dictionary to all callbacks of a `fit`, so that its schedulers can count themselves.
        params["alpha_schedulers"] = params.get("alpha_schedulers", 0) + 1
        taken = params.setdefault("alpha_names", set())
        self._names = []
        for layer in self.layers:
            base = f"alpha_{layer.name}"
            numbered = (f"{base}_{number}" for number in itertools.count(1))
            self._names.append(next(name for name in itertools.chain([base], numbered) if name not in taken))
            taken.add(self._names[-1])

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.unit == "epoch":
            self._set(epoch)
            return
        # Parts of a training may all begin with epoch 0.
        if epoch not in (0, self._epoch):
            steps = self.params.get("steps")
            if steps is None:
                _checks.fail(
                    "To go on where the schedule was, the batches of the epochs before are counted.",
                    f"initial_epoch={epoch} and data of unknown length",
                    "Pass `steps_per_epoch`, or schedule with `unit='epoch'`.",
                )
            self._first = epoch * steps
        self._trained = 0

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.unit == "batch":
            self._set(self._first + batch)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._trained = batch + 1
        self._report(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # The last execution of several steps may have fewer.
        trained = min(self._trained, self.params.get("steps") or self._trained)
        self._epoch, self._first = epoch + 1, self._first + trained
        self._report(logs)

    def _set(self, step):
        alpha = self.schedule(step)
        self._alpha = _checks.real(_backend.values(alpha) if hasattr(alpha, "dtype") else alpha, "alpha")
        for layer in self.layers:
            layer.alpha = self._alpha

    def _report(self, logs):
        if logs is not None:
            alone = self.params.get("alpha_schedulers", 1) == 1
            logs.update(dict.fromkeys(["alpha"] if alone else self._names, self._alpha))
