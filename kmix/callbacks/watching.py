"""Watch what mixing does, epoch by epoch."""

import time

import keras
import numpy as np

from kmix import _checks
from kmix.callbacks import pictures
from kmix.diagnostics import arguments, outputs
from kmix.diagnostics.drawn import Mixer, alpha_of, check_mixer
from kmix.diagnostics.scores import probabilities
from kmix.diagnostics.seen import read
from kmix.layers.batch_layer import BatchLayer
from kmix.metrics import ExpectedCalibrationError, SoftLabelAccuracy
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
        x_clean: Some hundred training inputs: an array or a structure of them.
        y_clean: Their labels: class ids `(B,)`, `(B, 1)` or soft labels `(B, C)`.
        validation: Held-out `(x, y)`, or None.
        every: Measure in every n-th epoch, from the first; the logs repeat the last figures in between.
        mixer: The layer that mixes in a data pipeline. Defaults to the model, if that is a `MixTrainer`.
        log_dir: Folder for TensorBoard, which gets pictures: a mixed batch of `x_clean`, if it holds images, and the
            reliability diagram of the validation data. Needs the packages tensorboard and matplotlib.
        from_logits: Whether the model returns logits.
        num_bins: Number of bins of the calibration error.
        batch_size: Number of samples to predict at once.

    Raises:
        ValueError: if `y_clean` does not match `x_clean`; if `every` is less than 1; in training, if the model does not
            return probabilities, and `from_logits` is not set.
        TypeError: if `mixer` is no mixing layer or trainer.

    Example:
    >>> x, y = np.random.rand(64, 4).astype("float32"), np.arange(64) % 2
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation="softmax")])
    >>> trainer = kmix.MixTrainer(model, kmix.MixUp(0.4, seed=1))
    >>> trainer.compile("sgd", kmix.losses.SoftLabelCrossentropy())
    >>> watch = kmix.callbacks.Diagnostics(x[:32], y[:32], validation=(x[32:], y[32:]))
    >>> sorted(trainer.fit(x, y, verbose=0, callbacks=[watch]).history)[:4]
    ['accuracy_gap', 'alpha', 'clean_accuracy', 'diagnostics_seconds']
    """

    # How many plans of an epoch to look at.
    plans = 8

    def __init__(
        self,
        x_clean,
        y_clean,
        validation=None,
        every=1,
        *,
        mixer=None,
        log_dir=None,
        from_logits=False,
        num_bins=15,
        batch_size=128,
    ):
        super().__init__()
        self.clean = arguments.samples(x_clean, y_clean)
        self.validation = None if validation is None else arguments.samples(*validation)
        self.every = _checks.integer(every, "every", 1)
        self.mixer, self.log_dir, self.from_logits = check_mixer(mixer), log_dir, from_logits
        self.num_bins, self.batch_size = num_bins, batch_size
        self._steps, self._first, self._found = 0, 0, {}

    def on_epoch_begin(self, epoch, logs=None):
        self._first = self._steps

    def on_train_batch_end(self, batch, logs=None):
        # With `steps_per_execution`, `batch` is the last of several.
        self._steps = self._first + batch + 1

    def on_epoch_end(self, epoch, logs=None):
        if not self._found or epoch % self.every == 0:
            start = time.perf_counter()
            self._found = {**self._watch_model(epoch), **self._watch_mixer(epoch)}
            self._found["diagnostics_seconds"] = time.perf_counter() - start
        if logs is not None:
            logs.update(self._found)

    def _watch_model(self, epoch):
        """Figures of the model on clean data."""
        if isinstance(self.model, MixTrainer):
            # On JAX, `fit` holds the weights while it runs.
            self.model.refresh()
        found = {"clean_accuracy": self._accuracy(*self.clean)[0]}
        if self.validation is not None:
            accuracy, predictions = self._accuracy(*self.validation)
            error = ExpectedCalibrationError(self.num_bins)
            found["val_ece"] = float(error(self.validation[1], predictions))
            found["accuracy_gap"] = found["clean_accuracy"] - accuracy
            if self.log_dir is not None:
                pictures.write_reliability(self.log_dir, epoch, self.validation[1], predictions, self.num_bins)
        return found

    def _accuracy(self, x, y):
        # Batch by batch: `predict` draws from the generator that shuffles the data on PyTorch.
        model, parts = outputs.bare(self.model), outputs.batches(x, self.batch_size)
        predictions = np.concatenate([model.predict_on_batch(part) for part in parts])
        predictions = probabilities(predictions, "model", self.from_logits)
        return float(SoftLabelAccuracy()(y, predictions)), predictions

    def _watch_mixer(self, epoch):
        """Figures of the mixer, from plans of the epoch."""
        given = self.model if self.mixer is None else self.mixer
        if not isinstance(given, (BatchLayer, MixTrainer)) or self._steps == self._first:
            return {}
        mixer, count = Mixer(given), self._steps - self._first
        # A trainer stands at the step after the epoch.
        end = mixer.start if isinstance(given, MixTrainer) else self._steps
        steps = [end - count + round(step) for step in np.linspace(0, count - 1, min(count, self.plans))]
        part = tree.map_structure(lambda leaf: leaf[: self.batch_size], self.clean)
        mixed, drawn = zip(*(mixer.mix(step, part) for step in steps), strict=True)
        found = {"lam_mean": float(np.mean([one.lam.mean() for one in drawn]))}
        rows = [read(batch[1]) for batch in mixed]
        if all(one.entropy is not None for one in rows):
            found["label_entropy"] = float(np.mean([one.entropy.mean() for one in rows]))
        alpha = alpha_of(mixer.layer, steps[-1])
        if alpha is not None:
            found["alpha"] = alpha
        if self.log_dir is not None:
            pictures.write_batch(self.log_dir, epoch, *mixed[-1][:2])
        return found
