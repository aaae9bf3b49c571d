"""What mixing does, epoch by epoch, in the logs and in TensorBoard."""

import io
import os
import time
from typing import Any

import keras
import numpy as np

from kmix import _checks, plots
from kmix.batch import INPUTS
from kmix.diagnostics import data
from kmix.diagnostics.label_summary import label_summary
from kmix.diagnostics.models import bare, batches
from kmix.diagnostics.plan_replay import PlanReplay, check_mixer, is_mixer
from kmix.diagnostics.scores import label_shares, probabilities
from kmix.metrics import ExpectedCalibrationError, SoftLabelAccuracy
from kmix.plots.canvas import pyplot
from kmix.training.trainer import MixTrainer

tree = keras.tree


class Diagnostics(keras.callbacks.Callback):
    """Reports in the logs what mixing does, epoch by epoch.

    Training accuracy on mixed data says little. This measures the model on clean data:

    | log | what |
    | --- | --- |
    | `clean_accuracy` | accuracy on `x_clean`, a fixed part of the training data, unmixed |
    | `val_ece` | calibration error on the validation data |
    | `accuracy_gap` | `clean_accuracy` minus the accuracy on the validation data |
    | `alpha` | alpha of the mixer in the last step |
    | `lam_mean` | mean lam, from some plans of the epoch |
    | `label_entropy` | mean entropy in nats of the labels of `x_clean`, mixed with these plans |
    | `diagnostics_seconds` | what all this took |

    List it before callbacks that read the logs, such as `CSVLogger` and `TensorBoard`. Plans are computed from their
    step, so nothing that training draws changes.

    Args:
        x_clean: Some hundred training inputs: an array or a structure of them; or a data set of `(x, y)`, without
            `y_clean`. A data set may give dictionaries, with the inputs under the `inputs_key` of `mixer`.
        y_clean: Their labels: class ids `(B,)`, `(B, 1)` or soft labels `(B, C)`.
        validation_data: Held-out `(x, y)` or `(x, y, sample_weight)`, a data set of these, or None.
        every: Measure in every n-th epoch, from the first; the logs repeat the last figures in between.
        mixer: The layer that mixes in a data pipeline. Defaults to the model, if that is a `MixTrainer`.
        log_dir: Folder for TensorBoard, which gets pictures: a mixed batch of `x_clean`, if it holds images, and the
            reliability diagram of the validation data. Needs the packages tensorboard and matplotlib.
        from_logits: Whether the model returns logits.
        num_bins: Number of bins of the calibration error.
        batch_size: Number of samples to predict at once.

    Raises:
        ValueError: if labels do not match inputs, or are tags or several arrays; if `every`, `num_bins` or `batch_size`
            is less than 1; when training begins, if the model does not return probabilities of the classes of the
            labels, and `from_logits` is not set.
        TypeError: if `mixer` is no mixing layer or trainer.
        ImportError: if there is a `log_dir`, and TensorBoard is not installed.

    Example:
        >>> x, y = np.random.rand(64, 4).astype("float32"), np.arange(64) % 2
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation="softmax")])
        >>> trainer = kmix.MixTrainer(model, kmix.MixUp(0.4, seed=1))
        >>> trainer.compile("sgd", kmix.losses.SoftLabelCrossentropy())
        >>> watch = kmix.callbacks.Diagnostics(x[:32], y[:32], validation_data=(x[32:], y[32:]))
        >>> sorted(trainer.fit(x, y, verbose=0, callbacks=[watch]).history)[:4]
        ['accuracy_gap', 'alpha', 'clean_accuracy', 'diagnostics_seconds']
    """

    # How many plans of an epoch to look at.
    plans = 8

    def __init__(
        self,
        x_clean: Any,
        y_clean: Any = None,
        *,
        validation_data: Any = None,
        every: int = 1,
        mixer: Any = None,
        log_dir: str | os.PathLike[str] | None = None,
        from_logits: bool = False,
        num_bins: int = 15,
        batch_size: int = 128,
    ) -> None:
        super().__init__()
        self.every: int = _checks.integer(every, "every", 1)
        self.num_bins: int = _checks.integer(num_bins, "num_bins", 1)
        self.batch_size: int = _checks.integer(batch_size, "batch_size", 1)
        self.from_logits: bool = _checks.boolean(from_logits, "from_logits")
        self.mixer: Any = check_mixer(mixer)
        self.log_dir: str | None = None if log_dir is None else os.fspath(log_dir)
        key = getattr(mixer, "inputs_key", INPUTS)
        self._clean, self._held_out = data.samples(x_clean, y_clean, inputs_key=key), None
        if validation_data is not None:
            is_arrays = isinstance(validation_data, (tuple, list)) and len(validation_data) in (2, 3)
            self._held_out = data.samples(*(validation_data if is_arrays else (validation_data,)), inputs_key=key)
        if log_dir is not None:
            _tensorboard()
        self._steps, self._first = 0, 0
        self._found: dict[str, float] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        for part in (self._clean, self._held_out):
            if part is not None:
                first = batches((part.x, part.y), self.batch_size)[0]
                label_shares(first[1], self._predict(first[0]).shape[1])

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._first = self._steps

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # With `steps_per_execution`, `batch` is the last of several.
        self._steps = self._first + batch + 1

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not self._found or epoch % self.every == 0:
            start = time.perf_counter()
            self._found = {**self._measure_model(epoch), **self._measure_mixer(epoch)}
            self._found["diagnostics_seconds"] = time.perf_counter() - start
        if logs is not None:
            logs.update(self._found)

    def _measure_model(self, epoch):
        """Figures of the model on clean data."""
        if isinstance(self.model, MixTrainer):
            # On JAX, `fit` holds the weights while it runs.
            self.model.refresh()
        found = {"clean_accuracy": self._accuracy(self._clean)[0]}
        if self._held_out is not None:
            y, weights = self._held_out.y, self._held_out.weights
            accuracy, predictions = self._accuracy(self._held_out)
            found["val_ece"] = float(ExpectedCalibrationError(self.num_bins)(y, predictions, weights))
            found["accuracy_gap"] = found["clean_accuracy"] - accuracy
            if self.log_dir is not None:
                figure = pyplot().figure(figsize=(4.0, 4.0), layout="constrained")
                settings = {"sample_weight": weights, "num_bins": self.num_bins, "ax": figure.subplots()}
                plots.reliability_diagram(y, predictions, **settings).legend(loc="upper left")
                self._write(epoch, "reliability", figure)
        return found

    def _accuracy(self, part):
        predictions = self._predict(part.x)
        return float(SoftLabelAccuracy()(part.y, predictions, part.weights)), predictions

    def _predict(self, x):
        # Batch by batch: `predict` draws from the generator that shuffles the data on PyTorch.
        predict = bare(self.model).predict_on_batch
        parts = [probabilities(predict(part), "model", self.from_logits) for part in batches(x, self.batch_size)]
        return np.concatenate(parts)

    def _measure_mixer(self, epoch):
        """Figures of the mixer, from plans of the epoch."""
        given = self.model if self.mixer is None else self.mixer
        if not is_mixer(given) or self._steps == self._first:
            return {}
        replay, count = PlanReplay(given), self._steps - self._first
        # A trainer stands at the step after the epoch.
        end = replay.start if isinstance(given, MixTrainer) else self._steps
        steps = [end - count + round(step) for step in np.linspace(0, count - 1, min(count, self.plans))]
        part = tree.map_structure(lambda leaf: leaf[: self.batch_size], (self._clean.x, self._clean.y))
        mixed, repeated = zip(*(replay.mix(step, part) for step in steps), strict=True)
        found = {"lam_mean": float(np.mean([plan.lam.mean() for plan in repeated]))}
        x, y, _ = data.read_batch(mixed[-1])
        if len(y) == 1:
            (name,) = y
            entropy = label_summary([data.read_batch(batch)[1][name] for batch in mixed]).entropy
            if entropy is not None:
                found["label_entropy"] = float(np.mean(entropy))
            if self.log_dir is not None:
                self._write_batch(epoch, x, y[name])
        alpha = replay.alpha(steps[-1])
        if alpha is not None:
            found["alpha"] = alpha
        return found

    def _write_batch(self, epoch, x, y):
        """Write mixed images with their labels. Inputs of other shapes have no picture."""
        images = not tree.is_nested(x) and (x.ndim == 3 or (x.ndim == 4 and x.shape[-1] in (1, 3)))
        if images and y.ndim == 2 and y.shape[1] > 1:
            self._write(epoch, "mixed batch", plots.mixed_batch(x, y))

    def _write(self, step, tag, figure):
        """Write a figure as a PNG for TensorBoard, without TensorFlow, and close it."""
        event_pb2, summary_pb2, writer_of = _tensorboard()
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=80)
        pyplot().close(figure)
        width, height = (round(inches * 80) for inches in figure.get_size_inches())
        image = summary_pb2.Summary.Image(
            encoded_image_string=file.getvalue(), height=height, width=width, colorspace=3
        )
        summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, image=image)])
        writer = writer_of(self.log_dir)
        writer.add_event(event_pb2.Event(wall_time=time.time(), step=step, summary=summary))
        writer.close()


def _tensorboard():
    with _checks.installed("TensorBoard", "diagnostics"):
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    return event_pb2, summary_pb2, EventFileWriter
